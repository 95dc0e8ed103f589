"""Convolutional building blocks shared by the families.

Every function takes and returns a Keras tensor [B, height, width, channels] and names its layers
by `path`, the module path of the same layer in timm, so that weights can be matched by name.

Padding comes in three kinds: ``"symmetric"`` puts k // 2 zeros on each side, as PyTorch models do
(at stride 2 this differs from TensorFlow); ``"same"`` is TensorFlow's own; ``"valid"`` adds none.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tfgraphreg.compat import keras, tf
from tfgraphreg.errors import ModelError

_layers = keras.layers
_PACKAGE = "tfgraphreg"
# He initialization over outputs: for a depthwise kernel Keras counts the same fan-out as its area.
INITIALIZER = {
    "class_name": "VarianceScaling",
    "config": {"scale": 2.0, "mode": "fan_out", "distribution": "untruncated_normal"},
}


@keras.utils.register_keras_serializable(package=_PACKAGE)
def hard_sigmoid(x: Any) -> Any:
    """relu6(x + 3) / 6, as in MobileNetV3; `keras.activations.hard_sigmoid` has another slope."""
    return tf.nn.relu6(x + 3.0) / 6.0


@keras.utils.register_keras_serializable(package=_PACKAGE)
def hard_swish(x: Any) -> Any:
    """The input times its hard sigmoid."""
    return x * hard_sigmoid(x)


_ACTIVATIONS: dict[str, str | Callable[[Any], Any]] = {
    "hard_sigmoid": hard_sigmoid,
    "hard_swish": hard_swish,
}


def activate(x: Any, kind: str | None, name: str | None = None) -> Any:
    """Applies an activation by name: Keras' names, ``relu6``, ``hard_swish``; None: nothing."""
    if kind is None:
        return x
    if kind == "relu6":
        return _layers.ReLU(max_value=6.0, name=name)(x)
    return _layers.Activation(_ACTIVATIONS.get(kind, kind), name=name)(x)


@functools.cache
def _has_grouped_gradient(dtype: str) -> bool:
    """Whether TensorFlow can differentiate a grouped convolution here: a GPU or oneDNN can."""
    image, kernel = [1, 3, 3, 4], [3, 3, 2, 4]
    places = {"strides": [1, 1, 1, 1], "padding": "SAME"}
    # No tape: none records within an init scope, and then nothing would be tried.
    with tf.init_scope():
        x, w = tf.zeros(image, dtype), tf.zeros(kernel, dtype)
        try:
            tf.raw_ops.Conv2DBackpropInput(input_sizes=image, filter=w, out_backprop=x, **places)
            tf.raw_ops.Conv2DBackpropFilter(input=x, filter_sizes=kernel, out_backprop=x, **places)
        except (tf.errors.OpError, ValueError):
            return False
    return True


@keras.utils.register_keras_serializable(package=_PACKAGE)
class GroupedConv2D(keras.layers.Conv2D):
    """A grouped convolution that trains on every device.

    Keras compiles its own with XLA, which on a CPU is some hundred times slower than TensorFlow's
    kernel. That kernel has no gradient on a CPU without oneDNN, or in float16; the convolution
    then runs as one dense convolution whose kernel is zero between groups.
    """

    def call(self, inputs: Any) -> Any:
        """Convolves [B, height, width, groups * c] within each group of channels."""
        kernel = tf.convert_to_tensor(self.kernel)
        if not _has_grouped_gradient(self.compute_dtype):
            kernel = block_diagonal(kernel, self.groups)
        outputs = self.convolution_op(inputs, kernel)
        return tf.nn.bias_add(outputs, self.bias) if self.use_bias else outputs


def block_diagonal(kernel: Any, groups: int) -> Any:
    """The dense kernel [h, w, groups * c, out] that acts as the grouped one [h, w, c, out]."""
    _, _, inputs, outputs = kernel.shape
    rows = tf.range(inputs * groups)[:, None] // inputs
    columns = tf.range(outputs)[None, :] // (outputs // groups)
    return tf.tile(kernel, [1, 1, groups, 1]) * tf.cast(rows == columns, kernel.dtype)


