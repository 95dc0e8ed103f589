"""DeiT: a vision transformer trained on ImageNet alone, with a distillation token.

Touvron et al., "Training data-efficient image transformers & distillation through attention",
arXiv:2012.12877. The distilled networks carry a second learned token beside the class token: the
class token is trained on labels, the distillation token on what a teacher says.

The feature vector of a distilled network is the mean of both tokens, as in timm.
`distillation_features` gives them one by one, for a head and a loss of their own:

    both = distillation_features(deit_tiny_distilled((64, 64, 3)))
    class_feature, distillation_feature = both(images)

Position embeddings are made for the grid of the given input size. A size that is no multiple of
16 is completed with zeros below and to the right, as timm does with ``dynamic_img_pad=True``.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tfgraphreg.backbones.families import blocks_attention as blocks
from tfgraphreg.backbones.families import layers_attention as layers
from tfgraphreg.backbones.families.blocks_conv import image_input
from tfgraphreg.backbones.families.variant import named_builder, tabulate

_PATCH = 16
_DEPTH = 12
_MIN_SIZE = 32

timm_names = blocks.token_names
distillation_features = blocks.distillation_features


def _deit(
    name: str, input_shape: Any, pooling: str | None, *, width: int, distilled: bool = False
) -> Any:
    shape = blocks.fixed_shape(input_shape, min_size=_MIN_SIZE, name=name)
    inputs = image_input(shape)
    x = blocks.patch_map(inputs, width, _PATCH, "patch_embed.proj")
    grid = x.shape[1:3]
    x = blocks.to_tokens(x, "patch_embed.tokens")
    if distilled:
        x = layers.LearnedTokens(name="dist_token")(x)
    x = layers.LearnedTokens(name="cls_token")(x)
    x = layers.PositionEmbedding(name="pos_embed")(x)
    for i in range(_DEPTH):
        x = blocks.transformer_block(x, width // 64, f"blocks.{i}")
    x = blocks.norm(x, "norm")
    return blocks.finish_tokens(inputs, x, grid, pooling, name, prefix=2 if distilled else 1)


deit_tiny = named_builder(_deit, "deit_tiny", width=192)
deit_small = named_builder(_deit, "deit_small", width=384)
deit_base = named_builder(_deit, "deit_base", width=768)
deit_tiny_distilled = named_builder(_deit, "deit_tiny_distilled", width=192, distilled=True)
deit_small_distilled = named_builder(_deit, "deit_small_distilled", width=384, distilled=True)
deit_base_distilled = named_builder(_deit, "deit_base_distilled", width=768, distilled=True)

_PLAIN = [
    (deit_tiny, 192, 5_717_416),
    (deit_small, 384, 22_050_664),
    (deit_base, 768, 86_567_656),
]
_DISTILLED = [
    (deit_tiny_distilled, 192, 5_910_800),
    (deit_small_distilled, 384, 22_436_432),
    (deit_base_distilled, 768, 87_338_192),
]
VARIANTS = {
    name: dataclasses.replace(variant, timm=f"{name}_patch16_224")
    for family, heads, rows in (("DeiT", 1, _PLAIN), ("DeiT distilled", 2, _DISTILLED))
    for name, variant in tabulate(
        rows,
        heads=heads,
        family=family,
        paper="arXiv:2012.12877, Training data-efficient image transformers & distillation "
        "through attention",
        min_size=_MIN_SIZE,
        default_size=224,
        learning_rate=3e-4,
        classifier=("head", "head_dist"),
    ).items()
}
