"""Twins: attention inside windows or over a summary, in four stages of shrinking grids.

Chu et al., "Twins: Revisiting the Design of Spatial Attention in Vision Transformers",
arXiv:2104.13840. PCPVT: every block attends from all places to a summary of the map, which a
strided convolution makes. SVT: blocks attend inside windows of 7x7 and over the summary by turns.
Position enters by a depthwise convolution after the first block of each stage
(arXiv:2102.10882), so there are no position embeddings, and weights fit every input size.

A size that is no multiple of 32 is completed with zeros below and to the right, and then agrees
with timm's model for the completed size; timm itself refuses such sizes.
"""

from __future__ import annotations

from typing import Any

from tfgraphreg.backbones.families import blocks_attention as blocks
from tfgraphreg.backbones.families import layers_attention as layers
from tfgraphreg.backbones.families.blocks_conv import INITIALIZER, finish, image_input
from tfgraphreg.backbones.families.variant import named_builder, tabulate
from tfgraphreg.compat import keras, tf

_layers = keras.layers
_STRIDE = 32
# With 32 pixels each summary is one place, and a softmax over one place has nothing to learn.
_MIN_SIZE = 64
_WINDOW = 7
_SUMMARY = (8, 4, 2, 1)

timm_names = blocks.token_names


@keras.utils.register_keras_serializable(package="tfgraphreg")
class ToWindows(keras.layers.Layer):
    """Cuts a map into windows: [B, h, w, D] to [B * windows, side^2, D], zeros at the edge.

    Args:
        side: Places per side of a window.
    """

    def __init__(self, side: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.side = side

    def call(self, inputs: Any) -> Any:
        """Orders windows, and places in them, row by row."""
        _, height, width, channels = inputs.shape
        edges = [(0, -height % self.side), (0, -width % self.side)]
        x = tf.pad(inputs, [(0, 0), *edges, (0, 0)])
        rows, columns = x.shape[1] // self.side, x.shape[2] // self.side
        x = tf.reshape(x, (-1, rows, self.side, columns, self.side, channels))
        return tf.reshape(tf.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, self.side**2, channels))

    def get_config(self) -> dict[str, Any]:
        """What rebuilds the layer."""
        return {**super().get_config(), "side": self.side}


