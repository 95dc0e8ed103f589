"""What can be refused before data are loaded and TensorFlow is started."""

from __future__ import annotations

import importlib.util

from tfgraphreg.backbones.catalog import BACKBONES
from tfgraphreg.backbones.records import check_size
from tfgraphreg.backbones.transfer import check_freeze
from tfgraphreg.backbones.weights import network_weights
from tfgraphreg.errors import MissingExtraError


def check_backbone(
    name: str, *, weights: str = "none", image_size: int | None = None, freeze: str | int = "none"
) -> None:
    """Refuses a network that is unknown or not installed, and settings that cannot fit it.

    Raises:
        UnknownNameError: If there is no such backbone.
        MissingExtraError: If the library that has it is not installed.
        ModelError: If the weights are nowhere, or the size or the stages do not fit.
    """
    record = BACKBONES.get(name)
    if record.library == "kecam" and not importlib.util.find_spec("keras_cv_attention_models"):
        raise MissingExtraError("keras-cv-attention-models", "kecam", "This backbone")
    network_weights(record, weights)
    check_freeze(freeze)
    if image_size is not None:
        check_size(record, image_size)
