"""SavedModels that give boxes.

Shapes: B batch, N rows of an image, C classes, D width of the embedding.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfgraphreg.compat import keras, tf
from tfgraphreg.data.decoding_graph import decode_in_graph
from tfgraphreg.errors import DataError, ModelError, first_line
from tfgraphreg.export import read_saved_model, write_saved_model
from tfgraphreg.model.detector import detections
from tfgraphreg.storage import steady_folder

TASK = "detect"


class _Server(tf.Module):
    """The ways to ask an exported detector: with pixels and with files."""

    def __init__(self, model: keras.Model):
        super().__init__()
        # See `tfgraphreg.export`: the variables alone keep the file small.
        self.weights = model.weights
        self._infer = lambda image: model(image, training=False)
        self.shape = tuple(model.input_shape[1:])
        pixels = tf.TensorSpec([None, *self.shape], tf.uint8, name="image")
        encoded = tf.TensorSpec([None], tf.string, name="encoded_image")
        self.raw = tf.function(self._raw, input_signature=[pixels])
        self.encoded = tf.function(self._encoded, input_signature=[encoded])

    def _raw(self, image):
        # A signature does not check shapes itself, and not every layer takes an empty batch.
        image = tf.ensure_shape(image, [None, *self.shape])
        count = tf.shape(image)[0]
        image = tf.pad(image, [[0, tf.maximum(1 - count, 0)], [0, 0], [0, 0], [0, 0]])
        found = detections(self._infer(image), self.shape)
        return {name: values[:count] for name, values in found.items()}

    def _encoded(self, encoded_image):
        images = tf.map_fn(
            lambda content: decode_in_graph(content, self.shape),
            encoded_image,
            fn_output_signature=tf.TensorSpec(self.shape, tf.uint8),
        )
        return self._raw(images)


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
    server = _Server(model)
    raw = server.raw.get_concrete_function()
    signatures = {
        TASK: raw,
        "serving_default": raw,
        "serving_encoded": server.encoded.get_concrete_function(),
    }
    meta = {
        **(about or {}),
        "task": TASK,
        "class_names": list(class_names),
        "image_shape": list(server.shape),
    }
    write_saved_model(server, signatures, folder, meta)


class BoxPredictor:
    """A loaded SavedModel of `export_detector`.

    Args:
        folder: The SavedModel's folder.

    Attributes:
        class_names: C names.
        image_shape: `(height, width, channels)` of the images that it takes.

    Raises:
        ModelError: If it is none, or cannot be loaded.
    """

    def __init__(self, folder: os.PathLike[str] | str):
        self.folder = pathlib.Path(folder)
        try:
            with steady_folder(self.folder) as steady:
                meta, self._loaded = read_saved_model(steady)
                if meta.get("task") != TASK:
                    raise ValueError("it gives no boxes")
                self._raw = self._loaded.signatures[TASK]
                self._encoded = self._loaded.signatures["serving_encoded"]
        # TensorFlow reports damage by errors of many types.
        except Exception as error:
            raise ModelError(
                f"The SavedModel in {folder} cannot be loaded ({first_line(error)}).",
                cure="Export it again: train its run once more with `resume=True`.",
            ) from error
        self.class_names = tuple(meta["class_names"])
        self.image_shape = tuple(meta["image_shape"])

    def __call__(
        self, images: np.ndarray, *, batch_size: int = 100, progress: Any = None
    ) -> dict[str, np.ndarray]:
        """What `export_detector` says, for raw uint8 images.

        Args:
            images: `[N, height, width, channels]` uint8, or anything that a slice indexes.
            batch_size: Images in one call of the model.
            progress: Called with the number of images done after each batch.

        Raises:
            DataError: If shape or type are not what the model takes.
        """
        if tuple(images.shape[1:]) != self.image_shape or images.dtype != np.uint8:
            raise DataError(
                f"This model takes uint8 images of shape {list(self.image_shape)}.",
                received=f"{images.dtype} images of shape {list(images.shape[1:])}",
            )
        parts = []
        for start in range(0, max(len(images), 1), batch_size):
            batch = np.ascontiguousarray(images[start : start + batch_size])
            parts.append(self._raw(image=tf.constant(batch)))
            if progress:
                progress(min(start + batch_size, len(images)))
        return {k: np.concatenate([p[k].numpy() for p in parts]) for k in parts[0]}

    def ask_encoded(self, contents: Sequence[bytes]) -> dict[str, np.ndarray]:
        """The same of JPEG or PNG files, which the exported model decodes itself.

        Raises:
            DataError: If one of them cannot be decoded.
        """
        try:
            found = self._encoded(encoded_image=tf.constant(list(contents), tf.string))
        except tf.errors.OpError as error:
            raise DataError(f"An image cannot be decoded ({first_line(error)}).") from None
        return {name: values.numpy() for name, values in found.items()}
