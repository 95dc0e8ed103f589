"""Res2Net: residual blocks whose 3x3 convolution is a hierarchy of small ones.

Gao, Cheng, Zhao, Zhang, Yang, Torr: Res2Net: A New Multi-scale Backbone Architecture
(arXiv:1904.01169). In ``res2net50_26w_4s`` each block has 4 scales of width 26 in the first
stage; ``res2next`` groups the small convolutions; ``d`` is ResNet-D's stem and its average pool
in front of the projecting shortcut (arXiv:1812.01187).
"""

from __future__ import annotations

from typing import Any

from tfgraphreg.backbones.families import blocks_conv as blocks
from tfgraphreg.backbones.families.timm_weights import mechanical_names
from tfgraphreg.backbones.families.variant import named_builder, tabulate

_PLANES = (64, 128, 256, 512)
_EXPANSION = 4
_50, _101 = (3, 4, 6, 3), (3, 4, 23, 3)


def _stem(x: Any, deep: bool) -> Any:
    if not deep:
        x = blocks.conv_norm(x, 64, 7, "conv1", "bn1", stride=2)
    else:
        x = blocks.conv_norm(x, 32, 3, "conv1.0", "conv1.1", stride=2)
        x = blocks.conv_norm(x, 32, 3, "conv1.3", "conv1.4")
        x = blocks.conv_norm(x, 64, 3, "conv1.6", "bn1")
    return blocks.max_pool(x, 3, 2, "maxpool")


def _projection(x: Any, width: int, path: str, *, stride: int, average: bool) -> Any:
    if not average:
        return blocks.conv_norm(
            x, width, 1, f"{path}.downsample.0", f"{path}.downsample.1", stride=stride, act=None
        )
    if stride > 1:
        x = blocks.average_pool(x, 2, stride, f"{path}.downsample.0", padding="same")
    return blocks.conv_norm(x, width, 1, f"{path}.downsample.1", f"{path}.downsample.2", act=None)


def _block(
    x: Any, planes: int, path: str, *, first: bool, stride: int, width: int, scale: int,
    groups: int, average: bool,
) -> Any:  # fmt: skip
    shortcut, outputs = x, planes * _EXPANSION
    x = blocks.conv_norm(x, width * scale, 1, f"{path}.conv1", f"{path}.bn1")
    x = blocks.multi_scale(x, width, scale, path, stride=stride, groups=groups, chained=not first)
    x = blocks.conv_norm(x, outputs, 1, f"{path}.conv3", f"{path}.bn3", act=None)
    if first:
        shortcut = _projection(shortcut, outputs, path, stride=stride, average=average)
    return blocks.activate(blocks.add_shortcut(x, shortcut, path), "relu", f"{path}.act3")


def _res2net(
    name: str,
    input_shape: tuple[int | None, int | None, int],
    pooling: str | None,
    *,
    depths: tuple[int, ...] = _50,
    base_width: int = 26,
    scale: int = 4,
    groups: int = 1,
    deep: bool = False,
) -> Any:
    inputs = blocks.image_input(input_shape)
    x = _stem(inputs, deep)
    for stage, (planes, depth) in enumerate(zip(_PLANES, depths)):
        for index in range(depth):
            x = _block(
                x,
                planes,
                f"layer{stage + 1}.{index}",
                first=index == 0,
                stride=2 if index == 0 and stage > 0 else 1,
                width=planes * base_width // 64 * groups,
                scale=scale,
                groups=groups,
                average=deep,
            )
    return blocks.finish(inputs, x, pooling, name)


def timm_names(model: Any) -> dict[str, str]:
    """Maps each weight to timm's key: the layers carry timm's module paths as names."""
    return mechanical_names(model)


res2net50_14w_8s = named_builder(_res2net, "res2net50_14w_8s", base_width=14, scale=8)
res2net50_26w_4s = named_builder(_res2net, "res2net50_26w_4s")
res2net50_26w_6s = named_builder(_res2net, "res2net50_26w_6s", scale=6)
res2net50_26w_8s = named_builder(_res2net, "res2net50_26w_8s", scale=8)
res2net50_48w_2s = named_builder(_res2net, "res2net50_48w_2s", base_width=48, scale=2)
res2net50d = named_builder(_res2net, "res2net50d", deep=True)
res2net101_26w_4s = named_builder(_res2net, "res2net101_26w_4s", depths=_101)
res2net101d = named_builder(_res2net, "res2net101d", depths=_101, deep=True)
res2next50 = named_builder(_res2net, "res2next50", base_width=4, groups=8)

_WIDTH = _PLANES[-1] * _EXPANSION
VARIANTS = tabulate(
    [
        (res2net50_14w_8s, _WIDTH, 25_059_816),
        (res2net50_26w_4s, _WIDTH, 25_699_120),
        (res2net50_26w_6s, _WIDTH, 37_051_448),
        (res2net50_26w_8s, _WIDTH, 48_403_776),
        (res2net50_48w_2s, _WIDTH, 25_287_304),
        (res2net50d, _WIDTH, 25_718_352),
        (res2net101_26w_4s, _WIDTH, 45_206_688),
        (res2net101d, _WIDTH, 45_225_920),
        (res2next50, _WIDTH, 24_671_464),
    ],
    family="Res2Net",
    paper="arXiv:1904.01169, Res2Net: A New Multi-scale Backbone Architecture",
    min_size=32,
    default_size=224,
    learning_rate=1e-3,
    classifier=("fc",),
)
