"""The blocks of small networks, which the searched families share.

As in blocks_conv.py: Keras tensors [B, height, width, channels] in and out, and layers named by
`path`, the module path of the same layer in timm.
"""

from __future__ import annotations

from typing import Any

from tfgraphreg.backbones.families.blocks_conv import add_shortcut, conv_norm, squeeze_excite


def depthwise_separable(
    x: Any,
    width: int,
    kernel: int,
    path: str,
    *,
    stride: int = 1,
    act: str = "relu",
    se_width: int = 0,
    se_act: str | None = None,
    se_gate: str = "sigmoid",
    skip: bool = True,
) -> Any:
    """Depthwise convolution, optional squeeze-excitation, linear 1x1 convolution.

    Layers are named as in timm's EfficientNet: conv_dw, bn1, se, conv_pw, bn2.
    """
    shortcut, inputs = x, x.shape[-1]
    x = conv_norm(
        x, inputs, kernel, f"{path}.conv_dw", f"{path}.bn1", stride=stride, groups=inputs, act=act
    )
    if se_width:
        x = squeeze_excite(x, se_width, f"{path}.se", act=se_act or act, gate=se_gate)
    x = conv_norm(x, width, 1, f"{path}.conv_pw", f"{path}.bn2", act=None)
    return add_shortcut(x, shortcut, path) if skip and stride == 1 and inputs == width else x


def inverted_residual(
    x: Any,
    width: int,
    kernel: int,
    path: str,
    *,
    expand: float,
    stride: int = 1,
    act: str = "relu",
    se_width: int = 0,
    se_act: str | None = None,
    se_gate: str = "sigmoid",
    skip: bool = True,
) -> Any:
    """1x1 expansion, depthwise convolution, squeeze-excitation, linear 1x1 (arXiv:1801.04381).

    Layers are named as in timm's EfficientNet: conv_pw, bn1, conv_dw, bn2, se, conv_pwl, bn3.
    """
    shortcut, inputs = x, x.shape[-1]
    middle = make_divisible(inputs * expand)
    x = conv_norm(x, middle, 1, f"{path}.conv_pw", f"{path}.bn1", act=act)
    x = conv_norm(
        x, middle, kernel, f"{path}.conv_dw", f"{path}.bn2", stride=stride, groups=middle, act=act
    )
    if se_width:
        x = squeeze_excite(x, se_width, f"{path}.se", act=se_act or act, gate=se_gate)
    x = conv_norm(x, width, 1, f"{path}.conv_pwl", f"{path}.bn3", act=None)
    return add_shortcut(x, shortcut, path) if skip and stride == 1 and inputs == width else x


def make_divisible(value: float, divisor: int = 8, *, round_limit: float = 0.9) -> int:
    """The multiple of `divisor` nearest to `value`, never below `round_limit` of it."""
    nearest = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < round_limit * value else nearest
