"""Layers that the transformer families share.

Shapes: B images, N tokens (queries), M tokens (keys), D width, H heads. A layer that learns holds
one variable named ``value`` and everything else has no weights, so that the weights of a network
are matched with timm's by name alone. Softmax runs in float32 under mixed precision.
"""

from __future__ import annotations

from typing import Any

from tfgraphreg.compat import keras, tf

_register = keras.utils.register_keras_serializable(package="tfgraphreg")


def initializer() -> Any:
    """Normal with deviation 0.02, cut at two deviations: what the papers use throughout."""
    return keras.initializers.TruncatedNormal(stddev=0.02)


@_register
class LearnedTokens(keras.layers.Layer):
    """Puts `count` learned tokens before the others: [B, N, D] to [B, count + N, D]."""

    def __init__(self, count: int = 1, **kwargs: Any):
        super().__init__(**kwargs)
        self.count = count

    def build(self, input_shape: Any) -> None:
        """Creates the tokens, [1, count, D]."""
        shape = (1, self.count, input_shape[-1])
        self.value = self.add_weight("value", shape=shape, initializer=initializer())
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        """Repeats the tokens for each image."""
        tokens = tf.repeat(tf.convert_to_tensor(self.value), tf.shape(inputs)[0], axis=0)
        return tf.concat([tokens, inputs], axis=1)

    def get_config(self) -> dict[str, Any]:
        """What rebuilds the layer."""
        return {**super().get_config(), "count": self.count}


@_register
class PositionEmbedding(keras.layers.Layer):
    """Adds one learned vector per token: [B, N, D] to [B, N, D]."""

    def build(self, input_shape: Any) -> None:
        """Creates the vectors, [1, N, D]."""
        shape = (1, *input_shape[1:])
        self.value = self.add_weight("value", shape=shape, initializer=initializer())
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        """Adds the vectors to every image."""
        return inputs + self.value


@_register
class MapPositionEmbedding(keras.layers.Layer):
    """Adds one learned vector per place: [B, h, w, D] to [B, h, w, D]."""

    def build(self, input_shape: Any) -> None:
        """Creates the vectors with channels first, as timm stores them: [1, D, h, w]."""
        _, height, width, channels = input_shape
        shape = (1, channels, height, width)
        self.value = self.add_weight("value", shape=shape, initializer=initializer())
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        """Adds the vectors to every image."""
        return inputs + tf.transpose(tf.convert_to_tensor(self.value), (0, 2, 3, 1))


@_register
class LayerScale(keras.layers.Layer):
    """Scales each channel by a learned number that starts at `initial` (arXiv:2103.17239)."""

    def __init__(self, initial: float = 1e-5, **kwargs: Any):
        super().__init__(**kwargs)
        self.initial = initial

    def build(self, input_shape: Any) -> None:
        """Creates the scales, [D]."""
        start = keras.initializers.Constant(self.initial)
        self.value = self.add_weight("value", shape=(input_shape[-1],), initializer=start)
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        """[..., D] to [..., D]."""
        return inputs * self.value

    def get_config(self) -> dict[str, Any]:
        """What rebuilds the layer."""
        return {**super().get_config(), "initial": self.initial}


@_register
class TokenSlice(keras.layers.Layer):
    """Tokens `start` to `stop` (None: to the end): [B, N, D] to [B, n, D]."""

    def __init__(self, start: int, stop: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.start, self.stop = start, stop

    def call(self, inputs: Any) -> Any:
        """Cuts along the token axis."""
        return inputs[:, self.start : self.stop]

    def get_config(self) -> dict[str, Any]:
        """What rebuilds the layer."""
        return {**super().get_config(), "start": self.start, "stop": self.stop}


@_register
class SplitChannels(keras.layers.Layer):
    """Cuts channels into `parts` of one size: [B, N, parts * D] to a list of [B, N, D]."""

    def __init__(self, parts: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.parts = parts

    def call(self, inputs: Any) -> Any:
        """Cuts along the channel axis."""
        return tf.split(inputs, self.parts, axis=-1)

    def get_config(self) -> dict[str, Any]:
        """What rebuilds the layer."""
        return {**super().get_config(), "parts": self.parts}


class _Heads(keras.layers.Layer):
    """Base of the layers that see D as H heads of D / H channels each."""

    def __init__(self, heads: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.heads = heads

    def get_config(self) -> dict[str, Any]:
        """What rebuilds the layer."""
        return {**super().get_config(), "heads": self.heads}

    def _split(self, x: Any) -> Any:
        """[B, N, D] to [B, N, H, D / H]."""
        return tf.reshape(x, (-1, x.shape[1], self.heads, x.shape[2] // self.heads))

    def _scaled(self, queries: Any) -> Any:
        return queries * (queries.shape[-1] // self.heads) ** -0.5


@_register
class DotProductAttention(_Heads):
    """Scaled dot product attention (arXiv:1706.03762).

    Takes [queries, keys, values] of widths D, or their concatenation [B, N, 3 D] alone.
    """

    def call(self, inputs: Any) -> Any:
        """Returns one mixture of the values per query, [B, N, D]."""
        fused = not isinstance(inputs, (list, tuple))
        queries, keys, values = tf.split(inputs, 3, axis=-1) if fused else inputs
        shape = (-1, *queries.shape[1:])
        split = [self._split(x) for x in (self._scaled(queries), keys, values)]
        queries, keys, values = (tf.transpose(x, (0, 2, 1, 3)) for x in split)
        weights = _softmax(tf.matmul(queries, keys, transpose_b=True), axis=-1)
        return tf.reshape(tf.transpose(tf.matmul(weights, values), (0, 2, 1, 3)), shape)


@_register
class HeadScores(_Heads):
    """Scores of [queries [B, N, D], keys [B, M, D]], heads last: [B, N, M, H]."""

    def call(self, inputs: Any) -> Any:
        """Dot products within each head, divided by the root of its width."""
        queries, keys = inputs
        queries, keys = self._split(self._scaled(queries)), self._split(keys)
        return tf.einsum("bnhd,bmhd->bnmh", queries, keys)


@_register
class KeySoftmax(keras.layers.Layer):
    """Makes scores [B, N, M, H] weights that sum to one over the keys."""

    def call(self, inputs: Any) -> Any:
        """[B, N, M, H] to [B, N, M, H]."""
        return _softmax(inputs, axis=-2)


@_register
class HeadValues(_Heads):
    """Mixes values: [weights [B, N, M, H], values [B, M, D]] to [B, N, D]."""

    def call(self, inputs: Any) -> Any:
        """Applies each head's weights to its own channels."""
        weights, values = inputs
        mixed = tf.einsum("bnmh,bmhd->bnhd", weights, self._split(values))
        return tf.reshape(mixed, (-1, weights.shape[1], values.shape[-1]))


def _softmax(scores: Any, axis: int) -> Any:
    return tf.cast(tf.nn.softmax(tf.cast(scores, tf.float32), axis=axis), scores.dtype)
