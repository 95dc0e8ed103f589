"""SavedModels that give boxes.

Shapes: B batch, N rows of an image, C classes, D width of the embedding.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from tfgraphreg.compat import keras
from tfgraphreg.export.saved import DETECT, Saved, Server, write_saved_model
from tfgraphreg.model.detector import detections


class _Server(Server):
    def _network(self, image):
        return detections(self._infer(image), self.shape)


def export_detector(
    model: keras.Model,
    folder: os.PathLike[str] | str,
    *,
    class_names: Sequence[str],
    about: dict[str, Any] | None = None,
) -> None:
    """Writes a SavedModel that TensorFlow alone can load and serve.

    Its signatures: `detect`, which is also `serving_default`, takes `image`, raw uint8
    `[B, height, width, channels]` for any B; `serving_encoded` takes `encoded_image`, `[B]` JPEG or
    PNG files, which are decoded and resized. Both give `boxes` `[B, N, 4]` in pixels of the image
    that the model takes, `classes` `[B, N]` from 0 on, `scores` `[B, N]`, the `embedding`
    `[B, N, D]` of each region, and `count` `[B]`: rows from there on are padding. The folder
    appears whole or not at all.

    Args:
        model: Of `build_detector`.
        folder: Replaced if it exists.
        class_names: C names.
        about: JSON values kept beside the model, such as its config.

    Raises:
        DataError: If the folder cannot be written or the disk is full.
    """
    write_saved_model(
        _Server(model), folder, task=DETECT, class_names=class_names, about=about, also=(DETECT,)
    )


class BoxPredictor(Saved):
    """A loaded SavedModel of `export_detector`, which says what it gives when called with images.

    Args:
        folder: The SavedModel's folder.

    Attributes:
        class_names: C names.
        image_shape: `(height, width, channels)` of the images that it takes.

    Raises:
        ModelError: If it is none, or cannot be loaded.
    """

    task = DETECT
