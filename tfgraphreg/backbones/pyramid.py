"""The maps of a backbone at every resolution, for what speaks of parts of images."""

from __future__ import annotations

from typing import Any

from tfgraphreg.backbones.records import NETWORK
from tfgraphreg.compat import keras
from tfgraphreg.errors import ModelError

_RAW_IMAGE = "raw_image"


def build_pyramid(backbone: Any, *, coarsest: int = 2) -> Any:
    """A model of raw images that gives the maps of a backbone instead of its features.

    Of each resolution it gives the last map, which has gone through most layers. Maps as large as
    the image and maps of fewer positions than `coarsest` are left out; layers behind the last map
    are not part of the model.

    Args:
        backbone: Of `build_backbone`; its layers are shared, so its weights are too.
        coarsest: Positions a side that a map has at least; where only one map has so many, the
            next one is taken too.

    Returns:
        A `keras.Model` from images `[B, H, W, C]` with values 0 to 255 to a list of at least two
        maps `[B, h, w, F]`, the finest first.

    Raises:
        ModelError: If the backbone is not one of `build_backbone`, or has no two such maps, as a
            vision transformer has not.
    """
    names = [layer.name for layer in backbone.layers]
    if NETWORK not in names or _RAW_IMAGE not in names:
        raise ModelError(
            "Maps can be taken only of a network that was built by its name.",
            received=f"the model {backbone.name}",
            cure="Name a `backbone`.",
        )
    network = backbone.get_layer(NETWORK)
    maps = _maps(network)
    if len(maps) < 2:
        raise ModelError(
            f"The backbone {backbone.name} has no maps of several resolutions, which boxes and "
            "masks need.",
            cure="Use a convolutional network, such as `backbone=cnn_pyramid` or "
            "`backbone=mobilenet_v3_small`.",
        )
    enough = sum(min(found.shape[1:3]) >= coarsest for found in maps)
    several = keras.Model(network.inputs, maps[: max(enough, 2)])
    several._name = NETWORK  # By this name freezing and learning rates find the network.
    image = keras.Input(backbone.input_shape[1:], name="image")
    found = several(backbone.get_layer(_RAW_IMAGE)(image))
    return keras.Model(image, found, name=f"{backbone.name}_pyramid")


def _maps(network: Any) -> list[Any]:
    """The last map of each resolution, the finest first."""
    if not getattr(network, "inputs", None):
        return []
    whole = tuple(network.inputs[0].shape[1:3])
    found: dict[tuple[int, int], Any] = {}
    for layer in network.layers:
        # A layer that is used twice has no single output, and neither has one that gives a list.
        output = getattr(layer, "output", None) if len(layer._inbound_nodes) == 1 else None
        shape = tuple(getattr(output, "shape", ()))
        if len(shape) != 4 or None in shape[1:3]:
            continue
        size = shape[1:3]
        if min(size) > 1 and size[0] < whole[0] and size[1] < whole[1]:
            found[size] = output
    return [found[size] for size in sorted(found, reverse=True)]
