"""What a trained or exported model is worth, in numbers and figures."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from tfgraphreg import storage
from tfgraphreg.data.dataset import Dataset, Split
from tfgraphreg.errors import ConfigError, TFGraphRegError
from tfgraphreg.evaluation.classification import classification_report
from tfgraphreg.evaluation.retrieval import full_retrieval_report, retrieval_report
from tfgraphreg.evaluation.spread import embedding_spread, has_collapsed
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.progress import Progress, silent
from tfgraphreg.recipes.tasks import CLASSIFY, check_options, task_of
from tfgraphreg.runs.folder import EVALUATION, RunFolder, writing_results
from tfgraphreg.runs.outputs import RunOutputs, ask, load_data, run_outputs, within_budget
from tfgraphreg.settings import GIVEN

logger = logging.getLogger(__name__)

WITHIN = ("train", "test", "all")
_TAKES = {
    "distance": (CLASSIFY,),
    "within": (CLASSIFY,),
    "probes": (CLASSIFY,),
    "only_class": ("detect",),
}
_SHOWN = ("recall_at_1", "recall_at_5", "recall_at_10", "precision_at_10", "mean_average_precision")
_PROBE_ITEMS = 10_000


def measure(
    model: Any, dataset: Dataset, true_labels: np.ndarray, distance: str, progress: Any
) -> dict[str, Any]:
    """Classification of the test images, their retrieval among the training images, their spread.

    Warns if the embedding has collapsed.

    Args:
        model: A classifier (see `tfgraphreg.model.classifier`) or a `Predictor`.
        dataset: Its test split is asked, its training split is searched.
        true_labels: Labels of the training images, also of those trained on without.
        distance: By which the embedding is searched.
        progress: Called with (what, done, total).

    Returns:
        The values of metrics.json that depend on the model.
    """
    test = ask(model, dataset.test.images, dataset.multilabel, "embedding test images", progress)
    train = ask(
        model, dataset.train.images, dataset.multilabel, "embedding training images", progress
    )
    found = _classification(dataset, test["probabilities"])
    retrieved = _retrieved(retrieval_report, dataset, true_labels, train, test, distance, progress)
    return {**found, **_summary(retrieved), **_spread(dataset, test["embedding"])}


def evaluate_run(
    run: RunFolder,
    *,
    distance: str | None = None,
    within: str | None = None,
    probes: bool = False,
    only_class: str | None = None,
    figures: bool = True,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measures a run's SavedModel; writes evaluation.json and figures/ into the run folder.

    Args:
        run: The run. Of a classifier, its graph is taken, or built where it was trained without
            one.
        distance: Registered distance of the embedding; the run's own if None.
        within: Also search every image of `train`, `test` or `all` among the others of it.
        probes: Also train simple classifiers on the embedding, with three seeds, each on at
            most 10,000 random images.
        only_class: Of a run of boxes: judge this class alone, whatever class the run names.
        figures: Whether to draw.
        progress: Called while work goes on.

    Raises:
        ConfigError: If `within` is unknown, probes are asked of several labels an image, or an
            argument has no effect for the task of the run.
        UnknownNameError: If `only_class` is no class of the data.
        ModelError: If the run has no usable SavedModel.
        DataError: If its data cannot be loaded.
    """
    given = {"distance": distance, "within": within, "probes": probes, "only_class": only_class}
    check_options(run.config.task, given, _TAKES)
    if run.config.task != CLASSIFY:
        return _evaluate_parts(run, only_class, figures, progress)
    if within is not None and within not in WITHIN:
        raise ConfigError(f"`within` must be one of {', '.join(WITHIN)}.", received=within)
    distance = distance or run.config.distance
    seen = run_outputs(run, progress)
    dataset = seen.dataset
    if probes and dataset.multilabel:
        raise ConfigError("Probes need one class an image.", received=f"the dataset {dataset.name}")
    found = _classification(dataset, seen.test["probabilities"])
    retrieved = _retrieved(
        full_retrieval_report,
        dataset,
        dataset.train.labels,
        seen.train,
        seen.test,
        distance,
        progress,
    )
    found.update(_summary(retrieved), retrieval=retrieved)
    found.update(_spread(dataset, seen.test["embedding"]))
    if within:
        found["retrieval_within"] = _within(seen, within, distance, progress)
    graph = _graph(seen, progress)
    found["faithfulness"] = _faithfulness(seen, graph, distance, progress) if graph else None
    if probes:
        found["probes"] = _probes(seen, progress)

    def draw() -> None:
        from tfgraphreg.recipes.figures import draw_figures

        draw_figures(seen, found, graph, distance, progress)

    return _kept(run, found, draw if figures else None)