@keras.utils.register_keras_serializable(package=_PACKAGE)
class LowestPadding2D(keras.layers.Layer):
    """Pads height and width with the lowest number, which a maximum never picks."""

    def __init__(self, padding: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.padding = padding

    def call(self, inputs: Any) -> Any:
        """[B, h, w, C] to [B, h + 2 * padding, w + 2 * padding, C]."""
        edge = (self.padding, self.padding)
        return tf.pad(inputs, [(0, 0), edge, edge, (0, 0)], constant_values=inputs.dtype.min)

    def get_config(self) -> dict[str, Any]:
        """What rebuilds the layer."""
        return {**super().get_config(), "padding": self.padding}


@keras.utils.register_keras_serializable(package=_PACKAGE)
class Channels(keras.layers.Layer):
    """Keeps the channels from `start` up to `stop` (None: to the last)."""

    def __init__(self, start: int, stop: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.start, self.stop = start, stop

    def call(self, inputs: Any) -> Any:
        """[B, h, w, C] to [B, h, w, stop - start]."""
        return inputs[..., self.start : self.stop]

    def get_config(self) -> dict[str, Any]:
        """What rebuilds the layer."""
        return {**super().get_config(), "start": self.start, "stop": self.stop}


def conv(
    x: Any,
    width: int,
    kernel: int,
    path: str,
    *,
    stride: int = 1,
    groups: int = 1,
    bias: bool = False,
    padding: str = "symmetric",
) -> Any:
    """A convolution to `width` channels; depthwise where `groups` equals both widths."""
    if padding == "symmetric":
        padding = "same"
        if stride > 1 and kernel > 1:
            x, padding = _layers.ZeroPadding2D(kernel // 2, name=f"{path}.pad")(x), "valid"
    shared = {"strides": stride, "padding": padding, "use_bias": bias, "name": path}
    if groups == x.shape[-1] == width and groups > 1:
        return _layers.DepthwiseConv2D(kernel, depthwise_initializer=INITIALIZER, **shared)(x)
    if groups > 1:
        layer = GroupedConv2D(
            width, kernel, groups=groups, kernel_initializer=INITIALIZER, **shared
        )
        return layer(x)
    return _layers.Conv2D(width, kernel, kernel_initializer=INITIALIZER, **shared)(x)


def norm(
    x: Any, path: str, *, act: str | None = None, epsilon: float = 1e-5, momentum: float = 0.9
) -> Any:
    """Batch normalization, then an activation. Keras' momentum is one minus PyTorch's."""
    x = _layers.BatchNormalization(epsilon=epsilon, momentum=momentum, name=path)(x)
    return activate(x, act, f"{path}.act")


def conv_norm(
    x: Any,
    width: int,
    kernel: int,
    conv_path: str,
    norm_path: str,
    *,
    stride: int = 1,
    groups: int = 1,
    act: str | None = "relu",
    padding: str = "symmetric",
    epsilon: float = 1e-5,
) -> Any:
    """Convolution without bias, batch normalization, activation."""
    x = conv(x, width, kernel, conv_path, stride=stride, groups=groups, padding=padding)
    return norm(x, norm_path, act=act, epsilon=epsilon)


def squeeze_excite(
    x: Any,
    reduced: int,
    path: str,
    *,
    names: tuple[str, str] = ("conv_reduce", "conv_expand"),
    norm_name: str | None = None,
    act: str = "relu",
    gate: str = "sigmoid",
) -> Any:
    """Scales each channel by a gate computed from all channel means (arXiv:1709.01507)."""
    scale = _layers.GlobalAveragePooling2D(keepdims=True, name=f"{path}.mean")(x)
    scale = conv(scale, reduced, 1, f"{path}.{names[0]}", bias=True)
    if norm_name is not None:
        scale = norm(scale, f"{path}.{norm_name}")
    scale = activate(scale, act, f"{path}.act")
    scale = conv(scale, x.shape[-1], 1, f"{path}.{names[1]}", bias=True)
    scale = activate(scale, gate, f"{path}.gate")
    return _layers.Multiply(name=f"{path}.scale")([x, scale])


def multi_scale(
    x: Any, width: int, scale: int, path: str, *, stride: int, groups: int, chained: bool
) -> Any:
    """The hierarchy of 3x3 convolutions that gives Res2Net its many scales (arXiv:1904.01169).

    The channels of `x`, `scale` times `width`, are cut into pieces. Each but the last is
    convolved, after the sum with its predecessor's result if `chained`; the last passes
    through, averaged where the block is not chained. Layers: convs.<i>, bns.<i>.
    """
    pieces = [
        Channels(i * width, (i + 1) * width, name=f"{path}.piece{i}")(x) for i in range(scale)
    ]
    outputs: list[Any] = []
    for i in range(max(1, scale - 1)):
        piece = pieces[i]
        if chained and i:
            piece = _layers.Add(name=f"{path}.sum{i}")([outputs[-1], piece])
        names = f"{path}.convs.{i}", f"{path}.bns.{i}"
        outputs.append(conv_norm(piece, width, 3, *names, stride=stride, groups=groups))
    if scale > 1:
        last = pieces[-1] if chained else average_pool(pieces[-1], 3, stride, f"{path}.pool")
        outputs.append(last)
    return _layers.Concatenate(name=f"{path}.cat")(outputs)


def max_pool(x: Any, size: int, stride: int, path: str, *, padding: str = "symmetric") -> Any:
    """Maximum over windows; padding never wins."""
    if padding == "symmetric":
        if stride == 1:
            padding = "same"
        else:
            x, padding = LowestPadding2D(size // 2, name=f"{path}.pad")(x), "valid"
    return _layers.MaxPooling2D(size, stride, padding=padding, name=path)(x)


def average_pool(x: Any, size: int, stride: int, path: str, *, padding: str = "symmetric") -> Any:
    """Mean over windows. Symmetric zeros count in the mean; cells that "same" adds do not."""
    if padding == "symmetric":
        x, padding = _layers.ZeroPadding2D(size // 2, name=f"{path}.pad")(x), "valid"
    return _layers.AveragePooling2D(size, stride, padding=padding, name=path)(x)


def add_shortcut(x: Any, shortcut: Any, path: str) -> Any:
    """Sum of two maps of one shape."""
    return _layers.Add(name=f"{path}.add")([x, shortcut])


def image_input(input_shape: tuple[int | None, int | None, int]) -> Any:
    """The input of a backbone: preprocessed images [B, height, width, channels]."""
    return keras.Input(shape=input_shape, name="image")


def finish(inputs: Any, features: Any, pooling: str | None, name: str) -> Any:
    """The model from `inputs` to the pooled features, or to the map with ``pooling=None``.

    Raises:
        ModelError: If `pooling` is unknown.
    """
    if pooling == "avg":
        features = _layers.GlobalAveragePooling2D(name="global_pool")(features)
    elif pooling == "max":
        features = _layers.GlobalMaxPooling2D(name="global_pool")(features)
    elif pooling is not None:
        raise ModelError(
            '`pooling` must be "avg", "max" or None.',
            received=f"pooling={pooling!r}",
            cure='Use pooling="avg".',
        )
    return keras.Model(inputs, features, name=name)
