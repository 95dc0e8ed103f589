"""What the registry knows about one backbone, and how an image is brought to what it needs.

Nothing here imports TensorFlow: the table can be read at once.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, get_args

from tfgraphreg.errors import ConfigError, ModelError

Preprocessing = Literal["none", "zero_to_one", "minus_one_to_one", "torch", "caffe", "dpn"]
# The layer of a built backbone that holds the network itself.
NETWORK = "network"
PREPROCESSINGS: tuple[str, ...] = get_args(Preprocessing)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backbone:
    """One network that turns images into features.

    Args:
        name: The name in the registry, lowercase with underscores.
        family: The name that variants of one architecture share.
        library: Where the network comes from: ``keras.applications``, ``kecam``, ``keras_cv``
            or ``tfgraphreg``.
        builder: A function, or ``"module:function"`` which is imported when the network is
            built. It is called as ``builder(input_shape=(H, W, C), weights=None | "imagenet",
            **arguments)`` and returns a `keras.Model` from preprocessed images
            [B, H, W, C] to features [B, width] or a feature map [B, ..., width], which is
            then averaged over all positions.
        arguments: Further keyword arguments of `builder`.
        preprocessing: What pixels in 0 to 255 become before the network: ``zero_to_one``,
            ``minus_one_to_one``, ``torch`` (0 to 1, then ImageNet's mean and standard
            deviation taken off per channel), ``caffe`` (BGR, ImageNet's mean taken off),
            ``dpn`` (the scale of the dual path networks), or
            ``none`` where the network does it itself.
        width: D, the number of features.
        parameters: Trainable parameters at `default_size`, without a classifier.
        min_size: The smallest side of an image, in pixels, with which the network works.
        enlarge_to: The side to which smaller images are enlarged, where `min_size` leaves the
            last layers too few positions to learn well; `min_size` if None.
        multiple_of: Sides must be multiples of this; 1 where any size works.
        default_size: The side for which the network was designed.
        channels: Channels that the network takes; None if it takes any number.
        learning_rate: A rate with which Adam trains the network from random weights.
        pretrained: Whether the library publishes ImageNet weights for this variant.
        paper: Where the architecture was published.
        timm: The name of timm's model with the same weights, if the network can take them.
    """

    name: str
    family: str
    library: str
    builder: str | Callable[..., Any]
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    preprocessing: str = "torch"
    width: int
    parameters: int
    min_size: int = 32
    enlarge_to: int | None = None
    multiple_of: int = 1
    default_size: int = 224
    channels: int | None = 3
    learning_rate: float = 1e-3
    pretrained: bool = False
    paper: str
    timm: str | None = None

    def __post_init__(self) -> None:
        if self.preprocessing not in PREPROCESSINGS:
            raise ConfigError(
                f"`preprocessing` of a backbone must be one of {', '.join(PREPROCESSINGS)}.",
                received=f"{self.preprocessing!r} for {self.name}",
            )

    def load_builder(self) -> Callable[..., Any]:
        """Imports and returns the function that builds the network."""
        if callable(self.builder):
            return self.builder
        module, _, function = self.builder.partition(":")
        return getattr(importlib.import_module(module), function)


@dataclasses.dataclass(frozen=True)
class InputPlan:
    """How an image is brought to what a backbone needs.

    Args:
        height: Height in pixels that the network sees.
        width: Width in pixels that the network sees.
        channels: Channels that the network sees.
        resized: Whether images are resized (bilinear) inside the model.
        notes: Sentences that a run should say aloud, one for each change nobody asked for.
    """

    height: int
    width: int
    channels: int
    resized: bool
    notes: tuple[str, ...] = ()


def plan_input(
    record: Backbone,
    input_shape: tuple[int, int, int],
    *,
    image_size: int | tuple[int, int] | None = None,
) -> InputPlan:
    """Decides which size and how many channels the network sees.

    With `image_size`, exactly that. Without, the image's own size where the network takes it;
    a smaller image is enlarged (bilinear, both sides by one factor, so that shapes keep their
    proportions), and a size that is no multiple of what the network asks for is rounded up.
    Resizing is preferred to padding because it treats every data set alike: zeros around an
    image are background in Fashion-MNIST and a black frame in a photograph.

    Args:
        record: The backbone.
        input_shape: (height, width, channels) of the images, channels 1 or 3.
        image_size: A side, or (height, width), in pixels.

    Raises:
        ModelError: If the network cannot work with `image_size` or the channels.
    """
    height, width, channels = _checked_shape(input_shape)
    if image_size is not None:
        size = check_size(record, image_size)
        resized = size != (height, width)
        notes: list[str] = []
    else:
        least = record.enlarge_to or record.min_size
        factor = max(1.0, least / min(height, width))
        size = (
            _round_up(height * factor, record.multiple_of),
            _round_up(width * factor, record.multiple_of),
        )
        resized = size != (height, width)
        notes = []
        if resized:
            need = f"at least {least} pixels a side"
            if record.multiple_of > 1:
                need += f" in multiples of {record.multiple_of}"
            notes.append(
                f"Images of {height}x{width} are resized to {size[0]}x{size[1]} inside the model: "
                f"{record.name} {'wants' if record.enlarge_to else 'needs'} {need}."
            )
    seen = record.channels or channels
    if seen != channels:
        if channels != 1:
            raise ModelError(
                f"The backbone {record.name} takes images with {seen} channel(s).",
                received=f"input_shape={tuple(input_shape)}",
                cure="Choose another backbone or convert the images.",
            )
        notes.append(f"Gray images are repeated into {seen} channels for {record.name}.")
    return InputPlan(size[0], size[1], seen, resized, tuple(notes))


def _round_up(side: float, multiple: int) -> int:
    # 28 * (32 / 28) may come out a hair above 32.
    return math.ceil(round(side, 6) / multiple) * multiple


def _checked_shape(input_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    shape = tuple(input_shape)
    good = len(shape) == 3 and all(isinstance(n, numbers.Integral) and n > 0 for n in shape)
    if not good or shape[2] not in (1, 3):
        raise ModelError(
            "`input_shape` must be (height, width, channels) with 1 or 3 channels.",
            received=f"input_shape={shape}",
        )
    return shape[0], shape[1], shape[2]


def check_size(record: Backbone, image_size: int | tuple[int, int]) -> tuple[int, int]:
    """The height and width that `image_size` means.

    Raises:
        ModelError: If the network cannot work with them.
    """
    size = tuple(image_size) if isinstance(image_size, Iterable) else (image_size, image_size)
    multiple = record.multiple_of
    if len(size) != 2 or min(size) < record.min_size or any(side % multiple for side in size):
        rule = (
            f"The backbone {record.name} needs images of at least {record.min_size} pixels a side"
        )
        rule += f", in multiples of {multiple}." if multiple > 1 else "."
        nearest = max(record.min_size, _round_up(max(size), multiple))
        raise ModelError(
            rule, received=f"image_size={image_size}", cure=f"Use image_size={nearest}."
        )
    return size
