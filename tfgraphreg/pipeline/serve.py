"""From a trained model to a SavedModel that gives the same answers, and those answers in words."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfgraphreg.data.dataset import Dataset
from tfgraphreg.errors import ConfigError, ModelError
from tfgraphreg.export import Prediction, Predictor, export
from tfgraphreg.model.classifier import infer
from tfgraphreg.pipeline.runs import RunFolder, finished_metrics, read_run
from tfgraphreg.pipeline.terminal import say

_TOLERANCE = 1e-5
# No power of two and not the training batch: a batch size must not have been baked in.
_CHECKED = 37


def export_and_check(run: RunFolder, model: Any, dataset: Dataset) -> float:
    """Writes the run's SavedModel, loads it again and compares it with the live model.

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
    live = infer(model, images, multilabel=dataset.multilabel)
    served = Predictor(run.export_path)(images, batch_size=max(len(images), 1))
    gap = float(np.abs(live["probabilities"] - served["probabilities"]).max(initial=0.0))
    limit = _TOLERANCE if run.config.precision == "float32" else 1e-2
    if not gap <= limit:
        raise ModelError(
            f"The exported model differs from the trained one by {gap:.2g}, more than {limit:g}.",
            cure="Please report this together with the run's config.json.",
        )
    say(f"Exported: {run.export_path}, loaded again; probabilities agree to {gap:.1e}")
    return gap


def model_folder(run_dir: str | None, model_dir: str | None) -> pathlib.Path:
    """The SavedModel that a user means: of a run, a folder, or the newest there is.

    Raises:
        ConfigError: If both a run and a folder are named.
        ModelError: If there is none.
        RunError: If the run is none, or unfinished.
    """
    if run_dir and model_dir:
        raise ConfigError(
            "`--run` and `--model` both name the model to ask.",
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
            cure="Train one with scripts/train.py, or name one with --model or --run.",
        )
    return found[-1].parent


def predict(
    paths: Sequence[str], *, run_dir: str | None, model_dir: str | None, top: int
) -> list[Prediction]:
    """Classifies image files and prints a line each."""
    folder = model_folder(run_dir, model_dir)
    predictor = Predictor(folder)
    say(f"Model: {folder}")
    predictions = predictor.predict_files(paths, top=top)
    for prediction in predictions:
        if prediction.error:
            say(f"{prediction.name}: error: {prediction.error}")
        else:
            words = ", ".join(f"{name} {score:.1%}" for name, score in prediction.classes)
            say(f"{prediction.name}: {words}")
    return predictions
