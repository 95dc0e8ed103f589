"""DLA: trees of blocks whose outputs are merged at every node.

Yu, Wang, Shelhamer, Darrell: Deep Layer Aggregation (arXiv:1707.06484). A tree of depth one is
two blocks and a root that merges them with everything handed down; a deeper tree is two trees,
of which the second gets the first one's output handed down.
``x`` groups the 3x3 convolutions, ``_c`` is compact; ``dla60_res2net`` and ``dla60_res2next``
have the multi-scale block of arXiv:1904.01169.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tfgraphreg.backbones.families import blocks_conv as blocks
from tfgraphreg.backbones.families.timm_weights import mechanical_names
from tfgraphreg.backbones.families.variant import named_builder, tabulate
from tfgraphreg.compat import keras

_COMPACT = (16, 32, 64, 64, 128, 256)
_BASIC = (16, 32, 64, 128, 256, 512)
_WIDE = (16, 32, 128, 256, 512, 1024)
_SCALE = 4


@dataclasses.dataclass(frozen=True)
class _Style:
    """Which blocks a network has: basic, bottleneck or multi_scale, and how they are grouped."""

    block: str = "bottleneck"
    groups: int = 1
    base_width: int = 64
    root_shortcut: bool = False

    def middle(self, width: int) -> int:
        """Channels of the 3x3 convolution in a block with `width` outputs."""
        return width * self.base_width // 64 * self.groups // 2


def _block(
    x: Any, width: int, path: str, style: _Style, *, stride: int = 1, shortcut: Any = None
) -> Any:
    shortcut = x if shortcut is None else shortcut
    if style.block == "basic":
        x = blocks.conv_norm(x, width, 3, f"{path}.conv1", f"{path}.bn1", stride=stride)
        x = blocks.conv_norm(x, width, 3, f"{path}.conv2", f"{path}.bn2", act=None)
    else:
        middle, groups = style.middle(width), style.groups
        multi_scale = style.block == "multi_scale"
        squeezed = middle * _SCALE if multi_scale else middle
        x = blocks.conv_norm(x, squeezed, 1, f"{path}.conv1", f"{path}.bn1")
        if multi_scale:
            x = blocks.multi_scale(
                x, middle, _SCALE, path, stride=stride, groups=groups, chained=stride == 1
            )
        else:
            names = f"{path}.conv2", f"{path}.bn2"
            x = blocks.conv_norm(x, middle, 3, *names, stride=stride, groups=groups)
        x = blocks.conv_norm(x, width, 1, f"{path}.conv3", f"{path}.bn3", act=None)
    return blocks.activate(blocks.add_shortcut(x, shortcut, path), "relu", f"{path}.relu")


def _root(children: list[Any], width: int, path: str, *, shortcut: bool) -> Any:
    x = keras.layers.Concatenate(name=f"{path}.cat")(children)
    x = blocks.conv_norm(x, width, 1, f"{path}.conv", f"{path}.bn", act=None)
    if shortcut:
        x = blocks.add_shortcut(x, children[0], path)
    return blocks.activate(x, "relu", f"{path}.relu")


def _tree(
    x: Any,
    depth: int,
    width: int,
    path: str,
    style: _Style,
    *,
    stride: int = 1,
    handed_down: tuple[Any, ...] = (),
    keep_input: bool = False,
) -> Any:
    """One node. With `keep_input` the root also sees the tree's input, at the new size."""
    needs_bottom = depth == 1 or keep_input
    bottom = x
    if stride > 1 and needs_bottom:
        # Rounds odd sizes up, as the strided convolution beside it does.
        bottom = blocks.max_pool(x, stride, stride, f"{path}.downsample", padding="same")
    if keep_input:
        handed_down = (*handed_down, bottom)
    if depth > 1:
        first = _tree(x, depth - 1, width, f"{path}.tree1", style, stride=stride)
        return _tree(
            first, depth - 1, width, f"{path}.tree2", style, handed_down=(*handed_down, first)
        )
    shortcut = bottom
    if x.shape[-1] != width:
        names = f"{path}.project.0", f"{path}.project.1"
        shortcut = blocks.conv_norm(bottom, width, 1, *names, act=None)
    first = _block(x, width, f"{path}.tree1", style, stride=stride, shortcut=shortcut)
    second = _block(first, width, f"{path}.tree2", style)
    children = [second, first, *handed_down]
    return _root(children, width, f"{path}.root", shortcut=style.root_shortcut)


