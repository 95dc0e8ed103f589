"""SelecSLS: few wide skips within a level, all of a block's stages read at once.

Mehta et al.: XNect: Real-time Multi-person 3D Motion Capture with a Single RGB Camera
(arXiv:1907.00837). A block concatenates the results of three 3x3 stages; blocks after the first
of a level also see the level's first output.
"""

from __future__ import annotations

from typing import Any

from tfgraphreg.backbones.families import blocks_conv as blocks
from tfgraphreg.backbones.families.timm_weights import mechanical_names
from tfgraphreg.backbones.families.variant import named_builder, tabulate
from tfgraphreg.compat import keras

_STEM = 32
# Each level: the width of its stages, and the output widths of its blocks.
_Level = tuple[int, tuple[int, ...]]
_42: tuple[_Level, ...] = ((64, (64, 128)), (144, (144, 288)), (304, (304, 480)))
_60: tuple[_Level, ...] = (
    (64, (64, 128)),
    (128, (128, 128, 288)),
    (288, (288, 288, 288, 416)),
)
_84: tuple[_Level, ...] = (
    (64, (64, 144)),
    (144, (144, 144, 144, 144, 304)),
    (304, (304, 304, 304, 304, 304, 512)),
)
# The head's convolutions: width, kernel, stride.
_Head = tuple[tuple[int, int, int], ...]


def _head(first: int, third: int, last: int, *, kernel: int = 1) -> _Head:
    return ((first, 3, 2), (1024, 3, 1), (third, 3, 2), (last, kernel, 1))


def _conv(x: Any, width: int, kernel: int, path: str, stride: int = 1) -> Any:
    return blocks.conv_norm(x, width, kernel, f"{path}.0", f"{path}.1", stride=stride)


def _block(x: Any, skip: Any | None, middle: int, width: int, path: str, stride: int) -> Any:
    first = _conv(x, middle, 3, f"{path}.conv1", stride)
    second = _conv(first, middle, 1, f"{path}.conv2")
    second = _conv(second, middle // 2, 3, f"{path}.conv3")
    third = _conv(second, middle, 1, f"{path}.conv4")
    third = _conv(third, middle // 2, 3, f"{path}.conv5")
    parts = [first, second, third] + ([] if skip is None else [skip])
    parts = keras.layers.Concatenate(name=f"{path}.cat")(parts)
    return _conv(parts, width, 1, f"{path}.conv6")


def _selecsls(
    name: str,
    input_shape: tuple[int | None, int | None, int],
    pooling: str | None,
    *,
    levels: tuple[_Level, ...],
    head: _Head,
) -> Any:
    inputs = blocks.image_input(input_shape)
    x = _conv(inputs, _STEM, 3, "stem", stride=2)
    index = 0
    for middle, widths in levels:
        skip = None
        for width in widths:
            stride = 2 if skip is None else 1
            x = _block(x, skip, middle, width, f"features.{index}", stride)
            skip = x if skip is None else skip
            index += 1
    for number, (width, kernel, stride) in enumerate(head):
        x = _conv(x, width, kernel, f"head.{number}", stride)
    return blocks.finish(inputs, x, pooling, name)


def timm_names(model: Any) -> dict[str, str]:
    """Maps each weight to timm's key: the layers carry timm's module paths as names."""
    return mechanical_names(model)


selecsls42 = named_builder(_selecsls, "selecsls42", levels=_42, head=_head(960, 1024, 1280))
selecsls42b = named_builder(_selecsls, "selecsls42b", levels=_42, head=_head(960, 1280, 1024))
selecsls60 = named_builder(_selecsls, "selecsls60", levels=_60, head=_head(756, 1024, 1280))
selecsls60b = named_builder(_selecsls, "selecsls60b", levels=_60, head=_head(756, 1280, 1024))
selecsls84 = named_builder(
    _selecsls, "selecsls84", levels=_84, head=_head(960, 1024, 1280, kernel=3)
)

VARIANTS = tabulate(
    [
        (selecsls42, 1280, 30_354_952),
        (selecsls42b, 1024, 32_458_248),
        (selecsls60, 1280, 30_670_768),
        (selecsls60b, 1024, 32_774_064),
        (selecsls84, 1280, 50_954_600),
    ],
    family="SelecSLS",
    paper=(
        "arXiv:1907.00837, XNect: Real-time Multi-person 3D Motion Capture with a Single RGB Camera"
    ),
    min_size=32,
    default_size=224,
    learning_rate=1e-3,
    classifier=("fc",),
)
