"""What all SavedModels of this project have in common: how they are asked, written and loaded.

Shapes: B batch, N images.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tfgraphreg.compat import keras, tf
from tfgraphreg.data.decoding import BadImage, decode_image, decode_whole, resize_whole
from tfgraphreg.data.decoding_graph import decode_in_graph
from tfgraphreg.errors import DataError, ModelError, first_line
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

CLASSIFY, SEGMENT, DETECT = "classify", "segment", "detect"
_SEAL = "digest"
_LOADERS = {
    CLASSIFY: "tfgraphreg.Predictor",
    SEGMENT: "tfgraphreg.MaskPredictor",
    DETECT: "tfgraphreg.BoxPredictor",
}


class Server(tf.Module):
    """The two ways to ask an exported model: with pixels, and with files.

    A subclass says in `_network` what is answered.
    """

    def __init__(self, model: keras.Model):
        super().__init__()
        # The variables alone: of a Keras model as attribute, TensorFlow would trace and write a
        # function for every layer, which nobody calls and which takes most of the time.
        self.weights = model.weights
        self._infer = lambda image: model(image, training=False)
        self.shape = tuple(model.input_shape[1:])
        pixels = tf.TensorSpec([None, *self.shape], tf.uint8, name="image")
        encoded = tf.TensorSpec([None], tf.string, name="encoded_image")
        # Traced once for both signatures; converters to other formats take it as it is.
        self.network = tf.function(self._network, input_signature=[pixels])
        self.raw = tf.function(self._raw, input_signature=[pixels])
        self.encoded = tf.function(self._encoded, input_signature=[encoded])

    def _network(self, image):
        """Answers by name, each of B rows, for `[B, height, width, channels]` uint8, B >= 1."""
        raise NotImplementedError

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


def write_saved_model(
    server: Server,
    folder: os.PathLike[str] | str,
    *,
    task: str,
    class_names: Sequence[str],
    about: dict[str, Any] | None,
    also: tuple[str, ...] = (),
) -> None:
    """Writes a SavedModel with sealed meta beside it; it appears whole or not at all.

    Args:
        server: What is saved.
        folder: Replaced if it exists.
        task: What it answers.
        class_names: Names of the classes.
        about: JSON values kept beside the model.
        also: Further names of the signature `serving_default`.

    Raises:
        DataError: If the folder cannot be written or the disk is full.
    """
    raw = server.raw.get_concrete_function()
    signatures = {
        **dict.fromkeys(("serving_default", *also), raw),
        "serving_encoded": server.encoded.get_concrete_function(),
    }
    meta = {
        **(about or {}),
        "task": task,
        "class_names": list(class_names),
        "image_shape": list(server.shape),
    }
    with atomic_folder(folder) as part:
        try:
            tf.saved_model.save(server, str(part), signatures=signatures)
        except tf.errors.ResourceExhaustedError as error:
            raise OSError(28, "No space left on device") from error
        meta["files"] = _digests(part)
        write_json(part / META, {**meta, _SEAL: fingerprint(plain(meta))})


class Saved:
    """A loaded SavedModel. A subclass says by `task` which ones it takes.

    Attributes:
        folder: The SavedModel's folder.
        meta: What was kept beside it.
        class_names: Names of the classes.
        image_shape: `(height, width, channels)` of the images that it takes.
    """

    task = CLASSIFY

    def __init__(self, folder: os.PathLike[str] | str):
        self.folder = pathlib.Path(folder)
        _check_there(self.folder)
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
        self.meta = _read_meta(folder / META)
        task = self.meta.get("task", CLASSIFY)
        if task != self.task:
            raise ModelError(
                f"The SavedModel is not of the task {self.task}.",
                received=f"{self.folder}, of the task {task}",
                cure=f"Load it with {_LOADERS[task]}." if task in _LOADERS else None,
            )
        digests = _digests(folder)
        if self.meta.get("files", digests) != digests:
            raise ValueError("its files are not as they were written")
        self._loaded = tf.saved_model.load(str(folder))
        self.class_names = tuple(self.meta["class_names"])
        self.image_shape = tuple(self.meta["image_shape"])
        self._raw = self._loaded.signatures["serving_default"]
        self._encoded = self._loaded.signatures["serving_encoded"]
        takes = tuple(self._raw.structured_input_signature[1]["image"].shape[1:])
        if takes != self.image_shape:
            raise ValueError(
                f"{META} names images of shape {list(self.image_shape)}, the network takes "
                f"{list(takes)}"
            )

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.image_shape))
        name, classes = type(self).__name__, len(self.class_names)
        return f"{name}({str(self.folder)!r}: images of {size}, {classes} classes)"

    def __call__(
        self, images: np.ndarray, *, batch_size: int = 256, progress: Any = None
    ) -> dict[str, np.ndarray]:
        """What the model answers for raw uint8 images, by name, each of N rows.

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
        """The same of N JPEG or PNG files.

        The exported model decodes them itself, as it does where only TensorFlow is installed.

        Raises:
            DataError: If one of them cannot be decoded.
        """
        try:
            found = self._encoded(encoded_image=tf.constant(list(contents), tf.string))
        except tf.errors.OpError as error:
            raise DataError(f"An image cannot be decoded ({first_line(error)}).") from None
        return {name: values.numpy() for name, values in found.items()}

    def read(self, path: os.PathLike[str] | str) -> np.ndarray:
        """An image file as the model takes it, `[height, width, channels]` uint8.

        Raises:
            DataError: If it is no usable image.
        """
        height, width, channels = self.image_shape
        with _bad_image_named(path):
            return decode_image(path, (height, width), channels)

    def read_whole(self, path: os.PathLike[str] | str) -> np.ndarray:
        """An image file at its own size, `[H, W, 1 or 3]` uint8, gray or in color as it is.

        Raises:
            DataError: If it is no usable image.
        """
        with _bad_image_named(path):
            return decode_whole(path)

    def resized(self, image: np.ndarray) -> np.ndarray:
        """One image of any size as the model takes it, `[height, width, channels]` uint8.

        Args:
            image: `[H, W, 1 or 3]` uint8, such as `read_whole` gives.

        Raises:
            DataError: If it is no such array.
        """
        image = np.asarray(image)
        known = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] in (1, 3)
        if not (known and image.size):
            raise DataError(
                "An image must be uint8 of shape [height, width, 1 or 3].",
                received=f"{image.dtype} of shape {list(image.shape)}",
            )
        height, width, channels = self.image_shape
        return resize_whole(image, (height, width), channels)


