"""What a trained or exported model is worth."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfgraphreg import storage
from tfgraphreg.data.dataset import Dataset
from tfgraphreg.evaluation.classification import classification_report
from tfgraphreg.evaluation.retrieval import retrieval_report
from tfgraphreg.pipeline.runs import RunFolder
from tfgraphreg.pipeline.terminal import progress_bars, say

_SHOWN = ("recall_at_1", "recall_at_5", "recall_at_10", "precision_at_10", "mean_average_precision")


def measure(
    model: Any, dataset: Dataset, true_labels: np.ndarray, distance: str, progress: Any
) -> dict[str, Any]:
    """Classification of the test images, and their retrieval among the training images.

    Args:
        model: A classifier (see `tfgraphreg.model.classifier`) or a `Predictor`.
        dataset: Its test split is asked, its training split is searched.
        true_labels: Labels of the training images, also of those trained on without.
        distance: By which the embedding is searched.
        progress: Called with (what, done, total).

    Returns:
        The values of metrics.json that depend on the model.
    """
    test = dataset.test
    outputs = _embed(model, test.images, dataset.multilabel, "embedding test images", progress)
    found = _classification(dataset, outputs["probabilities"])
    train = _embed(
        model, dataset.train.images, dataset.multilabel, "embedding training images", progress
    )
    retrieved = retrieval_report(
        outputs["embedding"],
        test.labels,
        train["embedding"],
        true_labels,
        distance=distance,
        progress=lambda done, total: progress("searching", done, total),
    )
    found.update({name: retrieved[name] for name in _SHOWN})
    found["retrieval_distance"] = distance
    return found


def _embed(model: Any, images: Any, multilabel: bool, what: str, progress: Any) -> dict:
    def tell(done: int, *_: int) -> None:
        progress(what, done, len(images))

    from tfgraphreg.export import Predictor

    if isinstance(model, Predictor):
        return model(images, progress=tell)
    from tfgraphreg.model.classifier import infer

    return infer(model, images, multilabel=multilabel, progress=tell)


def _classification(dataset: Dataset, probabilities: np.ndarray) -> dict[str, Any]:
    labels = dataset.test.labels
    if dataset.multilabel:
        from tfgraphreg.evaluation.multilabel import multilabel_report

        report = multilabel_report(
            labels,
            probabilities,
            dataset.class_names,
            difficult=dataset.test.extras.get("difficult"),
        )
        return {
            "test_accuracy": float(np.mean((probabilities > 0.5) == (labels > 0))),
            "test_mean_average_precision": report["mean_average_precision"],
            "classification": report,
        }
    report = classification_report(labels, probabilities, dataset.class_names)
    return {
        "test_accuracy": report["accuracy"],
        "per_class_accuracy": report["per_class_accuracy"],
        "classification": report,
    }


def evaluate_run(run: RunFolder) -> dict[str, Any]:
    """Measures a run's SavedModel again and writes evaluation.json into the run folder.

    Raises:
        ModelError: If the run has no usable SavedModel.
        DataError: If its data cannot be loaded.
    """
    from tfgraphreg.data.catalog import load
    from tfgraphreg.export import Predictor

    config = run.config
    predictor = Predictor(run.export_path)
    with progress_bars() as progress:
        dataset = load(
            config.dataset,
            data_dir=config.data_dir,
            seed=config.seed,
            validation_fraction=config.validation_fraction,
            limit=config.limit,
            image_size=config.image_size,
            on_bad_image=config.on_bad_image,
            progress=progress,
        )
        found = measure(predictor, dataset, dataset.train.labels, config.distance, progress)
    path = run.path / "evaluation.json"
    storage.write_json(path, found)
    for name in ("test_accuracy", *_SHOWN):
        say(f"{name.replace('_', ' '):<24} {found[name]:.4f}")
    say(f"All numbers: {path}")
    return found
