"""Attention blocks shared by the transformer families.

Shapes: B images, N tokens, D width, h and w the grid in patches. Functions take and return Keras
tensors and name their layers by `path`, the module path of the same layer in timm.

Some biases cannot learn in exact arithmetic, because a softmax over keys ignores what is added to
all keys alike: `SOFTMAX_INVARIANT` lists their endings. Their gradients are rounding noise.
"""

from __future__ import annotations

from typing import Any

from tfgraphreg.backbones.families.layers_attention import (
    DotProductAttention,
    LayerScale,
    TokenSlice,
    initializer,
)
from tfgraphreg.backbones.families.timm_weights import mechanical_names
from tfgraphreg.compat import keras
from tfgraphreg.errors import ModelError

_layers = keras.layers

SOFTMAX_INVARIANT = (".attn.k/bias", ".attn.proj_l/bias", ".attn.pos_proj/bias")


def norm(x: Any, path: str, *, epsilon: float = 1e-6) -> Any:
    """Layer normalization over channels."""
    return _layers.LayerNormalization(epsilon=epsilon, name=path)(x)


def dense(x: Any, width: int, path: str, *, bias: bool = True, initial: Any = None) -> Any:
    """A linear layer over channels; `initial` replaces the usual initializer."""
    initial = initial or initializer()
    return _layers.Dense(width, use_bias=bias, kernel_initializer=initial, name=path)(x)


def self_attention(x: Any, heads: int, path: str, *, bias: bool = True) -> Any:
    """Multi-head self attention with a fused projection: [B, N, D] to [B, N, D]."""
    width = x.shape[-1]
    x = dense(x, 3 * width, f"{path}.qkv", bias=bias)
    return dense(DotProductAttention(heads, name=f"{path}.mix")(x), width, f"{path}.proj")


def mlp(x: Any, ratio: int, path: str) -> Any:
    """Two linear layers around a GELU; the hidden one is `ratio` times as wide."""
    width = x.shape[-1]
    x = dense(x, ratio * width, f"{path}.fc1")
    return dense(_layers.Activation("gelu", name=f"{path}.act")(x), width, f"{path}.fc2")


def add(x: Any, branch: Any, path: str, *, scale: str | None = None) -> Any:
    """`x` plus a branch, which a `LayerScale` named `scale` weighs if given."""
    if scale is not None:
        branch = LayerScale(name=scale)(branch)
    return _layers.Add(name=path)([x, branch])


def add_mlp(x: Any, path: str, *, ratio: int = 4, scale: str | None = None) -> Any:
    """`x` plus the MLP of its normalization: the second half of every block."""
    branch = mlp(norm(x, f"{path}.norm2"), ratio, f"{path}.mlp")
    return add(x, branch, f"{path}.add2", scale=scale)


def transformer_block(x: Any, heads: int, path: str, *, bias: bool = True) -> Any:
    """Self attention and MLP, each after a normalization (arXiv:2010.11929)."""
    branch = self_attention(norm(x, f"{path}.norm1"), heads, f"{path}.attn", bias=bias)
    return add_mlp(add(x, branch, f"{path}.add1"), path)


def fixed_shape(input_shape: Any, *, min_size: int, name: str) -> tuple[int, int, int]:
    """`input_shape`, if it is one that position embeddings can be made for.

    Raises:
        ModelError: If the height or the width is unknown or below `min_size`.
    """
    shape = tuple(input_shape)
    if len(shape) == 3 and None not in shape and min(shape[:2]) >= min_size:
        return shape
    raise ModelError(
        f"{name} needs a fixed height and width of at least {min_size} pixels.",
        received=f"input_shape={shape}",
        cure=f"Use input_shape=({min_size}, {min_size}, 3) and resize smaller images.",
    )


