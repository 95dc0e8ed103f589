"""ReXNet: widths that grow by the same step from block to block.

Han, Yun, Heo, Yoo: Rethinking Channel Dimensions for Efficient Model Design (arXiv:2007.00992).
Each inverted bottleneck adds its input to the first channels of its wider output only.
The variants named rexnetr round all widths to multiples of 8 or 16.
"""

from __future__ import annotations

from typing import Any

from tfgraphreg.backbones.families import blocks_conv as blocks
from tfgraphreg.backbones.families import blocks_mobile as mobile
from tfgraphreg.backbones.families.timm_weights import mechanical_names
from tfgraphreg.backbones.families.variant import named_builder, tabulate
from tfgraphreg.compat import keras

_DEPTHS = (1, 2, 2, 3, 3, 5)
_STRIDES = (1, 2, 2, 2, 1, 2)
_STEM, _FIRST, _GROWTH, _LAST = 32, 16, 180, 1280
_EXPANSION = 6
_SE_RATIO = 1 / 12


def _divisible(value: float, divisor: int) -> int:
    # Python rounds halves to even here, and the published widths depend on it.
    return mobile.make_divisible(round(value), divisor)


def _bottleneck(
    x: Any, width: int, path: str, *, stride: int, expand: int, squeeze: bool, divisor: int
) -> Any:
    shortcut, inputs = x, x.shape[-1]
    if expand != 1:
        middle = _divisible(inputs * expand, divisor)
        names = f"{path}.conv_exp.conv", f"{path}.conv_exp.bn"
        x = blocks.conv_norm(x, middle, 1, *names, act="swish")
    middle = x.shape[-1]
    names = f"{path}.conv_dw.conv", f"{path}.conv_dw.bn"
    x = blocks.conv_norm(x, middle, 3, *names, stride=stride, groups=middle, act=None)
    if squeeze:
        reduced = mobile.make_divisible(int(middle * _SE_RATIO), divisor)
        x = blocks.squeeze_excite(x, reduced, f"{path}.se", names=("fc1", "fc2"), norm_name="bn")
    x = blocks.activate(x, "relu6", f"{path}.act_dw")
    names = f"{path}.conv_pwl.conv", f"{path}.conv_pwl.bn"
    x = blocks.conv_norm(x, width, 1, *names, act=None)
    if stride != 1 or inputs > width:
        return x
    if inputs == width:
        return blocks.add_shortcut(x, shortcut, path)
    head = blocks.Channels(0, inputs, name=f"{path}.old")(x)
    tail = blocks.Channels(inputs, name=f"{path}.new")(x)
    head = blocks.add_shortcut(head, shortcut, path)
    return keras.layers.Concatenate(name=f"{path}.cat")([head, tail])


def _rexnet(
    name: str,
    input_shape: tuple[int | None, int | None, int],
    pooling: str | None,
    *,
    multiplier: float,
    divisor: int = 1,
) -> Any:
    inputs = blocks.image_input(input_shape)
    stem = _divisible(_STEM * multiplier, divisor)
    x = blocks.conv_norm(inputs, stem, 3, "stem.conv", "stem.bn", stride=2, act="swish")
    strides = [s if i == 0 else 1 for s, depth in zip(_STRIDES, _DEPTHS) for i in range(depth)]
    for index, stride in enumerate(strides):
        width = _FIRST + index * _GROWTH / len(strides)
        x = _bottleneck(
            x,
            _divisible(width * multiplier, divisor),
            f"features.{index}",
            stride=stride,
            expand=1 if index < _DEPTHS[0] else _EXPANSION,
            squeeze=index >= _DEPTHS[0] + _DEPTHS[1],
            divisor=divisor,
        )
    path = f"features.{len(strides)}"
    last = mobile.make_divisible(_LAST * multiplier, divisor)
    x = blocks.conv_norm(x, last, 1, f"{path}.conv", f"{path}.bn", act="swish")
    return blocks.finish(inputs, x, pooling, name)


def timm_names(model: Any) -> dict[str, str]:
    """Maps each weight to timm's key: the layers carry timm's module paths as names."""
    return mechanical_names(model)


rexnet_100 = named_builder(_rexnet, "rexnet_100", multiplier=1.0)
rexnet_130 = named_builder(_rexnet, "rexnet_130", multiplier=1.3)
rexnet_150 = named_builder(_rexnet, "rexnet_150", multiplier=1.5)
rexnet_200 = named_builder(_rexnet, "rexnet_200", multiplier=2.0)
rexnet_300 = named_builder(_rexnet, "rexnet_300", multiplier=3.0)
rexnetr_100 = named_builder(_rexnet, "rexnetr_100", multiplier=1.0, divisor=8)
rexnetr_130 = named_builder(_rexnet, "rexnetr_130", multiplier=1.3, divisor=8)
rexnetr_150 = named_builder(_rexnet, "rexnetr_150", multiplier=1.5, divisor=8)
rexnetr_200 = named_builder(_rexnet, "rexnetr_200", multiplier=2.0, divisor=8)
rexnetr_300 = named_builder(_rexnet, "rexnetr_300", multiplier=3.0, divisor=16)

VARIANTS = tabulate(
    [
        (rexnet_100, 1280, 4_796_873),
        (rexnet_130, 1664, 7_557_091),
        (rexnet_150, 1920, 9_728_593),
        (rexnet_200, 2560, 16_366_620),
        (rexnet_300, 3840, 34_708_792),
        (rexnetr_100, 1280, 4_883_304),
        (rexnetr_130, 1664, 7_608_080),
        (rexnetr_150, 1920, 9_782_256),
        (rexnetr_200, 2560, 16_522_432),
        (rexnetr_300, 3840, 34_810_008),
    ],
    family="ReXNet",
    paper="arXiv:2007.00992, Rethinking Channel Dimensions for Efficient Model Design",
    min_size=32,
    default_size=224,
    learning_rate=1e-3,
    classifier=("head.fc",),
)
