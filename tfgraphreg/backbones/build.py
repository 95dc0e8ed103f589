"""Builds a backbone: raw images in, features out."""

from __future__ import annotations

import os
from typing import Any

from tfgraphreg.backbones.catalog import BACKBONES
from tfgraphreg.backbones.records import NETWORK, Backbone, plan_input
from tfgraphreg.errors import ModelError, TFGraphRegError


def build_backbone(
    name: str,
    *,
    input_shape: tuple[int, int, int],
    weights: str | os.PathLike[str] = "none",
    image_size: int | tuple[int, int] | None = None,
    options: dict[str, Any] | None = None,
) -> Any:
    """Builds the backbone `name` for raw images of one size.

    The model casts, resizes, repeats gray into channels and scales pixels as the network needs
    (`records.plan_input` tells beforehand what it will do), so that what is served takes the
    images as they come. The network itself is the layer named ``network``.

    Args:
        name: A name in `BACKBONES`.
        input_shape: (H, W, C) of the images, C 1 or 3.
        weights: ``"none"`` for random ones; ``"imagenet"`` for those that the library
            publishes, which needs a network connection; a file that `save_weights` of the
            same backbone wrote; or ``"timm:FILE.safetensors"``, a timm state dict, for the
            families that can take one.
        image_size: The side, or (height, width), to which images are resized; by default they
            keep their size where the network takes it.
        options: Further arguments of the record's builder, such as ``units`` of ``fcnn``.

    Returns:
        A `keras.Model` from images [B, H, W, C] with values in 0 to 255 to features [B, D],
        float32 or the compute type of the mixed precision policy.

    Raises:
        UnknownNameError: If there is no such backbone; the message gives the nearest names.
        MissingExtraError: If the library that has it is not installed.
        ModelError: If the images, the weights or the options do not fit.
    """
    from tfgraphreg.backbones.inputs import RawImage
    from tfgraphreg.backbones.weights import load_weights, network_weights
    from tfgraphreg.compat import keras

    record = BACKBONES.get(name)
    plan = plan_input(record, input_shape, image_size=image_size)
    network = _build_network(
        record,
        input_shape=(plan.height, plan.width, plan.channels),
        weights=network_weights(record, weights),
        options=options or {},
    )
    image = keras.Input(input_shape, name="image")
    x = RawImage(
        size=(plan.height, plan.width) if plan.resized else None,
        channels=plan.channels,
        preprocessing=record.preprocessing,
        name="raw_image",
    )(image)
    x = network(x)
    if len(x.shape) == 4:
        x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    elif len(x.shape) == 3:
        x = keras.layers.GlobalAveragePooling1D(name="pool")(x)
    model = keras.Model(image, x, name=record.name)
    load_weights(model, record, weights)
    return model


def _build_network(
    record: Backbone,
    *,
    input_shape: tuple[int, int, int],
    weights: str | None,
    options: dict[str, Any],
) -> Any:
    arguments = {**record.arguments, **options}
    builder = record.load_builder()
    try:
        network = builder(input_shape=input_shape, weights=weights, **arguments)
    except TFGraphRegError:
        raise
    except Exception as error:  # Libraries raise whatever they meet.
        if not options and weights is None:
            raise
        what = f"loaded with weights={weights!r}" if weights else "built with these options"
        raise ModelError(
            f"The backbone {record.name} cannot be {what} ({str(error)[:200]}).",
            received=f"options={options}" if options else None,
        ) from error
    network._name = NETWORK
    return network
