"""From a trained model to a SavedModel that gives the same answers, and those answers in words."""

from __future__ import annotations

import dataclasses
import io
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfgraphreg.data.dataset import Dataset
from tfgraphreg.data.decoding import decode_image
from tfgraphreg.errors import ConfigError, ModelError
from tfgraphreg.export import Prediction, Predictor, export
from tfgraphreg.model.classifier import infer
from tfgraphreg.runs.folder import RunFolder, finished_metrics, read_run

logger = logging.getLogger(__name__)

_TOLERANCE = 1e-5
# No power of two and not the training batch: a batch size must not have been baked in.
_CHECKED = 37
# Of these, files are made too, for the signature that takes files.
_FILES = 6


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


def check_gap(run: RunFolder, gap: float, tolerance: float, what: str = "probabilities") -> None:
    """Compares the difference between the exported and the live model with what is allowed.

    Raises:
        ModelError: If it is above `tolerance`, or with mixed precision above 0.01.
    """
    limit = tolerance if run.config.precision == "float32" else 1e-2
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


def model_folder(run_dir: str | None, model_dir: str | None) -> pathlib.Path:
    """The SavedModel that a user means: of a run, a folder, or the newest there is.

    Raises:
        ConfigError: If both a run and a folder are named.
        ModelError: If there is none.
        RunError: If the run is none, or unfinished.
    """
    if run_dir and model_dir:
        raise ConfigError(
            "`run` and `model` both name the model to ask.",
            received=f"run={run_dir}, model={model_dir}",
            cure="Give one of them.",
        )
    if model_dir:
        return pathlib.Path(model_dir)
    if run_dir:
        run = read_run(run_dir)
        finished_metrics(run)
        return run.export_path
    found = sorted(
        pathlib.Path("saved_models").glob("*/saved_model.pb"), key=lambda p: p.stat().st_mtime
    )
    if not found:
        raise ModelError(
            "There is no SavedModel under saved_models/.",
            cure="Train one, or name one with `model` or `run`.",
        )
    return found[-1].parent


def predict(
    paths: Sequence[str], *, run_dir: str | None, model_dir: str | None, top: int
) -> list[Prediction]:
    """Classifies image files; a file that is no usable image has its `error` set."""
    folder = model_folder(run_dir, model_dir)
    predictor = Predictor(folder)
    logger.info(f"Model: {folder}")
    return predictor.predict_files(paths, top=top)
