"""SavedModels out, predictions in."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tfgraphreg.compat import keras, tf
from tfgraphreg.data.decoding import BadImage, decode_image
from tfgraphreg.data.decoding_graph import decode_in_graph
from tfgraphreg.errors import DataError, ModelError, first_line
from tfgraphreg.model.classifier import EMBEDDING, LOGITS, probabilities
from tfgraphreg.reading import read_json
from tfgraphreg.storage import EXPORT_META as META
from tfgraphreg.storage import (
    atomic_folder,
    file_digest,
    fingerprint,
    plain,
    steady_folder,
    write_json,
)

_SEAL = "digest"


class _Server(tf.Module):
    """The two ways to ask an exported model: with pixels, and with files."""

    def __init__(self, model: keras.Model, *, multilabel: bool):
        super().__init__()
        # The variables alone: of a Keras model as attribute, TensorFlow would trace and write a
        # function for every layer, which nobody calls and which takes most of the time.
        self.weights = model.weights
        self._infer = lambda image: model(image, training=False)
        self.multilabel = multilabel
        self.shape = tuple(model.input_shape[1:])
        pixels = tf.TensorSpec([None, *self.shape], tf.uint8, name="image")
        encoded = tf.TensorSpec([None], tf.string, name="encoded_image")
        # Traced once for both signatures; converters to other formats take it as it is.
        self.network = tf.function(self._network, input_signature=[pixels])
        self.raw = tf.function(self._raw, input_signature=[pixels])
        self.encoded = tf.function(self._encoded, input_signature=[encoded])

    def _network(self, image):
        outputs = self._infer(image)
        scores = probabilities(outputs[LOGITS], multilabel=self.multilabel)
        return {"probabilities": scores, "embedding": outputs[EMBEDDING]}

    def _raw(self, image):
        # A signature does not check shapes itself: a wrong one gives an answer or kills the
        # process. Nor does every layer take an empty batch, so one image is added to it.
        image = tf.ensure_shape(image, [None, *self.shape])
        count = tf.shape(image)[0]
        image = tf.pad(image, [[0, tf.maximum(1 - count, 0)], [0, 0], [0, 0], [0, 0]])
        return {name: values[:count] for name, values in self.network(image).items()}

    def _encoded(self, encoded_image):
        images = tf.map_fn(
            lambda content: decode_in_graph(content, self.shape),
            encoded_image,
            fn_output_signature=tf.TensorSpec(self.shape, tf.uint8),
        )
        return self._raw(images)


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
    server = _Server(model, multilabel=multilabel)
    signatures = {
        "serving_default": server.raw.get_concrete_function(),
        "serving_encoded": server.encoded.get_concrete_function(),
    }
    meta = {
        **(about or {}),
        "class_names": list(class_names),
        "image_shape": list(server.shape),
        "multilabel": multilabel,
    }
    write_saved_model(server, signatures, folder, meta)


def write_saved_model(
    server: tf.Module, signatures: Any, folder: os.PathLike[str] | str, meta: dict[str, Any]
) -> None:
    """Writes a SavedModel with sealed `meta` beside it; it appears whole or not at all.

    Raises:
        DataError: If the folder cannot be written or the disk is full.
    """
    with atomic_folder(folder) as part:
        try:
            tf.saved_model.save(server, str(part), signatures=signatures)
        except tf.errors.ResourceExhaustedError as error:
            raise OSError(28, "No space left on device") from error
        meta = {**meta, "files": _digests(part)}
        write_json(part / META, {**meta, _SEAL: fingerprint(plain(meta))})


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


class Predictor:
    """A loaded SavedModel of `export`.

    Args:
        folder: The SavedModel's folder.

    Raises:
        ModelError: If it is no SavedModel that this project exported, or cannot be loaded.
    """

    def __init__(self, folder: os.PathLike[str] | str):
        self.folder = pathlib.Path(folder)
        if not (self.folder / "saved_model.pb").exists():
            raise ModelError(
                "There is no SavedModel in this folder.",
                received=str(folder),
                cure="Name a folder under saved_models/ that a training run made.",
            )
        try:
            with steady_folder(self.folder) as steady:
                self._load(steady)
        except ModelError:
            raise
        # TensorFlow reports a truncated data file by an IndexError, other damage by other errors of
        # its own and of protobuf's.
        except Exception as error:
            raise ModelError(
                f"The SavedModel in {folder} cannot be loaded ({first_line(error)}).",
                cure="Export it again: train its run once more with `resume=True`.",
            ) from error

    def _load(self, folder: pathlib.Path) -> None:
        self.meta, self._loaded = read_saved_model(folder)
        if self.meta.get("task", "classify") != "classify":
            raise ModelError(
                "The SavedModel gives no classes of whole images.",
                received=f"{self.folder}, of the task {self.meta['task']}",
                cure="Ask it with tfgraphreg.MaskPredictor or tfgraphreg.BoxPredictor, or name a "
                "classifier.",
            )
        self.class_names = tuple(self.meta["class_names"])
        self.image_shape = tuple(self.meta["image_shape"])
        self._raw = self._loaded.signatures["serving_default"]
        self._encoded = self._loaded.signatures["serving_encoded"]
        takes = tuple(self._raw.structured_input_signature[1]["image"].shape[1:])
        gives = self._raw.structured_outputs["probabilities"].shape[-1]
        if (takes, gives) != (self.image_shape, len(self.class_names)):
            raise ValueError(
                f"{META} names {len(self.class_names)} classes and images of shape "
                f"{list(self.image_shape)}, the network has {gives} and {list(takes)}"
            )

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.image_shape))
        return f"Predictor({str(self.folder)!r}: images of {size}, {len(self.class_names)} classes)"

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

    def __call__(
        self, images: np.ndarray, *, batch_size: int = 256, progress: Any = None
    ) -> dict[str, np.ndarray]:
        """Probabilities `[N, C]` and embeddings `[N, D]` of raw uint8 images.

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

    def read(self, path: os.PathLike[str] | str) -> np.ndarray:
        """An image file as the model takes it, `[height, width, channels]` uint8.

        Raises:
            DataError: If it is no usable image.
        """
        height, width, channels = self.image_shape
        try:
            with warnings.catch_warnings():
                # Pillow warns about odd tags and palettes; what matters it raises.
                warnings.simplefilter("ignore")
                return decode_image(path, (height, width), channels)
        except BadImage as error:
            raise DataError(f"{path} {error}.") from error

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

    def ask_encoded(self, contents: Sequence[bytes]) -> dict[str, np.ndarray]:
        """`probabilities` `[N, C]` and `embedding` `[N, D]` of JPEG or PNG files.

        The exported model decodes them itself, as it does where only TensorFlow is installed.

        Raises:
            DataError: If one of them cannot be decoded.
        """
        try:
            found = self._encoded(encoded_image=tf.constant(list(contents), tf.string))
        except tf.errors.OpError as error:
            raise DataError(f"An image cannot be decoded ({first_line(error)}).") from None
        return {name: values.numpy() for name, values in found.items()}

    def _predict_file(self, path: pathlib.Path, top: int) -> Prediction:
        try:
            scores = self.ask(self.read(path))["probabilities"]
        except DataError as error:
            return Prediction(str(path), error=str(error))
        best = np.argsort(-scores, kind="stable")[:top]
        return Prediction(str(path), tuple((self.class_names[i], float(scores[i])) for i in best))


def read_saved_model(folder: pathlib.Path) -> tuple[dict[str, Any], Any]:
    """The meta and the loaded model of a folder of `write_saved_model`.

    Raises:
        ValueError: If a file is not as it was written; TensorFlow raises others.
    """
    meta = _read_meta(folder / META)
    digests = _digests(folder)
    if meta.get("files", digests) != digests:
        raise ValueError("its files are not as they were written")
    return meta, tf.saved_model.load(str(folder))


def _digests(folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of the files that decide a model's answers."""
    files = [folder / "saved_model.pb", *sorted((folder / "variables").glob("*"))]
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files}


def _read_meta(path: pathlib.Path) -> dict[str, Any]:
    """What `export` wrote about a model; a ValueError if it is anything else."""
    meta = read_json(path)
    for name, kind in (("class_names", str), ("image_shape", int)):
        values = meta.get(name)
        if not isinstance(values, list) or not all(isinstance(v, kind) for v in values):
            raise ValueError(f"{META} has no list of {name}")
    seal = meta.pop(_SEAL, None)
    if seal is not None and seal != fingerprint(meta):
        raise ValueError(f"{META} is not as it was written")
    return meta
