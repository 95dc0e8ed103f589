"""The networks of KerasCV that Keras Applications lacks, as records."""

from __future__ import annotations

from typing import Any

from tfgraphreg.backbones.records import Backbone
from tfgraphreg.errors import StackError


def build_resnet_v2(
    *,
    input_shape: tuple[int, int, int],
    weights: str | None,
    filters: tuple[int, ...] = (64, 128, 256, 512),
    blocks: tuple[int, ...] = (2, 2, 2, 2),
    strides: tuple[int, ...] = (1, 2, 2, 2),
) -> Any:
    """Builds a second ResNet of basic blocks.

    The sizes are given one by one because KerasCV's ready-made names ask a hub on the network
    for theirs.

    Args:
        input_shape: (H, W, C) of the preprocessed images.
        weights: There are none to load.
        filters: Width of each stage; the last is the number of features.
        blocks: Blocks of each stage.
        strides: Stride of each stage.
    """
    from tfgraphreg.compat import load_keras

    load_keras()
    try:
        from keras_cv.models import ResNetV2Backbone
    except ImportError as error:
        raise StackError(
            f"keras_cv cannot be imported ({error}).", cure="Run: pip install keras-cv==0.9.0."
        ) from error
    return ResNetV2Backbone(
        stackwise_filters=list(filters),
        stackwise_blocks=list(blocks),
        stackwise_strides=list(strides),
        include_rescaling=False,
        block_type="basic_block",
        input_shape=input_shape,
    )


_SHARED: dict[str, Any] = {
    "family": "resnet_v2",
    "library": "keras_cv",
    "builder": "tfgraphreg.backbones.kerascv:build_resnet_v2",
    "preprocessing": "zero_to_one",
    "width": 512,
    "min_size": 28,
    "paper": "He et al. 2016, arXiv:1603.05027",
}

RECORDS: tuple[Backbone, ...] = (
    Backbone(name="resnet18_v2", parameters=11_175_680, **_SHARED),
    Backbone(
        name="resnet34_v2", parameters=21_283_840, arguments={"blocks": (3, 4, 6, 3)}, **_SHARED
    ),
)
