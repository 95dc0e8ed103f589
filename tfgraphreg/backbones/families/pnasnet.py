"""PNASNet-5: the cell found by progressive search, stacked.

Liu, Zoph, Neumann, Shlens, Hua, Li, Fei-Fei, Yuille, Huang, Murphy: Progressive Neural
Architecture Search (arXiv:1712.00559). A cell reads the two outputs before it, brings both to its
width, sums five pairs of operations and concatenates the sums. The large network of the paper has
4 cells a stage from width 216, the mobile one 3 from 54. The published weights are for TensorFlow's
padding at stride 2.
"""

from __future__ import annotations

from typing import Any

from tfgraphreg.backbones.families import blocks_conv as blocks
from tfgraphreg.backbones.families.timm_weights import mechanical_names
from tfgraphreg.backbones.families.variant import Variant, named_builder
from tfgraphreg.compat import keras

_EPSILON = 1e-3
_PAIRS = 5
_layers = keras.layers


def _norm(x: Any, path: str) -> Any:
    return blocks.norm(x, path, epsilon=_EPSILON)


def _relu_conv(x: Any, width: int, path: str, stride: int = 1) -> Any:
    x = blocks.activate(x, "relu", f"{path}.act")
    return _norm(blocks.conv(x, width, 1, f"{path}.conv", stride=stride), f"{path}.bn")


def _separable(x: Any, width: int, kernel: int, path: str, stride: int = 1) -> Any:
    """ReLU, depthwise and 1x1 convolution, normalization; twice, the stride first."""
    for number in (1, 2):
        x = blocks.activate(x, "relu", f"{path}.act_{number}")
        name, channels = f"{path}.separable_{number}", x.shape[-1]
        strides = stride if number == 1 else 1
        x = blocks.conv(
            x,
            channels,
            kernel,
            f"{name}.depthwise_conv2d",
            stride=strides,
            groups=channels,
            padding="same",
        )
        x = blocks.conv(x, width, 1, f"{name}.pointwise_conv2d")
        x = _norm(x, f"{path}.bn_sep_{number}")
    return x


def _halve(x: Any, width: int, path: str) -> Any:
    """Half the size without a loss: even pixels through one 1x1 convolution, odd through another.

    The two grids see the map at its place and shifted by one pixel.
    """
    x = blocks.activate(x, "relu", f"{path}.act")
    shifted = _layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{path}.path_2.pad")(x)
    shifted = _layers.Cropping2D(((1, 0), (1, 0)), name=f"{path}.path_2.shift")(shifted)
    halves = []
    widths = width // 2, width - width // 2
    for number, (grid, half) in enumerate(zip((x, shifted), widths), start=1):
        name = f"{path}.path_{number}"
        grid = blocks.average_pool(grid, 1, 2, f"{name}.avgpool", padding="valid")
        halves.append(blocks.conv(grid, half, 1, f"{name}.conv"))
    x = _layers.Concatenate(name=f"{path}.cat")(halves)
    return _norm(x, f"{path}.final_path_bn")


def _pairs(left: Any, right: Any, width: int, path: str, stride: int, *, stem: bool) -> Any:
    """The five sums. In the first stem cell the left input still has its own width."""

    def name(pair: int, side: str) -> str:
        return f"{path}.comb_iter_{pair}_{side}"

    def pool(x: Any, pair: int, at: str = "") -> Any:
        return blocks.max_pool(x, 3, stride, name(pair, "right") + at, padding="same")

    narrow = stem and left.shape[-1] != width
    pooled = pool(left, 0, ".max_pool" if narrow else "")
    if narrow:
        pooled = blocks.conv(pooled, width, 1, f"{name(0, 'right')}.conv")
        pooled = _norm(pooled, f"{name(0, 'right')}.bn")
    third = _layers.Add(name=f"{path}.comb_iter_2")(
        [
            _separable(right, width, 5, name(2, "left"), stride),
            _separable(right, width, 3, name(2, "right"), stride),
        ]
    )
    kept = right if stride == 1 else _relu_conv(right, width, name(4, "right"), stride)
    sums = [
        (_separable(left, width, 5, name(0, "left"), stride), pooled),
        (_separable(right, width, 7, name(1, "left"), stride), pool(right, 1)),
        (_separable(third, width, 3, name(3, "left")), pool(right, 3)),
        (_separable(left, width, 3, name(4, "left"), stride), kept),
    ]
    first, second, fourth, fifth = (
        _layers.Add(name=f"{path}.comb_iter_{pair}")(list(terms))
        for pair, terms in zip((0, 1, 3, 4), sums)
    )
    return _layers.Concatenate(name=f"{path}.cat")([first, second, third, fourth, fifth])


def _cell(left: Any, right: Any, width: int, path: str, *, stride: int, halve: bool) -> Any:
    shrink = _halve if halve else _relu_conv
    left = shrink(left, width, f"{path}.conv_prev_1x1")
    right = _relu_conv(right, width, f"{path}.conv_1x1")
    return _pairs(left, right, width, path, stride, stem=False)


def _pnasnet(
    name: str,
    input_shape: tuple[int | None, int | None, int],
    pooling: str | None,
    *,
    width: int,
    cells: int,
    stem: int,
) -> Any:
    inputs = blocks.image_input(input_shape)
    x = blocks.conv(inputs, stem, 3, "conv_0.conv", stride=2, padding="valid")
    before = _norm(x, "conv_0.bn")
    right = _relu_conv(before, width // 4, "cell_stem_0.conv_1x1")
    x = _pairs(before, right, width // 4, "cell_stem_0", 2, stem=True)
    before, x = x, _cell(before, x, width // 2, "cell_stem_1", stride=2, halve=True)
    shrunk = True
    for index in range(3 * cells):
        stage, place = divmod(index, cells)
        reduce = stage > 0 and place == 0
        after = _cell(
            before,
            x,
            width * 2**stage,
            f"cell_{index}",
            stride=2 if reduce else 1,
            halve=shrunk,
        )
        before, x, shrunk = x, after, reduce
    x = blocks.activate(x, "relu", "act")
    return blocks.finish(inputs, x, pooling, name)


def timm_names(model: Any) -> dict[str, str]:
    """Maps each weight to timm's key: the layers carry timm's module paths as names."""
    return mechanical_names(model)


pnasnet5large = named_builder(_pnasnet, "pnasnet5large", width=216, cells=4, stem=96)
pnasnet5mobile = named_builder(_pnasnet, "pnasnet5mobile", width=54, cells=3, stem=32)

_SHARED: dict[str, Any] = {
    "family": "PNASNet",
    "paper": "arXiv:1712.00559, Progressive Neural Architecture Search",
    "min_size": 32,
    "learning_rate": 1e-3,
    "classifier": ("last_linear",),
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
}
VARIANTS: dict[str, Variant] = {
    "pnasnet5large": Variant(
        name="pnasnet5large",
        builder=pnasnet5large,
        width=4 * 216 * _PAIRS,
        parameters_with_classifier=86_057_668,
        timm="pnasnet5large",
        default_size=331,
        **_SHARED,
    ),
    # The paper's mobile network, which timm does not have.
    "pnasnet5mobile": Variant(
        name="pnasnet5mobile",
        builder=pnasnet5mobile,
        width=4 * 54 * _PAIRS,
        parameters_with_classifier=5_064_487,
        timm=None,
        default_size=224,
        **_SHARED,
    ),
}