def _dla(
    name: str,
    input_shape: tuple[int | None, int | None, int],
    pooling: str | None,
    *,
    depths: tuple[int, int, int, int],
    widths: tuple[int, ...],
    style: _Style,
) -> Any:
    inputs = blocks.image_input(input_shape)
    x = blocks.conv_norm(inputs, widths[0], 7, "base_layer.0", "base_layer.1")
    x = blocks.conv_norm(x, widths[0], 3, "level0.0", "level0.1")
    x = blocks.conv_norm(x, widths[1], 3, "level1.0", "level1.1", stride=2)
    for level, (depth, width) in enumerate(zip(depths, widths[2:]), start=2):
        x = _tree(x, depth, width, f"level{level}", style, stride=2, keep_input=level > 2)
    return blocks.finish(inputs, x, pooling, name)


def timm_names(model: Any) -> dict[str, str]:
    """Maps each weight to timm's key: the layers carry timm's module paths as names."""
    return mechanical_names(model)


def _builder(
    name: str, depths: tuple[int, int, int, int], widths: tuple[int, ...], **style: Any
) -> Any:
    return named_builder(_dla, name, depths=depths, widths=widths, style=_Style(**style))


_GROUPED = {"groups": 32, "base_width": 4}
_34, _60, _102 = (1, 2, 2, 1), (1, 2, 3, 1), (1, 3, 4, 1)
dla34 = _builder("dla34", _34, _BASIC, block="basic")
dla46_c = _builder("dla46_c", _34, _COMPACT)
dla46x_c = _builder("dla46x_c", _34, _COMPACT, **_GROUPED)
dla60x_c = _builder("dla60x_c", _60, _COMPACT, **_GROUPED)
dla60 = _builder("dla60", _60, _WIDE)
dla60x = _builder("dla60x", _60, _WIDE, **_GROUPED)
dla60_res2net = _builder("dla60_res2net", _60, _WIDE, block="multi_scale", base_width=28)
dla60_res2next = _builder("dla60_res2next", _60, _WIDE, block="multi_scale", groups=8, base_width=4)
dla102 = _builder("dla102", _102, _WIDE, root_shortcut=True)
dla102x = _builder("dla102x", _102, _WIDE, root_shortcut=True, **_GROUPED)
dla102x2 = _builder("dla102x2", _102, _WIDE, root_shortcut=True, groups=64, base_width=4)
dla169 = _builder("dla169", (2, 3, 5, 1), _WIDE, root_shortcut=True)

VARIANTS = tabulate(
    [
        (dla34, 512, 15_742_104),
        (dla46_c, 256, 1_301_400),
        (dla46x_c, 256, 1_068_440),
        (dla60x_c, 256, 1_319_832),
        (dla60, 1024, 22_036_632),
        (dla60x, 1024, 17_352_344),
        (dla60_res2net, 1024, 20_848_072),
        (dla60_res2next, 1024, 17_032_984),
        (dla102, 1024, 33_268_888),
        (dla102x, 1024, 26_309_272),
        (dla102x2, 1024, 41_282_200),
        (dla169, 1024, 53_389_720),
    ],
    family="DLA",
    paper="arXiv:1707.06484, Deep Layer Aggregation",
    min_size=32,
    default_size=224,
    learning_rate=1e-3,
    classifier=("fc",),
)
