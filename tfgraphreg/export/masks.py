"""SavedModels that give masks.

Shapes: B batch, K classes with the background, D width of the embedding, images of height H and
width W.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from tfgraphreg.compat import keras, tf
from tfgraphreg.export.saved import SEGMENT, Saved, Server, write_saved_model
from tfgraphreg.model.classifier import EMBEDDING, LOGITS


class _Server(Server):
    def _network(self, image):
        outputs = self._infer(image)
        scores = tf.nn.softmax(outputs[LOGITS])
        return {
            "masks": tf.cast(tf.argmax(scores, -1), tf.uint8),
            "probabilities": scores,
            "embedding": outputs[EMBEDDING],
        }


def export_segmenter(
    model: keras.Model,
    folder: os.PathLike[str] | str,
    *,
    class_names: Sequence[str],
    about: dict[str, Any] | None = None,
) -> None:
    """Writes a SavedModel that TensorFlow alone can load and serve.

    Its signatures: `serving_default` takes `image`, raw uint8 `[B, H, W, channels]` for any B;
    `serving_encoded` takes `encoded_image`, `[B]` JPEG or PNG files, which are decoded and resized.
    Both give `masks` `[B, H, W]` uint8, 0 for the background and 1 + class number; `probabilities`
    `[B, H, W, K]`; and `embedding` `[B, D]`. The folder appears whole or not at all.

    Args:
        model: Of `build_segmenter`.
        folder: Replaced if it exists.
        class_names: K - 1 names, without the background.
        about: JSON values kept beside the model, such as its config.

    Raises:
        DataError: If the folder cannot be written or the disk is full.
    """
    write_saved_model(_Server(model), folder, task=SEGMENT, class_names=class_names, about=about)


class MaskPredictor(Saved):
    """A loaded SavedModel of `export_segmenter`, which says what it gives when called with images.

    Args:
        folder: The SavedModel's folder.

    Attributes:
        class_names: K - 1 names: that of mask value v is `class_names[v - 1]`.
        image_shape: `(H, W, channels)` of the images that it takes.

    Raises:
        ModelError: If it is none, or cannot be loaded.
    """

    task = SEGMENT