def pad_image(image: Any, *, window: int, stride: int) -> Any:
    """Adds zeros below and to the right until windows at `stride` cover every pixel."""
    extra = [max(window - n, (window - n) % stride) for n in image.shape[1:3]]
    if not any(extra):
        return image
    padding = ((0, extra[0]), (0, extra[1]))
    return _layers.ZeroPadding2D(padding, name="pad")(image)


def patch_map(image: Any, width: int, patch: int, path: str, *, stride: int | None = None) -> Any:
    """One linear map of each patch, [B, h, w, width]; zeros complete the last patches."""
    stride = stride or patch
    image = pad_image(image, window=patch, stride=stride)
    layer = _layers.Conv2D(
        width, patch, strides=stride, kernel_initializer=initializer(), name=path
    )
    return layer(image)


def to_tokens(x: Any, path: str) -> Any:
    """[B, h, w, D] to [B, h * w, D]."""
    _, height, width, channels = x.shape
    return _layers.Reshape((height * width, channels), name=path)(x)


def to_map(x: Any, grid: tuple[int, int], path: str) -> Any:
    """[B, h * w, D] to [B, h, w, D]."""
    return _layers.Reshape((*grid, x.shape[-1]), name=path)(x)


def join_tokens(first: Any, rest: Any, path: str) -> Any:
    """Tokens [B, n, D] before tokens [B, N, D]."""
    return _layers.Concatenate(axis=1, name=path)([first, rest])


def finish_tokens(
    inputs: Any,
    tokens: Any,
    grid: tuple[int, int],
    pooling: str | None,
    name: str,
    *,
    prefix: int = 1,
) -> Any:
    """The model from `inputs` to features, given normalized `tokens` [B, prefix + h * w, D].

    Args:
        inputs: The image input.
        tokens: The class token, then a distillation token if `prefix` is 2, then the patches.
        grid: Height and width in patches.
        pooling: ``"avg"``: the vector [B, D] that timm gives, which is the class token or the
            mean of class and distillation token; ``"max"``: the maximum over patches; None: the
            patches as a map [B, h, w, D].
        name: Name of the model.
        prefix: Tokens before the patches, 1 or 2.

    Raises:
        ModelError: If `pooling` is unknown.
    """
    if pooling == "avg":
        names = ("class_feature", "distillation_feature")[:prefix]
        picked = [TokenSlice(i, i + 1, name=f"{names[i]}.token")(tokens) for i in range(prefix)]
        vectors = [_layers.Flatten(name=n)(token) for n, token in zip(names, picked)]
        features = _layers.Average(name="feature")(vectors) if prefix == 2 else vectors[0]
        return keras.Model(inputs, features, name=name)
    patches = TokenSlice(prefix, name="patches")(tokens)
    if pooling == "max":
        features = _layers.GlobalMaxPooling1D(name="feature")(patches)
    elif pooling is None:
        features = to_map(patches, grid, "feature")
    else:
        raise ModelError(
            '`pooling` must be "avg", "max" or None.',
            received=f"pooling={pooling!r}",
            cure='Use pooling="avg".',
        )
    return keras.Model(inputs, features, name=name)


def distillation_features(model: Any) -> Any:
    """A model with the same weights that returns (class feature, distillation feature), [B, D].

    Args:
        model: A distilled network of a family, built with ``pooling="avg"``.

    Raises:
        ModelError: If the network has no distillation token.
    """
    outputs = {layer.name: layer.output for layer in model.layers}
    names = ("class_feature", "distillation_feature")
    if not set(names) <= set(outputs):
        raise ModelError(
            'Only a distilled network built with pooling="avg" has a distillation feature.',
            received=f"the model {model.name}",
            cure="Build for example deit_tiny_distilled(input_shape).",
        )
    return keras.Model(model.input, [outputs[name] for name in names], name=model.name)


def token_names(model: Any) -> dict[str, str]:
    """From each weight's name to its key in a timm state dict."""
    return {path: key.removesuffix(".value") for path, key in mechanical_names(model).items()}
