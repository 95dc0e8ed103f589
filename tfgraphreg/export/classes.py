"""SavedModels that give the class of an image, and its embedding.

Shapes: B batch, N images, C classes, D width of the embedding.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tfgraphreg.compat import keras
from tfgraphreg.errors import DataError, ModelError
from tfgraphreg.export.saved import CLASSIFY, META, Saved, Server, write_saved_model
from tfgraphreg.model.classifier import EMBEDDING, LOGITS, probabilities


class _Server(Server):
    def __init__(self, model: keras.Model, *, multilabel: bool):
        self.multilabel = multilabel
        super().__init__(model)

    def _network(self, image):
        outputs = self._infer(image)
        scores = probabilities(outputs[LOGITS], multilabel=self.multilabel)
        return {"probabilities": scores, "embedding": outputs[EMBEDDING]}


def export(
    model: keras.Model,
    folder: os.PathLike[str] | str,
    *,
    class_names: Sequence[str],
    multilabel: bool = False,
    about: dict[str, Any] | None = None,
) -> None:
    """Writes a SavedModel that TensorFlow alone can load and serve.

    Its signatures: `serving_default` takes `image`, raw uint8 `[B, height, width, channels]`
    for any B; `serving_encoded` takes `encoded_image`, `[B]` JPEG or PNG files, which are
    decoded and resized to the pixels that training saw. Both give `probabilities` `[B, C]` and
    `embedding` `[B, D]`. Neighbors take no part. The folder appears whole or not at all.

    Args:
        model: Of `build_classifier`.
        folder: Replaced if it exists.
        class_names: C names.
        multilabel: Whether probabilities are a sigmoid for each class.
        about: JSON values kept beside the model, such as its config.

    Raises:
        DataError: If the folder cannot be written or the disk is full.
    """
    about = {**(about or {}), "multilabel": multilabel}
    server = _Server(model, multilabel=multilabel)
    write_saved_model(server, folder, task=CLASSIFY, class_names=class_names, about=about)


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model says of one image.

    Attributes:
        name: The file, or the number of the image.
        classes: `(class name, probability)`, the most probable first.
        error: Why there is none, or None.
    """

    name: str
    classes: tuple[tuple[str, float], ...] = ()
    error: str | None = None


class Predictor(Saved):
    """A loaded SavedModel of `export`.

    Called with images, it gives `probabilities` `[N, C]` and `embedding` `[N, D]`.

    Args:
        folder: The SavedModel's folder.

    Raises:
        ModelError: If it is no SavedModel that this project exported, or cannot be loaded.
    """

    def _load(self, folder: pathlib.Path) -> None:
        super()._load(folder)
        gives = self._raw.structured_outputs["probabilities"].shape[-1]
        if gives != len(self.class_names):
            raise ValueError(
                f"{META} names {len(self.class_names)} classes, the network has {gives}"
            )

    @property
    def network(self) -> tuple[Any, Any]:
        """The function from images to answers, and what holds its weights, for converters.

        Raises:
            ModelError: If an earlier version exported the model.
        """
        if not hasattr(self._loaded, "network"):
            raise ModelError(
                f"The SavedModel in {self.folder} is of an earlier version and cannot be "
                "converted to other formats.",
                cure="Export it again: delete its metrics.json, and train with `resume=True`.",
            )
        return self._loaded.network, self._loaded

    @property
    def embedding_dim(self) -> int:
        """D, the width of the embedding."""
        return int(self._raw.structured_outputs["embedding"].shape[-1])

    def ask(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """`probabilities` `[C]` and `embedding` `[D]` of one image that `read` gave."""
        return {name: values[0] for name, values in self(image[None]).items()}

    def predict_files(
        self, paths: Iterable[os.PathLike[str] | str], *, top: int = 3
    ) -> list[Prediction]:
        """Classifies image files; one that is no image gets its error instead."""
        return [self._predict_file(pathlib.Path(path), top) for path in paths]

    def embed_files(self, paths: Sequence[os.PathLike[str] | str]) -> np.ndarray:
        """Embeddings `[N, D]` of image files.

        Raises:
            DataError: Of the first file that is no usable image.
        """
        shape = (len(paths), *self.image_shape)
        images = np.array([self.read(path) for path in paths], np.uint8).reshape(shape)
        return self(images)["embedding"]

    def _predict_file(self, path: pathlib.Path, top: int) -> Prediction:
        try:
            scores = self.ask(self.read(path))["probabilities"]
        except DataError as error:
            return Prediction(str(path), error=str(error))
        best = np.argsort(-scores, kind="stable")[:top]
        return Prediction(str(path), tuple((self.class_names[i], float(scores[i])) for i in best))
