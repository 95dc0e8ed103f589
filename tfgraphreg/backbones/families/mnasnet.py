"""MNASNet: inverted bottlenecks found by a search that measures latency on a phone.

Tan, Chen, Pang, Vasudevan, Sandler, Howard, Le: MnasNet: Platform-Aware Neural Architecture
Search for Mobile (arXiv:1807.11626). mnasnet_* are the paper's B1 at several widths, semnasnet_*
its A1, with squeeze-excitation.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tfgraphreg.backbones.families import blocks_conv as blocks
from tfgraphreg.backbones.families import blocks_mobile as mobile
from tfgraphreg.backbones.families.timm_weights import mechanical_names
from tfgraphreg.backbones.families.variant import named_builder, tabulate

_LAST = 1280


class _Stage(NamedTuple):
    """A row of the paper's table; expand 0 means a depthwise separable block."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    width: int
    se_ratio: float = 0.0
    skip: bool = True


_B1 = (
    _Stage(1, 3, 1, 0, 16, skip=False),
    _Stage(3, 3, 2, 3, 24),
    _Stage(3, 5, 2, 3, 40),
    _Stage(3, 5, 2, 6, 80),
    _Stage(2, 3, 1, 6, 96),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320, skip=False),
)
_A1 = (
    _Stage(1, 3, 1, 0, 16, skip=False),
    _Stage(2, 3, 2, 6, 24),
    _Stage(3, 5, 2, 3, 40, se_ratio=0.25),
    _Stage(4, 3, 2, 6, 80),
    _Stage(2, 3, 1, 6, 112, se_ratio=0.25),
    _Stage(3, 5, 2, 6, 160, se_ratio=0.25),
    _Stage(1, 3, 1, 6, 320),
)
_SMALL = (
    _Stage(1, 3, 1, 0, 8),
    _Stage(1, 3, 2, 3, 16),
    _Stage(2, 3, 2, 6, 16),
    _Stage(4, 5, 2, 6, 32, se_ratio=0.25),
    _Stage(3, 3, 1, 6, 32, se_ratio=0.25),
    _Stage(3, 5, 2, 6, 88, se_ratio=0.25),
    _Stage(1, 3, 1, 6, 144),
)


def _mnasnet(
    name: str,
    input_shape: tuple[int | None, int | None, int],
    pooling: str | None,
    *,
    stages: tuple[_Stage, ...],
    multiplier: float = 1.0,
    stem: int = 32,
) -> Any:
    inputs = blocks.image_input(input_shape)
    stem = mobile.make_divisible(stem * multiplier)
    x = blocks.conv_norm(inputs, stem, 3, "conv_stem", "bn1", stride=2)
    for number, stage in enumerate(stages):
        width = mobile.make_divisible(stage.width * multiplier)
        for repeat in range(stage.repeats):
            settings: dict[str, Any] = {
                "stride": stage.stride if repeat == 0 else 1,
                "skip": stage.skip,
            }
            arguments = (x, width, stage.kernel, f"blocks.{number}.{repeat}")
            # The squeeze is counted from the block's input, before the expansion.
            settings["se_width"] = round(x.shape[-1] * stage.se_ratio)
            if stage.expand:
                x = mobile.inverted_residual(*arguments, expand=stage.expand, **settings)
            else:
                x = mobile.depthwise_separable(*arguments, **settings)
    x = blocks.conv_norm(x, _LAST, 1, "conv_head", "bn2")
    return blocks.finish(inputs, x, pooling, name)


def timm_names(model: Any) -> dict[str, str]:
    """Maps each weight to timm's key: the layers carry timm's module paths as names."""
    return mechanical_names(model)


mnasnet_small = named_builder(_mnasnet, "mnasnet_small", stages=_SMALL, stem=8)
mnasnet_050 = named_builder(_mnasnet, "mnasnet_050", stages=_B1, multiplier=0.5)
mnasnet_075 = named_builder(_mnasnet, "mnasnet_075", stages=_B1, multiplier=0.75)
mnasnet_100 = named_builder(_mnasnet, "mnasnet_100", stages=_B1)
mnasnet_140 = named_builder(_mnasnet, "mnasnet_140", stages=_B1, multiplier=1.4)
semnasnet_050 = named_builder(_mnasnet, "semnasnet_050", stages=_A1, multiplier=0.5)
semnasnet_075 = named_builder(_mnasnet, "semnasnet_075", stages=_A1, multiplier=0.75)
semnasnet_100 = named_builder(_mnasnet, "semnasnet_100", stages=_A1)
semnasnet_140 = named_builder(_mnasnet, "semnasnet_140", stages=_A1, multiplier=1.4)

VARIANTS = tabulate(
    [
        (mnasnet_small, _LAST, 2_030_264),
        (mnasnet_050, _LAST, 2_218_512),
        (mnasnet_075, _LAST, 3_170_208),
        (mnasnet_100, _LAST, 4_383_312),
        (mnasnet_140, _LAST, 7_115_728),
        (semnasnet_050, _LAST, 2_082_006),
        (semnasnet_075, _LAST, 2_912_278),
        (semnasnet_100, _LAST, 3_887_038),
        (semnasnet_140, _LAST, 6_105_992),
    ],
    family="MNASNet",
    paper="arXiv:1807.11626, MnasNet: Platform-Aware Neural Architecture Search for Mobile",
    min_size=32,
    default_size=224,
    learning_rate=1e-3,
)
