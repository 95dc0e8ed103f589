"""PiT: a vision transformer whose grid shrinks and whose width grows, as in a convolutional net.

Heo et al., "Rethinking Spatial Dimensions of Vision Transformers", arXiv:2103.16302. Patches
overlap by half; between the three stages a depthwise convolution with stride 2 halves the grid
and doubles the channels, and a linear layer widens the class token.

The distilled networks carry a distillation token beside the class token; their feature vector is
the mean of both, and `distillation_features` gives them one by one.

Position embeddings are made for the grid of the given input size. A size that patches do not
cover to the last pixel is completed with zeros below and to the right, and then agrees with
timm's model for the completed size.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tfgraphreg.backbones.families import blocks_attention as blocks
from tfgraphreg.backbones.families import layers_attention as layers
from tfgraphreg.backbones.families.blocks_conv import image_input
from tfgraphreg.backbones.families.variant import named_builder, tabulate
from tfgraphreg.compat import keras

# Three patches a side, so that two are left for the second stage.
_MIN_SIZE = 32

timm_names = blocks.token_names
distillation_features = blocks.distillation_features


def _pit(
    name: str,
    input_shape: Any,
    pooling: str | None,
    *,
    head_width: int,
    heads: tuple[int, int, int],
    depths: tuple[int, int, int] = (2, 6, 4),
    patch: int = 16,
    distilled: bool = False,
) -> Any:
    shape = blocks.fixed_shape(input_shape, min_size=_MIN_SIZE, name=name)
    prefix = 2 if distilled else 1
    inputs = image_input(shape)
    width = head_width * heads[0]
    x = blocks.patch_map(inputs, width, patch, "patch_embed.conv", stride=patch // 2)
    # timm keeps this embedding as a map with its channels first.
    x = layers.MapPositionEmbedding(name="pos_embed")(x)
    grid = x.shape[1:3]
    x = layers.LearnedTokens(prefix, name="cls_token")(blocks.to_tokens(x, "patch_embed.tokens"))
    for stage, (count, depth) in enumerate(zip(heads, depths)):
        path = f"transformers.{stage}"
        if stage:
            x, grid = _pool(x, grid, prefix, head_width * count, f"{path}.pool")
        for i in range(depth):
            x = blocks.transformer_block(x, count, f"{path}.blocks.{i}")
    x = blocks.norm(x, "norm")
    return blocks.finish_tokens(inputs, x, grid, pooling, name, prefix=prefix)


def _pool(x: Any, grid: Any, prefix: int, width: int, path: str) -> tuple[Any, Any]:
    """Halves the grid and widens all tokens: [B, prefix + h * w, D] to the same, wider."""
    patches = layers.TokenSlice(prefix, name=f"{path}.patches")(x)
    patches = blocks.to_map(patches, grid, f"{path}.map")
    patches = keras.layers.ZeroPadding2D(1, name=f"{path}.pad")(patches)
    layer = keras.layers.DepthwiseConv2D(
        3,
        strides=2,
        depth_multiplier=width // patches.shape[-1],
        depthwise_initializer="he_normal",
        name=f"{path}.conv",
    )
    patches = layer(patches)
    tokens = layers.TokenSlice(0, prefix, name=f"{path}.tokens")(x)
    tokens = blocks.dense(tokens, width, f"{path}.fc")
    grid = patches.shape[1:3]
    patches = blocks.to_tokens(patches, f"{path}.flat")
    return blocks.join_tokens(tokens, patches, f"{path}.join"), grid


_TI = {"head_width": 32, "heads": (2, 4, 8)}
_XS = {"head_width": 48, "heads": (2, 4, 8)}
_S = {"head_width": 48, "heads": (3, 6, 12)}
_B = {"head_width": 64, "heads": (4, 8, 16), "depths": (3, 6, 4), "patch": 14}

pit_ti = named_builder(_pit, "pit_ti", **_TI)
pit_xs = named_builder(_pit, "pit_xs", **_XS)
pit_s = named_builder(_pit, "pit_s", **_S)
pit_b = named_builder(_pit, "pit_b", **_B)
pit_ti_distilled = named_builder(_pit, "pit_ti_distilled", **_TI, distilled=True)
pit_xs_distilled = named_builder(_pit, "pit_xs_distilled", **_XS, distilled=True)
pit_s_distilled = named_builder(_pit, "pit_s_distilled", **_S, distilled=True)
pit_b_distilled = named_builder(_pit, "pit_b_distilled", **_B, distilled=True)

_PLAIN = [
    (pit_ti, 256, 4_847_272),
    (pit_xs, 384, 10_618_888),
    (pit_s, 576, 23_461_912),
    (pit_b, 1024, 73_764_840),
]
_DISTILLED = [
    (pit_ti_distilled, 256, 5_104_336),
    (pit_xs_distilled, 384, 11_003_984),
    (pit_s_distilled, 576, 24_039_056),
    (pit_b_distilled, 1024, 74_790_096),
]
VARIANTS = {
    name: dataclasses.replace(variant, timm=f"{name}_224")
    for heads, rows in ((1, _PLAIN), (2, _DISTILLED))
    for name, variant in tabulate(
        rows,
        heads=heads,
        family="PiT",
        paper="arXiv:2103.16302, Rethinking Spatial Dimensions of Vision Transformers",
        min_size=_MIN_SIZE,
        default_size=224,
        learning_rate=1e-4,
        classifier=("head", "head_dist"),
    ).items()
}
