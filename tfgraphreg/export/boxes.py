"""SavedModels that give boxes.

Shapes: B batch, N rows of an image, C classes, D width of the embedding.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tfgraphreg.compat import keras
from tfgraphreg.errors import DataError
from tfgraphreg.evaluation.average_precision import SURE
from tfgraphreg.export.saved import DETECT, Saved, Server, write_saved_model
from tfgraphreg.model.classifier import EMBEDDING
from tfgraphreg.model.detector import BOXES, CLASSES, COUNT, SCORES, detections


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


@dataclasses.dataclass(frozen=True)
class Detection:
    """An object that was found.

    Attributes:
        class_name: Its class.
        score: Its probability, 0 to 1.
        box: `(x_min, y_min, x_max, y_max)`: edges, in pixels of the file as it is stored.
    """

    class_name: str
    score: float
    box: tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class BoxPrediction:
    """What a detector finds in one image.

    Attributes:
        name: The file.
        detections: The best first.
        size: `(height, width)` of the file in pixels.
        error: Why there is none, or None.
    """

    name: str
    detections: tuple[Detection, ...] = ()
    size: tuple[int, int] = (0, 0)
    error: str | None = None


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

    @property
    def embedding_dim(self) -> int:
        """D, the width of the embedding."""
        return int(self._raw.structured_outputs[EMBEDDING].shape[-1])

    def find(self, image: np.ndarray, *, least_score: float = SURE) -> tuple[Detection, ...]:
        """The objects in one image of any size, the best first, in its own pixels.

        Args:
            image: `[H, W, 1 or 3]` uint8, such as `read_whole` gives.
            least_score: From 0 to 1; what has a lower score is left out.

        Raises:
            DataError: If it is no such array.
        """
        height, width = self.image_shape[:2]
        answer = self(self.resized(image)[None])
        edges = np.array([image.shape[1] / width, image.shape[0] / height] * 2)
        rows = int(answer[COUNT][0])
        parts = (answer[name][0, :rows] for name in (BOXES, CLASSES, SCORES))
        return tuple(
            Detection(self.class_names[number], float(score), tuple((box * edges).tolist()))
            for box, number, score in zip(*parts)
            if score >= least_score
        )

    def predict_files(
        self, paths: Iterable[os.PathLike[str] | str], *, least_score: float = SURE
    ) -> Iterator[BoxPrediction]:
        """Finds objects in image files, one after the other as they are asked for.

        One that is no image gets its error instead.
        """
        for path in paths:
            try:
                image = self.read_whole(path)
            except DataError as error:
                yield BoxPrediction(str(path), error=str(error))
            else:
                found = self.find(image, least_score=least_score)
                yield BoxPrediction(str(path), found, (image.shape[0], image.shape[1]))
