"""MixNet: depthwise convolutions with kernels of several sizes side by side.

Tan, Le: MixConv: Mixed Depthwise Convolutional Kernels (arXiv:1907.09595). The channels of a
depthwise convolution are cut into groups, and each group has a kernel size of its own; some 1x1
convolutions are cut in two halves that do not see each other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tfgraphreg.backbones.families import blocks_conv as blocks
from tfgraphreg.backbones.families import blocks_mobile as mobile
from tfgraphreg.backbones.families.timm_weights import mechanical_names
from tfgraphreg.backbones.families.variant import named_builder, tabulate
from tfgraphreg.compat import keras

_LAST = 1536


class _Blocks(NamedTuple):
    """Blocks of one kind: kernel sizes, whether the 1x1 convolutions are cut, and so on.

    `cuts` says in how many groups the expansion and the projection work; `se` is the squeeze's
    width relative to the block's input.
    """

    repeats: int
    kernels: tuple[int, ...]
    cuts: tuple[int, int]
    stride: int
    expand: int
    width: int
    se: float = 0.0
    act: str = "swish"


_SMALL = (
    (
        _Blocks(1, (3,), (2, 2), 2, 6, 24, act="relu"),
        _Blocks(1, (3,), (2, 2), 1, 3, 24, act="relu"),
    ),
    (_Blocks(1, (3, 5, 7), (1, 1), 2, 6, 40, 0.5), _Blocks(3, (3, 5), (2, 2), 1, 6, 40, 0.5)),
    (_Blocks(1, (3, 5, 7), (1, 2), 2, 6, 80, 0.25), _Blocks(2, (3, 5), (1, 2), 1, 6, 80, 0.25)),
    (
        _Blocks(1, (3, 5, 7), (2, 2), 1, 6, 120, 0.5),
        _Blocks(2, (3, 5, 7, 9), (2, 2), 1, 3, 120, 0.5),
    ),
    (
        _Blocks(1, (3, 5, 7, 9, 11), (1, 1), 2, 6, 200, 0.5),
        _Blocks(2, (3, 5, 7, 9), (1, 2), 1, 6, 200, 0.5),
    ),
)
_MEDIUM = (
    (
        _Blocks(1, (3, 5, 7), (2, 2), 2, 6, 32, act="relu"),
        _Blocks(1, (3,), (2, 2), 1, 3, 32, act="relu"),
    ),
    (_Blocks(1, (3, 5, 7, 9), (1, 1), 2, 6, 40, 0.5), _Blocks(3, (3, 5), (2, 2), 1, 6, 40, 0.5)),
    (
        _Blocks(1, (3, 5, 7), (1, 1), 2, 6, 80, 0.25),
        _Blocks(3, (3, 5, 7, 9), (2, 2), 1, 6, 80, 0.25),
    ),
    (_Blocks(1, (3,), (1, 1), 1, 6, 120, 0.5), _Blocks(3, (3, 5, 7, 9), (2, 2), 1, 3, 120, 0.5)),
    (
        _Blocks(1, (3, 5, 7, 9), (1, 1), 2, 6, 200, 0.5),
        _Blocks(3, (3, 5, 7, 9), (1, 2), 1, 6, 200, 0.5),
    ),
)


def _mixnet(
    name: str,
    input_shape: tuple[int | None, int | None, int],
    pooling: str | None,
    *,
    stages: tuple[tuple[_Blocks, ...], ...],
    stem: int,
    multiplier: float = 1.0,
) -> Any:
    inputs = blocks.image_input(input_shape)
    stem = mobile.make_divisible(stem * multiplier)
    x = blocks.conv_norm(inputs, stem, 3, "conv_stem", "bn1", stride=2)
    x = mobile.depthwise_separable(x, stem, 3, "blocks.0.0")
    for number, stage in enumerate(stages, start=1):
        rows = [row for row in stage for _ in range(row.repeats)]
        for index, row in enumerate(rows):
            width = mobile.make_divisible(row.width * multiplier)
            x = _block(x, row, width, f"blocks.{number}.{index}")
    x = blocks.conv_norm(x, _LAST, 1, "conv_head", "bn2")
    return blocks.finish(inputs, x, pooling, name)


def _block(x: Any, row: _Blocks, width: int, path: str) -> Any:
    """An inverted residual (arXiv:1801.04381) with mixed convolutions."""
    shortcut, inputs = x, x.shape[-1]
    middle = mobile.make_divisible(inputs * row.expand)
    before, after = ((1,) * cuts for cuts in row.cuts)
    x = _mixed_conv(x, middle, before, f"{path}.conv_pw")
    x = blocks.norm(x, f"{path}.bn1", act=row.act)
    x = _mixed_conv(x, middle, row.kernels, f"{path}.conv_dw", stride=row.stride, depthwise=True)
    x = blocks.norm(x, f"{path}.bn2", act=row.act)
    if row.se:
        reduced = round(middle * row.se / row.expand)
        x = blocks.squeeze_excite(x, reduced, f"{path}.se", act=row.act)
    x = _mixed_conv(x, width, after, f"{path}.conv_pwl")
    x = blocks.norm(x, f"{path}.bn3")
    same = row.stride == 1 and inputs == width
    return blocks.add_shortcut(x, shortcut, path) if same else x


def _mixed_conv(
    x: Any,
    width: int,
    kernels: tuple[int, ...],
    path: str,
    *,
    stride: int = 1,
    depthwise: bool = False,
) -> Any:
    """One convolution per kernel size, each over its own part of the channels."""
    inputs = _shares(x.shape[-1], len(kernels))
    outputs, start = [], 0
    for i, (kernel, taken, given) in enumerate(zip(kernels, inputs, _shares(width, len(kernels)))):
        one = len(kernels) == 1
        part = x if one else blocks.Channels(start, start + taken, name=f"{path}.part{i}")(x)
        groups = taken if depthwise else 1
        name = path if one else f"{path}.{i}"
        outputs.append(blocks.conv(part, given, kernel, name, stride=stride, groups=groups))
        start += taken
    return outputs[0] if one else keras.layers.Concatenate(name=f"{path}.cat")(outputs)


def _shares(channels: int, parts: int) -> list[int]:
    """Equal shares of the channels; the first takes what is left over."""
    share = channels // parts
    return [channels - share * (parts - 1)] + [share] * (parts - 1)


def timm_names(model: Any) -> dict[str, str]:
    """Maps each weight to timm's key: the layers carry timm's module paths as names."""
    return mechanical_names(model)


mixnet_s = named_builder(_mixnet, "mixnet_s", stages=_SMALL, stem=16)
mixnet_m = named_builder(_mixnet, "mixnet_m", stages=_MEDIUM, stem=24)
mixnet_l = named_builder(_mixnet, "mixnet_l", stages=_MEDIUM, stem=24, multiplier=1.3)

VARIANTS = tabulate(
    [
        (mixnet_s, _LAST, 4_134_606),
        (mixnet_m, _LAST, 5_014_382),
        (mixnet_l, _LAST, 7_329_252),
    ],
    family="MixNet",
    paper="arXiv:1907.09595, MixConv: Mixed Depthwise Convolutional Kernels",
    min_size=32,
    default_size=224,
    learning_rate=1e-3,
)