def exported_task(folder: os.PathLike[str] | str) -> str:
    """The task of the SavedModel in a folder; that of classifiers if it does not say any.

    Raises:
        ModelError: If there is no SavedModel.
    """
    _check_there(pathlib.Path(folder))
    try:
        task = read_json(pathlib.Path(folder) / META).get("task", CLASSIFY)
    except (OSError, ValueError):
        return CLASSIFY
    return task if isinstance(task, str) and task in _LOADERS else CLASSIFY


def _check_there(folder: pathlib.Path) -> None:
    if not (folder / "saved_model.pb").exists():
        raise ModelError(
            "There is no SavedModel in this folder.",
            received=str(folder),
            cure="Name a folder under saved_models/ that a training run made.",
        )


@contextlib.contextmanager
def _bad_image_named(path: os.PathLike[str] | str) -> Iterator[None]:
    """Turns what is wrong with an image into an error that names its file."""
    try:
        with warnings.catch_warnings():
            # Pillow warns about odd tags and palettes; what matters it raises.
            warnings.simplefilter("ignore")
            yield
    except BadImage as error:
        raise DataError(f"{path} {error}.") from error


def _digests(folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of the files that decide a model's answers."""
    files = [folder / "saved_model.pb", *sorted((folder / "variables").glob("*"))]
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files}


def _read_meta(path: pathlib.Path) -> dict[str, Any]:
    """What was kept beside a model; a ValueError if it is anything else."""
    meta = read_json(path)
    for name, kind in (("class_names", str), ("image_shape", int)):
        values = meta.get(name)
        if not isinstance(values, list) or not all(isinstance(v, kind) for v in values):
            raise ValueError(f"{META} has no list of {name}")
    seal = meta.pop(_SEAL, None)
    if seal is not None and seal != fingerprint(meta):
        raise ValueError(f"{META} is not as it was written")
    return meta
