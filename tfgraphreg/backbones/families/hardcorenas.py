"""HardCoRe-NAS: networks found by a search that keeps a latency limit at every step.

Nayman, Aflalo, Noy, Zelnik-Manor: HardCoRe-NAS: Hard Constrained diffeRentiable Neural
Architecture Search (arXiv:2102.11646). The blocks are MobileNetV3's; the search chose the kernel,
the expansion and the squeeze-excitation of each. The last 1x1 convolution runs after the pooling.
"""

from __future__ import annotations

from typing import Any

from tfgraphreg.backbones.families import blocks_conv as blocks
from tfgraphreg.backbones.families import blocks_mobile as mobile
from tfgraphreg.backbones.families.timm_weights import mechanical_names
from tfgraphreg.backbones.families.variant import named_builder, tabulate
from tfgraphreg.compat import keras

_STEM, _FIRST, _BEFORE_POOLING, _LAST = 32, 16, 960, 1280
_WIDTHS = (24, 40, 80, 112, 192)
_STRIDES = (2, 2, 2, 1, 2)
_ACTS = ("relu", "relu", "hard_swish", "hard_swish", "hard_swish")
_SE_RATIO = 0.25

# One word per block: kernel size, expansion, and "s" for squeeze-excitation; one line per network.
_A = ("53 53s", "53 56s", "56s 56s", "56s 56s", "56s 56s")
_B = ("53 53s 33", "53 53 53", "53 53 33 33", "53 33 33 33", "56s 56s 33s")
_C = ("53 53s", "53 53 53 53", "54 56s 33 33", "56s 33 33 33", "56s 56s 33s")
_D = ("53s 53s", "53s 54s 33s", "54s 33s 33s 33s", "34s 54s 33s 53s", "56s 56s 56s 36s")
_E = ("53s 53s", "56s 54s 54s 33s", "54s 36s", "56s 56s 56s 53s", "56s 56s 56s 36s")
_F = ("53s 53s", "56s 56s", "56s 56s 33s 33s", "36s 56s 56s 33s", "56s 56s 36s 36s")


def _hardcorenas(
    name: str,
    input_shape: tuple[int | None, int | None, int],
    pooling: str | None,
    *,
    stages: tuple[str, ...],
) -> Any:
    inputs = blocks.image_input(input_shape)
    x = blocks.conv_norm(inputs, _STEM, 3, "conv_stem", "bn1", stride=2, act="hard_swish")
    x = mobile.depthwise_separable(x, _FIRST, 3, "blocks.0.0")
    for number, words in enumerate(stages, start=1):
        for index, word in enumerate(words.split()):
            x = _block(x, word, number - 1, index == 0, f"blocks.{number}.{index}")
    path = f"blocks.{len(stages) + 1}.0"
    names = f"{path}.conv", f"{path}.bn1"
    x = blocks.conv_norm(x, _BEFORE_POOLING, 1, *names, act="hard_swish")
    return _finish(inputs, x, pooling, name)


def _block(x: Any, word: str, stage: int, first: bool, path: str) -> Any:
    kernel, expand = int(word[0]), int(word[1])
    se_width = 0
    if word.endswith("s"):
        se_width = mobile.make_divisible(x.shape[-1] * expand * _SE_RATIO)
    return mobile.inverted_residual(
        x,
        _WIDTHS[stage],
        kernel,
        path,
        expand=expand,
        stride=_STRIDES[stage] if first else 1,
        act=_ACTS[stage],
        se_width=se_width,
        se_act="relu",
        se_gate="hard_sigmoid",
    )


def _finish(inputs: Any, x: Any, pooling: str | None, name: str) -> Any:
    """Pools, then applies the last layer, place by place if nothing is pooled."""
    if pooling is not None:
        x = blocks.finish(inputs, x, pooling, name).output
        x = keras.layers.Reshape((1, 1, x.shape[-1]), name="pooled")(x)
    x = blocks.conv(x, _LAST, 1, "conv_head", bias=True)
    x = blocks.activate(x, "hard_swish", "act2")
    if pooling is not None:
        x = keras.layers.Flatten(name="feature")(x)
    return keras.Model(inputs, x, name=name)


def timm_names(model: Any) -> dict[str, str]:
    """Maps each weight to timm's key: the layers carry timm's module paths as names."""
    return mechanical_names(model)


hardcorenas_a = named_builder(_hardcorenas, "hardcorenas_a", stages=_A)
hardcorenas_b = named_builder(_hardcorenas, "hardcorenas_b", stages=_B)
hardcorenas_c = named_builder(_hardcorenas, "hardcorenas_c", stages=_C)
hardcorenas_d = named_builder(_hardcorenas, "hardcorenas_d", stages=_D)
hardcorenas_e = named_builder(_hardcorenas, "hardcorenas_e", stages=_E)
hardcorenas_f = named_builder(_hardcorenas, "hardcorenas_f", stages=_F)

VARIANTS = tabulate(
    [
        (hardcorenas_a, _LAST, 5_260_232),
        (hardcorenas_b, _LAST, 5_176_544),
        (hardcorenas_c, _LAST, 5_521_224),
        (hardcorenas_d, _LAST, 7_500_208),
        (hardcorenas_e, _LAST, 8_070_992),
        (hardcorenas_f, _LAST, 8_199_688),
    ],
    family="HardCoRe-NAS",
    paper="arXiv:2102.11646, HardCoRe-NAS: Hard Constrained diffeRentiable Neural Architecture "
    "Search",
    min_size=32,
    default_size=224,
    learning_rate=1e-3,
)
