"""DPN: a residual path and a densely connected path in every block.

Chen, Li, Xiao, Jin, Yan, Feng: Dual Path Networks (arXiv:1707.01629). The first channels of a map
are added to, block after block; the others pile up, `growth` more with each block. Every
convolution comes after batch normalization and ReLU.
"""

from __future__ import annotations

from typing import Any

from tfgraphreg.backbones.families import blocks_conv as blocks
from tfgraphreg.backbones.families.timm_weights import mechanical_names
from tfgraphreg.backbones.families.variant import Variant, named_builder, tabulate
from tfgraphreg.compat import keras

_EPSILON = 1e-3
_STAGES = (1, 2, 4, 8)


def _norm_conv(
    x: Any, width: int, kernel: int, path: str, *, stride: int = 1, groups: int = 1
) -> Any:
    x = blocks.norm(x, f"{path}.bn", act="relu", epsilon=_EPSILON)
    return blocks.conv(x, width, kernel, f"{path}.conv", stride=stride, groups=groups)


def _split(x: Any, residual: int, path: str) -> tuple[Any, Any]:
    return (
        blocks.Channels(0, residual, name=f"{path}.residual")(x),
        blocks.Channels(residual, name=f"{path}.dense")(x),
    )


def _block(
    x: Any,
    path: str,
    *,
    middle: int,
    residual: int,
    growth: int,
    groups: int,
    stride: int,
    project: bool,
    separate: bool,
) -> Any:
    shortcut = x
    if project:
        name = f"{path}.c1x1_w_s{stride}"
        shortcut = _norm_conv(x, residual + 2 * growth, 1, name, stride=stride)
    kept, pile = _split(shortcut, residual, f"{path}.shortcut")
    x = _norm_conv(x, middle, 1, f"{path}.c1x1_a")
    x = _norm_conv(x, middle, 3, f"{path}.c3x3_b", stride=stride, groups=groups)
    if separate:
        x = blocks.norm(x, f"{path}.c1x1_c.bn", act="relu", epsilon=_EPSILON)
        added = blocks.conv(x, residual, 1, f"{path}.c1x1_c1")
        new = blocks.conv(x, growth, 1, f"{path}.c1x1_c2")
    else:
        x = _norm_conv(x, residual + growth, 1, f"{path}.c1x1_c")
        added, new = _split(x, residual, f"{path}.output")
    added = blocks.add_shortcut(added, kept, path)
    return keras.layers.Concatenate(name=f"{path}.cat")([added, pile, new])


def _dpn(
    name: str,
    input_shape: tuple[int | None, int | None, int],
    pooling: str | None,
    *,
    depths: tuple[int, ...],
    growths: tuple[int, ...],
    middle: int,
    groups: int,
    stem: int,
    residual: int = 256,
    stem_kernel: int = 7,
    act: str = "relu",
    separate: bool = False,
) -> Any:
    inputs = blocks.image_input(input_shape)
    names = "features.conv1_1.conv", "features.conv1_1.bn"
    x = blocks.conv_norm(inputs, stem, stem_kernel, *names, stride=2, act=act, epsilon=_EPSILON)
    x = blocks.max_pool(x, 3, 2, "features.conv1_pool")
    for stage, (factor, depth, growth) in enumerate(zip(_STAGES, depths, growths)):
        for index in range(depth):
            x = _block(
                x,
                f"features.conv{stage + 2}_{index + 1}",
                middle=middle * factor,
                residual=residual * factor,
                growth=growth,
                groups=groups,
                stride=2 if index == 0 and stage > 0 else 1,
                project=index == 0,
                separate=separate,
            )
    x = blocks.norm(x, "features.conv5_bn_ac.bn", act=act, epsilon=_EPSILON)
    return blocks.finish(inputs, x, pooling, name)


def timm_names(model: Any) -> dict[str, str]:
    """Maps each weight to timm's key: the layers carry timm's module paths as names."""
    return mechanical_names(model)


def _small(name: str, depths: tuple[int, ...], **settings: Any) -> Any:
    shared = {"growths": (16, 32, 32, 64), "middle": 128, "groups": 32, "stem": 10}
    return named_builder(
        _dpn, name, depths=depths, residual=64, stem_kernel=3, **shared, **settings
    )


dpn48b = _small("dpn48b", (3, 4, 6, 3), separate=True, act="swish")
dpn68 = _small("dpn68", (3, 4, 12, 3))
dpn68b = _small("dpn68b", (3, 4, 12, 3), separate=True)
dpn92 = named_builder(
    _dpn, "dpn92", depths=(3, 4, 20, 3), growths=(16, 32, 24, 128), middle=96, groups=32, stem=64
)
dpn98 = named_builder(
    _dpn, "dpn98", depths=(3, 6, 20, 3), growths=(16, 32, 32, 128), middle=160, groups=40, stem=96
)
dpn107 = named_builder(
    _dpn, "dpn107", depths=(4, 8, 20, 3), growths=(20, 64, 64, 128), middle=200, groups=50, stem=128
)
dpn131 = named_builder(
    _dpn, "dpn131", depths=(4, 8, 28, 3), growths=(16, 32, 32, 128), middle=160, groups=40, stem=128
)

_SHARED = {
    "family": "DPN",
    "paper": "arXiv:1707.01629, Dual Path Networks",
    "min_size": 32,
    "default_size": 224,
    "learning_rate": 1e-3,
}
VARIANTS: dict[str, Variant] = {
    **tabulate([(dpn48b, 832, 9_126_226), (dpn68b, 832, 12_611_602)], **_SHARED),
    **tabulate(
        [
            (dpn68, 832, 12_611_602),
            (dpn92, 2688, 37_668_392),
            (dpn98, 2688, 61_570_728),
            (dpn107, 2688, 86_917_800),
            (dpn131, 2688, 79_254_504),
        ],
        # The images of the paper's own weights: one scale for all channels.
        mean=(124 / 255, 117 / 255, 104 / 255),
        std=(1 / (0.0167 * 255),) * 3,
        **_SHARED,
    ),
}
