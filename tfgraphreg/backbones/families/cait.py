"""CaiT: deep transformers with scaled branches, and a class token that only listens.

Touvron et al., "Going deeper with Image Transformers", arXiv:2103.17239. Every branch is scaled
per channel by a number that starts near zero (LayerScale), heads talk to one another before and
after the softmax, and the class token joins late: in the last two blocks it alone is updated,
from all patches.

Position embeddings are made for the grid of the given input size. A size that is no multiple of
16 is completed with zeros below and to the right, and then agrees with timm's model for the
completed size.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tfgraphreg.backbones.families import blocks_attention as blocks
from tfgraphreg.backbones.families import layers_attention as layers
from tfgraphreg.backbones.families.blocks_conv import image_input
from tfgraphreg.backbones.families.variant import named_builder, tabulate

_PATCH = 16
# Two patches a side: with one patch alone a softmax over patches has nothing to learn.
_MIN_SIZE = 32

timm_names = blocks.token_names


def _cait(name: str, input_shape: Any, pooling: str | None, *, width: int, depth: int) -> Any:
    shape = blocks.fixed_shape(input_shape, min_size=_MIN_SIZE, name=name)
    heads = width // 48
    inputs = image_input(shape)
    x = blocks.patch_map(inputs, width, _PATCH, "patch_embed.proj")
    grid = x.shape[1:3]
    x = layers.PositionEmbedding(name="pos_embed")(blocks.to_tokens(x, "patch_embed.tokens"))
    for i in range(depth):
        x = _patch_block(x, heads, f"blocks.{i}")
    tokens = layers.LearnedTokens(name="cls_token")(x)
    for i in range(2):
        tokens = _class_block(tokens, x, heads, f"blocks_token_only.{i}")
    tokens = blocks.norm(tokens, "norm")
    return blocks.finish_tokens(inputs, tokens, grid, pooling, name)


def _patch_block(x: Any, heads: int, path: str) -> Any:
    branch = _talking_attention(blocks.norm(x, f"{path}.norm1"), heads, f"{path}.attn")
    x = blocks.add(x, branch, f"{path}.add1", scale=f"{path}.gamma_1")
    return blocks.add_mlp(x, path, scale=f"{path}.gamma_2")


def _talking_attention(x: Any, heads: int, path: str) -> Any:
    """Self attention whose heads are mixed before and after the softmax (arXiv:2003.02436)."""
    width = x.shape[-1]
    projected = blocks.dense(x, 3 * width, f"{path}.qkv")
    queries, keys, values = layers.SplitChannels(3, name=f"{path}.split")(projected)
    weights = layers.HeadScores(heads, name=f"{path}.scores")([queries, keys])
    weights = blocks.dense(weights, heads, f"{path}.proj_l")
    weights = layers.KeySoftmax(name=f"{path}.softmax")(weights)
    weights = blocks.dense(weights, heads, f"{path}.proj_w")
    x = layers.HeadValues(heads, name=f"{path}.mix")([weights, values])
    return blocks.dense(x, width, f"{path}.proj")


def _class_block(tokens: Any, patches: Any, heads: int, path: str) -> Any:
    """Updates the first of `tokens` from all of them, and leaves `patches` as they are."""
    width = tokens.shape[-1]
    attn = f"{path}.attn"
    token = layers.TokenSlice(0, 1, name=f"{path}.token")(tokens)
    seen = blocks.norm(tokens, f"{path}.norm1")
    asking = layers.TokenSlice(0, 1, name=f"{attn}.token")(seen)
    projected = [blocks.dense(x, width, f"{attn}.{n}") for n, x in zip("qkv", (asking, seen, seen))]
    branch = layers.DotProductAttention(heads, name=f"{attn}.mix")(projected)
    branch = blocks.dense(branch, width, f"{attn}.proj")
    token = blocks.add(token, branch, f"{path}.add1", scale=f"{path}.gamma_1")
    token = blocks.add_mlp(token, path, scale=f"{path}.gamma_2")
    return blocks.join_tokens(token, patches, f"{path}.tokens")


cait_xxs24 = named_builder(_cait, "cait_xxs24", width=192, depth=24)
cait_xxs36 = named_builder(_cait, "cait_xxs36", width=192, depth=36)
cait_xs24 = named_builder(_cait, "cait_xs24", width=288, depth=24)
cait_s24 = named_builder(_cait, "cait_s24", width=384, depth=24)
cait_s36 = named_builder(_cait, "cait_s36", width=384, depth=36)

_ROWS_OF_SIZE = {
    224: [
        (cait_xxs24, 192, 11_956_264),
        (cait_xxs36, 192, 17_299_720),
        (cait_s24, 384, 46_916_200),
    ],
    384: [
        (cait_xs24, 288, 26_670_088),
        (cait_s36, 384, 68_366_632),
    ],
}
VARIANTS = {
    name: dataclasses.replace(variant, timm=f"{name}_{size}")
    for size, rows in _ROWS_OF_SIZE.items()
    for name, variant in tabulate(
        rows,
        family="CaiT",
        paper="arXiv:2103.17239, Going deeper with Image Transformers",
        min_size=_MIN_SIZE,
        default_size=size,
        learning_rate=1e-4,
        classifier=("head",),
    ).items()
}
