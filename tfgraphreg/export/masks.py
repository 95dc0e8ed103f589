"""SavedModels that give masks.

Shapes: B batch, K classes with the background, D width of the embedding, images of height H and
width W.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tfgraphreg.compat import keras, tf
from tfgraphreg.data.local import BACKGROUND_NAME
from tfgraphreg.errors import DataError
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


@dataclasses.dataclass(frozen=True)
class MaskPrediction:
    """The class of every pixel of one image.

    Attributes:
        name: The file.
        mask: `[height, width]` uint8 of the file's own size: 0 for the background, else 1 + class
            number. None if there is none.
        shares: `(class name, share of the pixels)` of the classes in it, the largest first; the
            background is one of them.
        error: Why there is none, or None.
    """

    name: str
    mask: np.ndarray | None = None
    shares: tuple[tuple[str, float], ...] = ()
    error: str | None = None


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

    @property
    def mask_names(self) -> tuple[str, ...]:
        """The K names of mask values, the background first."""
        return (BACKGROUND_NAME, *self.class_names)

    def find(self, image: np.ndarray) -> np.ndarray:
        """The mask of one image of any size, `[H, W]` uint8.

        The probabilities are enlarged to the size of the image before the likeliest class is
        taken, so outlines have no steps of the model's pixels.

        Args:
            image: `[H, W, 1 or 3]` uint8, such as `read_whole` gives.

        Raises:
            DataError: If it is no such array.
        """
        answer = self(self.resized(image)[None])
        return _likeliest(answer["probabilities"][0], image.shape[:2])

    def shares(self, mask: np.ndarray) -> tuple[tuple[str, float], ...]:
        """`(class name, share of the pixels)` of the classes in a mask, the largest first."""
        counts = np.bincount(mask.ravel(), minlength=len(self.mask_names))
        order = np.argsort(-counts, kind="stable")
        return tuple((self.mask_names[i], float(counts[i] / mask.size)) for i in order if counts[i])

    def predict_files(self, paths: Iterable[os.PathLike[str] | str]) -> Iterator[MaskPrediction]:
        """Gives the masks of image files; one that is no image gets its error instead.

        A mask is as large as its file, so each is made when it is asked for.
        """
        for path in paths:
            try:
                mask = self.find(self.read_whole(path))
            except DataError as error:
                yield MaskPrediction(str(path), error=str(error))
            else:
                yield MaskPrediction(str(path), mask, self.shares(mask))


def _likeliest(probabilities: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`[*size]` uint8: the likeliest class of each pixel, from `[h, w, K]` probabilities.

    Among equal ones the lower class number wins. One class is enlarged at a time, since those of a
    photograph may not fit in memory together.
    """
    from PIL import Image

    height, width = size
    classes = probabilities.shape[-1]
    best = np.zeros(size, np.float32)
    mask = np.zeros(size, np.uint8)
    for number in range(classes):
        values = np.ascontiguousarray(probabilities[..., number], np.float32)
        # Enlarging makes means, and the likeliest class of a pixel has at least 1/K.
        if values.max() * classes < 0.999:
            continue
        if values.shape != size:
            large = Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR)
            values = np.asarray(large)
        better = values > best
        mask[better] = number
        best[better] = values[better]
    return mask