@keras.utils.register_keras_serializable(package="tfgraphreg")
class FromWindows(keras.layers.Layer):
    """Undoes `ToWindows`: [B * windows, side^2, D] to [B, h, w, D].

    Args:
        side: Places per side of a window.
        grid: Height and width of the map.
    """

    def __init__(self, side: int, grid: tuple[int, int], **kwargs: Any):
        super().__init__(**kwargs)
        self.side, self.grid = side, tuple(grid)

    def call(self, inputs: Any) -> Any:
        """Joins the windows and drops what was added at the edge."""
        rows, columns = (-(-n // self.side) for n in self.grid)
        channels = inputs.shape[-1]
        x = tf.reshape(inputs, (-1, rows, columns, self.side, self.side, channels))
        x = tf.transpose(x, (0, 1, 3, 2, 4, 5))
        x = tf.reshape(x, (-1, rows * self.side, columns * self.side, channels))
        return x[:, : self.grid[0], : self.grid[1]]

    def get_config(self) -> dict[str, Any]:
        """What rebuilds the layer."""
        return {**super().get_config(), "side": self.side, "grid": self.grid}


def _twins(
    name: str,
    input_shape: Any,
    pooling: str | None,
    *,
    widths: tuple[int, ...],
    depths: tuple[int, ...],
    head_width: int,
    ratios: tuple[int, ...] = (4, 4, 4, 4),
    windows: bool = False,
) -> Any:
    shape = blocks.fixed_shape(input_shape, min_size=_MIN_SIZE, name=name)
    inputs = image_input(shape)
    x = blocks.pad_image(inputs, window=_STRIDE, stride=_STRIDE)
    for stage, (width, depth) in enumerate(zip(widths, depths)):
        x = _shrink(x, width, 2 if stage else 4, f"patch_embeds.{stage}")
        for i in range(depth):
            # Windowed blocks come first in each pair.
            local = windows and i % 2 == 0
            summary = None if local else _SUMMARY[stage]
            path = f"blocks.{stage}.{i}"
            x = _block(x, width // head_width, summary, ratios[stage], path)
            if i == 0:
                x = _position(x, f"pos_block.{stage}.proj.0")
    return finish(inputs, blocks.norm(x, "norm"), pooling, name)


def _shrink(x: Any, width: int, patch: int, path: str) -> Any:
    layer = _layers.Conv2D(
        width, patch, strides=patch, kernel_initializer=INITIALIZER, name=f"{path}.proj"
    )
    return blocks.norm(layer(x), f"{path}.norm", epsilon=1e-5)


def _position(x: Any, path: str) -> Any:
    layer = _layers.DepthwiseConv2D(3, padding="same", depthwise_initializer=INITIALIZER, name=path)
    return blocks.add(x, layer(x), f"{path}.add")


def _block(x: Any, heads: int, summary: int | None, ratio: int, path: str) -> Any:
    """A block over a map [B, h, w, D]; `summary` is the stride of the summary, None: windows."""
    branch = blocks.norm(x, f"{path}.norm1")
    if summary is None:
        branch = _window_attention(branch, heads, f"{path}.attn")
    else:
        branch = _summary_attention(branch, heads, summary, f"{path}.attn")
    return blocks.add_mlp(blocks.add(x, branch, f"{path}.add1"), path, ratio=ratio)


def _window_attention(x: Any, heads: int, path: str) -> Any:
    grid = x.shape[1:3]
    x = ToWindows(_WINDOW, name=f"{path}.cut")(x)
    x = blocks.self_attention(x, heads, path)
    return FromWindows(_WINDOW, grid, name=f"{path}.join")(x)


def _summary_attention(x: Any, heads: int, stride: int, path: str) -> Any:
    _, height, width, channels = x.shape
    queries = blocks.dense(blocks.to_tokens(x, f"{path}.tokens"), channels, f"{path}.q")
    if stride > 1:
        layer = _layers.Conv2D(
            channels, stride, strides=stride, kernel_initializer=INITIALIZER, name=f"{path}.sr"
        )
        x = blocks.norm(layer(x), f"{path}.norm", epsilon=1e-5)
    pair = blocks.dense(blocks.to_tokens(x, f"{path}.summary"), 2 * channels, f"{path}.kv")
    keys, values = layers.SplitChannels(2, name=f"{path}.split")(pair)
    mixed = layers.DotProductAttention(heads, name=f"{path}.mix")([queries, keys, values])
    mixed = blocks.dense(mixed, channels, f"{path}.proj")
    return blocks.to_map(mixed, (height, width), f"{path}.map")


_PCPVT = {"widths": (64, 128, 320, 512), "head_width": 64, "ratios": (8, 8, 4, 4)}
_SVT = {"head_width": 32, "windows": True}

twins_pcpvt_small = named_builder(_twins, "twins_pcpvt_small", **_PCPVT, depths=(3, 4, 6, 3))
twins_pcpvt_base = named_builder(_twins, "twins_pcpvt_base", **_PCPVT, depths=(3, 4, 18, 3))
twins_pcpvt_large = named_builder(_twins, "twins_pcpvt_large", **_PCPVT, depths=(3, 8, 27, 3))
twins_svt_small = named_builder(
    _twins, "twins_svt_small", **_SVT, widths=(64, 128, 256, 512), depths=(2, 2, 10, 4)
)
twins_svt_base = named_builder(
    _twins, "twins_svt_base", **_SVT, widths=(96, 192, 384, 768), depths=(2, 2, 18, 2)
)
twins_svt_large = named_builder(
    _twins, "twins_svt_large", **_SVT, widths=(128, 256, 512, 1024), depths=(2, 2, 18, 2)
)

_ROWS_OF_FAMILY = {
    "Twins PCPVT": [
        (twins_pcpvt_small, 512, 24_106_216),
        (twins_pcpvt_base, 512, 43_828_456),
        (twins_pcpvt_large, 512, 60_989_672),
    ],
    "Twins SVT": [
        (twins_svt_small, 512, 24_060_776),
        (twins_svt_base, 768, 56_070_952),
        (twins_svt_large, 1024, 99_271_400),
    ],
}
VARIANTS = {
    name: variant
    for family, rows in _ROWS_OF_FAMILY.items()
    for name, variant in tabulate(
        rows,
        family=family,
        paper="arXiv:2104.13840, Twins: Revisiting the Design of Spatial Attention in Vision "
        "Transformers",
        min_size=_MIN_SIZE,
        default_size=224,
        learning_rate=3e-4,
        classifier=("head",),
    ).items()
}
