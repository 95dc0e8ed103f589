"""ConViT: a vision transformer that starts out looking at neighbors, as a convolution does.

d'Ascoli et al., "ConViT: Improving Vision Transformers with Soft Convolutional Inductive Biases",
arXiv:2103.10697. In the first ten blocks each head mixes two attentions by a learned gate: one by
content, and one by relative position alone, which begins as a head of a convolution. The class
token joins for the last two blocks, which are ordinary ones.

Position embeddings are made for the grid of the given input size. A size that is no multiple of
16 is completed with zeros below and to the right, and then agrees with timm's model for the
completed size; unlike timm's, images need not be square.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tfgraphreg.backbones.families import blocks_attention as blocks
from tfgraphreg.backbones.families import layers_attention as layers
from tfgraphreg.backbones.families.blocks_conv import image_input
from tfgraphreg.backbones.families.variant import named_builder, tabulate
from tfgraphreg.compat import keras, tf

_PATCH = 16
_HEAD_WIDTH = 48
_LOCAL_DEPTH = 10
_DEPTH = 12
# Two patches a side: with one patch alone a softmax over patches has nothing to learn.
_MIN_SIZE = 32

timm_names = blocks.token_names
_register = keras.utils.register_keras_serializable(package="tfgraphreg")


def relative_positions(grid: tuple[int, int]) -> np.ndarray:
    """From query n to key m, in patches: (columns, rows, squared distance), [N, N, 3]."""
    rows, columns = (index.ravel() for index in np.indices(grid))
    right = columns[None, :] - columns[:, None]
    down = rows[None, :] - rows[:, None]
    return np.stack([right, down, right**2 + down**2], axis=-1).astype(np.float32)


def convolution_weights(heads: int) -> np.ndarray:
    """Weights [3, heads] with which head i peaks at place i of a square kernel.

    -|d - c|^2 = -|d|^2 + 2 c d + const, with c the place of the head. `heads` is a square number.
    """
    side = math.isqrt(heads)
    # An even kernel has no middle patch: its places lie between patches.
    places = np.arange(side) - ((side - 1) / 2 if side % 2 == 0 else side // 2)
    down, right = (place.ravel() for place in np.meshgrid(places, places))
    return np.stack([2 * right, 2 * down, np.full(side * side, -1.0)]).astype(np.float32)


@_register
class PositionScores(keras.layers.Layer):
    """Attention by relative position alone: any [B, N, D] to weights [1, N, N, H].

    Args:
        heads: H, the number of heads, a square number.
        grid: Height and width in patches, N in all.
    """

    def __init__(self, heads: int, grid: tuple[int, int], **kwargs: Any):
        super().__init__(**kwargs)
        self.heads, self.grid = heads, (grid[0], grid[1])

    def build(self, input_shape: Any) -> None:
        """Creates weights that make each head look at its own neighbor."""
        start = keras.initializers.Constant(convolution_weights(self.heads))
        self.kernel = self.add_weight("kernel", shape=(3, self.heads), initializer=start)
        self.bias = self.add_weight("bias", shape=(self.heads,), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        """Ignores the values of `inputs`."""
        places = tf.constant(relative_positions(self.grid))
        scores = tf.tensordot(places, tf.cast(self.kernel, tf.float32), 1)
        scores += tf.cast(self.bias, tf.float32)
        return tf.cast(tf.nn.softmax(scores, axis=1)[None], inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        """What rebuilds the layer."""
        return {**super().get_config(), "heads": self.heads, "grid": self.grid}


@_register
class GatedMix(keras.layers.Layer):
    """Mixes [content, position] weights, both [B, N, M, H], by one learned gate per head."""

    def build(self, input_shape: Any) -> None:
        """Creates the gates, [H]; one favors position."""
        heads = input_shape[0][-1]
        self.value = self.add_weight("value", shape=(heads,), initializer="ones")
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        """Returns weights that sum to one over the keys."""
        content, position = inputs
        gate = tf.sigmoid(self.value)
        mixed = (1.0 - gate) * content + gate * position
        return mixed / tf.reduce_sum(mixed, axis=-2, keepdims=True)


def _convit(name: str, input_shape: Any, pooling: str | None, *, heads: int) -> Any:
    shape = blocks.fixed_shape(input_shape, min_size=_MIN_SIZE, name=name)
    inputs = image_input(shape)
    x = blocks.patch_map(inputs, heads * _HEAD_WIDTH, _PATCH, "patch_embed.proj")
    grid = x.shape[1:3]
    x = layers.PositionEmbedding(name="pos_embed")(blocks.to_tokens(x, "patch_embed.tokens"))
    for i in range(_LOCAL_DEPTH):
        x = _local_block(x, heads, grid, f"blocks.{i}")
    x = layers.LearnedTokens(name="cls_token")(x)
    for i in range(_LOCAL_DEPTH, _DEPTH):
        x = blocks.transformer_block(x, heads, f"blocks.{i}", bias=False)
    return blocks.finish_tokens(inputs, blocks.norm(x, "norm"), grid, pooling, name)


def _local_block(x: Any, heads: int, grid: Any, path: str) -> Any:
    branch = _gated_attention(blocks.norm(x, f"{path}.norm1"), heads, grid, f"{path}.attn")
    return blocks.add_mlp(blocks.add(x, branch, f"{path}.add1"), path)


def _gated_attention(x: Any, heads: int, grid: Any, path: str) -> Any:
    width = x.shape[-1]
    pair = blocks.dense(x, 2 * width, f"{path}.qk", bias=False)
    pair = layers.SplitChannels(2, name=f"{path}.split")(pair)
    content = layers.HeadScores(heads, name=f"{path}.scores")(pair)
    content = layers.KeySoftmax(name=f"{path}.softmax")(content)
    position = PositionScores(heads, grid, name=f"{path}.pos_proj")(x)
    weights = GatedMix(name=f"{path}.gating_param")([content, position])
    # Values begin as the patches themselves: the block is then a convolution and an MLP.
    values = blocks.dense(x, width, f"{path}.v", bias=False, initial="identity")
    mixed = layers.HeadValues(heads, name=f"{path}.mix")([weights, values])
    return blocks.dense(mixed, width, f"{path}.proj")


convit_tiny = named_builder(_convit, "convit_tiny", heads=4)
convit_small = named_builder(_convit, "convit_small", heads=9)
convit_base = named_builder(_convit, "convit_base", heads=16)

VARIANTS = tabulate(
    [
        (convit_tiny, 192, 5_710_512),
        (convit_small, 432, 27_777_322),
        (convit_base, 768, 86_540_040),
    ],
    family="ConViT",
    paper="arXiv:2103.10697, ConViT: Improving Vision Transformers with Soft Convolutional "
    "Inductive Biases",
    min_size=_MIN_SIZE,
    default_size=224,
    learning_rate=3e-4,
    classifier=("head",),
)