def _evaluate_parts(
    run: RunFolder, only_class: str | None, figures: bool, progress: Progress
) -> dict[str, Any]:
    """The same of a run of boxes or masks: the numbers of its metrics.json, measured again."""
    from tfgraphreg.export import exported_task
    from tfgraphreg.recipes.figures import save_figures

    config = run.config
    if only_class is not None:
        config = dataclasses.replace(config, only_class=only_class)
    # Without a model nothing else needs to be loaded.
    exported_task(run.export_path)
    task = task_of(config)
    dataset = load_data(config, progress)
    task.check_data(dataset)
    assert task.measure_again is not None
    found, pictures = task.measure_again(config, run, dataset, progress)
    return _kept(run, found, (lambda: save_figures(run, pictures, progress)) if figures else None)


def _kept(run: RunFolder, found: dict[str, Any], draw: Callable[[], Any] | None) -> dict[str, Any]:
    """Writes evaluation.json and, where wanted, figures."""
    with writing_results(run, EVALUATION):
        storage.write_json(run.path / EVALUATION, found, noted=True)
        if draw is not None:
            draw()
    logger.info(f"All numbers: {run.path / EVALUATION}")
    return found


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


def _retrieved(
    report: Callable[..., dict[str, Any]],
    dataset: Dataset,
    true_labels: np.ndarray,
    train: dict[str, np.ndarray],
    test: dict[str, np.ndarray],
    distance: str,
    progress: Any,
) -> dict[str, Any]:
    return report(
        test["embedding"],
        dataset.test.labels,
        train["embedding"],
        true_labels,
        distance=distance,
        progress=lambda done, total: progress("searching", done, total),
    )


def _summary(retrieved: dict[str, Any]) -> dict[str, Any]:
    found = {name: retrieved[name] for name in _SHOWN}
    return {**found, "retrieval_distance": retrieved["distance"]}


def _spread(dataset: Dataset, embedding: np.ndarray) -> dict[str, float]:
    """How far the test images spread; warns if the embedding has collapsed."""
    spread = embedding_spread(embedding)
    if has_collapsed(spread, width=embedding.shape[1], num_classes=dataset.num_classes):
        logger.warning(
            "The embedding has collapsed: images of different classes lie almost in one place or "
            f"on one line (effective rank {spread['effective_rank']:.2f} of {embedding.shape[1]}, "
            f"mean pairwise distance {spread['mean_pairwise_distance']:.3f}); try a smaller "
            "`alpha` or more labels."
        )
    return spread


def _within(seen: RunOutputs, which: str, distance: str, progress: Any) -> dict[str, Any]:
    """Every image of a split, or of both, searched among all others of it."""
    parts: list[tuple[Split, np.ndarray]] = []
    if which in ("train", "all"):
        parts.append((seen.dataset.train, seen.train["embedding"]))
    if which in ("test", "all"):
        parts.append((seen.dataset.test, seen.test["embedding"]))
    embedding = np.concatenate([rows for _, rows in parts])
    labels = np.concatenate([split.labels for split, _ in parts])
    ids = np.arange(len(labels))
    found = retrieval_report(
        embedding,
        labels,
        embedding,
        labels,
        distance=distance,
        query_ids=ids,
        gallery_ids=ids,
        progress=lambda done, total: progress("searching within the set", done, total),
    )
    return {"set": which, **found}


def _graph(seen: RunOutputs, progress: Any) -> SimilarityGraph | None:
    """The run's training graph; for a run without a graph term, the one its settings describe."""
    from tfgraphreg.recipes.graphs import training_graph

    config = seen.run.config
    try:
        return training_graph(config, within_budget(config, seen.dataset), progress)
    except TFGraphRegError as error:
        logger.info(f"Nothing can be said of the graph: {error}")
        return None


def _faithfulness(
    seen: RunOutputs, graph: SimilarityGraph, distance: str, progress: Any
) -> dict[str, Any]:
    from tfgraphreg.evaluation.faithfulness import faithfulness_report
    from tfgraphreg.recipes.features import graph_features

    config, count = seen.run.config, graph.num_nodes
    dataset = within_budget(config, seen.dataset)
    k = min(10, (count - 1) // 2)
    features = None
    if k and not config.graph_features.startswith(GIVEN):
        features = graph_features(config, dataset, progress)
    found = faithfulness_report(
        graph,
        seen.train["embedding"],
        features=features,
        distance=distance,
        feature_distance=config.graph_metric,
        k=max(k, 1),
        seed=config.seed,
        progress=lambda done, total: progress("comparing with the graph", done, total),
    )
    return {"distance": distance, "features": config.graph_features, "k": k, **found}


def _probes(seen: RunOutputs, progress: Any) -> dict[str, Any]:
    from tfgraphreg.evaluation.probes import probe_report

    return probe_report(
        seen.train["embedding"],
        seen.dataset.train.labels,
        seen.test["embedding"],
        seen.dataset.test.labels,
        limit=_PROBE_ITEMS,
        progress=lambda done, total: progress("training probes", done, total),
    )
