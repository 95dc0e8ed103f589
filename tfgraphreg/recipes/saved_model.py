"""From a trained model to a SavedModel that gives the same answers."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np

from tfgraphreg.compat import tf
from tfgraphreg.data.dataset import Dataset
from tfgraphreg.data.decoding import decode_image
from tfgraphreg.errors import ModelError
from tfgraphreg.export import Predictor, export
from tfgraphreg.model.classifier import infer
from tfgraphreg.runs.folder import RunFolder

logger = logging.getLogger(__name__)

_TOLERANCE = 1e-5
# No power of two and not the training batch: a batch size must not have been baked in.
_CHECKED = 37
# Of these, files are made too, for the signature that takes files.
_FILES = 6


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Multiplies float32 numbers with all their bits, while answers are compared.

    A GPU may round them to TensorFloat-32, of 10 bits, and not alike in two programs of one model.
    """
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


@full_float32()
def export_and_check(run: RunFolder, model: Any, dataset: Dataset) -> float:
    """Writes the run's SavedModel, loads it again and compares it with the live model.

    It is asked with pixels, and with JPEG and PNG files made from the same test images.

    Returns:
        The largest difference between probabilities.

    Raises:
        ModelError: If it is above 1e-5.
    """
    config = dataclasses.asdict(run.config)
    export(
        model,
        run.export_path,
        class_names=dataset.class_names,
        multilabel=dataset.multilabel,
        about={"run": run.name, "config": config},
    )
    images = np.asarray(dataset.test.images[:_CHECKED])
    files = _image_files(images[:_FILES])
    shape = dataset.image_shape
    decoded = np.stack([decode_image(content, shape[:2], shape[2]) for content in files])
    live = infer(model, np.concatenate([images, decoded]), multilabel=dataset.multilabel)
    predictor = Predictor(run.export_path)
    served = [predictor(images, batch_size=len(images)), predictor.ask_encoded(files)]
    answers = np.concatenate([part["probabilities"] for part in served])
    gap = float(np.abs(live["probabilities"] - answers).max())
    check_gap(run, gap, _TOLERANCE)
    return gap


def allowed_gap(run: RunFolder, tolerance: float) -> float:
    """How far answers may lie apart: the tolerance, with mixed precision 0.01."""
    return tolerance if run.config.precision in (None, "float32") else 1e-2


def check_gap(run: RunFolder, gap: float, tolerance: float, what: str = "probabilities") -> None:
    """Compares the difference between the exported and the live model with what is allowed.

    Raises:
        ModelError: If it is above `allowed_gap`.
    """
    limit = allowed_gap(run, tolerance)
    if not gap <= limit:
        raise ModelError(
            f"The exported model differs from the trained one by {gap:.2g}, more than {limit:g}.",
            cure="Please report this together with the run's config.json.",
        )
    logger.info(f"Exported: {run.export_path}, loaded again; {what} agree to {gap:.1e}")


def _image_files(images: np.ndarray) -> list[bytes]:
    """JPEG and PNG files of images, of other sizes than the model's, in color and in gray."""
    from PIL import Image

    files = []
    for number, pixels in enumerate(images):
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        image = image.convert("RGB" if number % 2 else "L")
        image = image.resize((image.width * (number + 1) // 2 + 1, image.height + 5 * number))
        content = io.BytesIO()
        image.save(content, "PNG" if number % 3 == 2 else "JPEG")
        files.append(content.getvalue())
    return files
