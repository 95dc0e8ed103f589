"""`task=detect`: boxes, classes and an embedding of every region, learned from boxes.

    tfgraphreg train --dataset scenes --task detect

See docs/local.md for the time that it takes and the average precision that it reaches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from tfgraphreg.backbones.pyramid import build_pyramid
from tfgraphreg.compat import keras, tf
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.dataset import Dataset
from tfgraphreg.data.local import LocalSplit, local_splits
from tfgraphreg.errors import DataError, UnknownNameError, did_you_mean
from tfgraphreg.evaluation.average_precision import SURE, FoundBoxes, detection_report
from tfgraphreg.evaluation.detection import best_overlaps
from tfgraphreg.export import BoxPredictor, export_detector
from tfgraphreg.model.detector import (
    BOXES,
    CLASSES,
    COUNT,
    LEAST_SCORE,
    SCORES,
    STRIDE,
    build_detector,
)
from tfgraphreg.model.detector import detections as detections_of
from tfgraphreg.model.detector_training import TARGET_WIDTH, RegularizedDetector
from tfgraphreg.neighbors.batches import plain_batches
from tfgraphreg.neighbors.examples import Examples
from tfgraphreg.neighbors.regions import RegionBank, region_inputs
from tfgraphreg.progress import Progress
from tfgraphreg.recipes.after_epoch import settling, tensorboard_log
from tfgraphreg.recipes.defaults import settled_batch_size
from tfgraphreg.recipes.figures import Pictures, curves, save_figures
from tfgraphreg.recipes.learn import (
    Learned,
    compile_model,
    fit_plan,
    in_float32,
    learned,
    plan_epoch,
    start_strategy,
)
from tfgraphreg.recipes.material import Material
from tfgraphreg.recipes.network import named_backbone
from tfgraphreg.recipes.regions import training_objects
from tfgraphreg.recipes.saved_model import check_gap, full_float32
from tfgraphreg.runs.folder import RunFolder
from tfgraphreg.training.fit import fit
from tfgraphreg.training.history import Row
from tfgraphreg.visualize import figures
from tfgraphreg.visualize.boxes import box_sheet

_PICTURED = 12
_CHECKED = 5
_TOLERANCE = 1e-4
_BLOCK = 100


def check_data(dataset: Dataset, *, only_class: str | None = None) -> None:
    """Raises DataError unless every split has boxes, and some training image an object.

    Raises:
        UnknownNameError: If `only_class` is no class of the dataset.
    """
    if only_class is not None and only_class not in dataset.class_names:
        raise UnknownNameError(
            f"`only_class` must be a class of {dataset.name}.",
            received=only_class,
            cure=did_you_mean(only_class, dataset.class_names),
        )
    train, _, _ = local_splits(dataset)
    if not any(len(found) for found in train.objects):
        raise DataError("No training image has an object.", received=f"dataset={dataset.name}")


def learn_boxes(
    config: TrainConfig,
    run: RunFolder,
    material: Material,
    progress: Progress,
) -> Learned:
    """Trains the config's network on boxes, from where the run folder stands."""
    dataset = material.dataset
    train, validation, _ = local_splits(dataset)
    strategy = start_strategy(config)
    replicas = strategy.num_replicas_in_sync
    epoch = plan_epoch(config, len(train))
    with strategy.scope():
        model = _build(config, dataset)
        compile_model(config, model, epoch)
    base = model.base_model
    inputs: dict[str, Any] = {"image": train.images}
    if config.regularized:
        rows, columns = model.size
        inputs |= region_inputs(
            train.objects,
            material.graph,
            k=config.max_neighbors,
            stride=STRIDE,
            columns=columns,
            rows=rows,
        )
    targets = padded_targets(train.objects)
    examples = Examples(inputs, targets, np.zeros(len(train), bool), ids=train.ids)

    def source(first: int) -> Any:
        return plain_batches(
            examples,
            batch_size=settled_batch_size(config),
            seed=config.seed,
            epochs=epoch.passes(config.epochs),
            first_epoch=first,
        )

    found = fit(
        model,
        fit_plan(
            config,
            run,
            epoch,
            batches=lambda first: epoch.batches(source, first),
            settle=settling(config, base, dataset, epoch.steps * config.epochs),
            validate=_validation(base, validation, dataset),
            listener=tensorboard_log(config, run, dataset, None),
            progress=progress,
        ),
    )
    return learned(config, in_float32(base, lambda: _network(config, dataset)), found, replicas)


def finish(
    config: TrainConfig, run: RunFolder, material: Material, learned: Learned, progress: Progress
) -> dict[str, Any]:
    """Measures a detector on the test images, exports it and draws boxes; gives the numbers.

    Raises:
        ModelError: If the exported model differs from the trained one.
    """
    dataset = material.dataset
    test = local_splits(dataset)[2]
    found = find_boxes(learned.model, test.images, progress)
    measured = _measured(config, dataset, found)
    _export_and_check(run, learned.model, dataset)
    save_figures(run, [("boxes", _sheet(config, dataset, found))], progress)
    return measured


def measure_again(
    config: TrainConfig, run: RunFolder, dataset: Dataset, progress: Progress
) -> tuple[dict[str, Any], Pictures]:
    """What the SavedModel of a run is worth, by the numbers of `finish`, and pictures of it.

    Raises:
        ModelError: If the run has no usable SavedModel.
    """
    test = local_splits(dataset)[2]
    found = find_boxes(BoxPredictor(run.export_path), test.images, progress)
    measured = _measured(config, dataset, found)
    return measured, _pictures(config, run, dataset, found, measured)


def _measured(config: TrainConfig, dataset: Dataset, found: list[FoundBoxes]) -> dict[str, Any]:
    """The numbers of metrics.json from what was found in the test images."""
    objects = local_splits(dataset)[2].objects
    only = None if config.only_class is None else dataset.class_names.index(config.only_class)
    report = detection_report(objects, found, dataset.class_names, only_class=only)
    report["only_class"] = config.only_class
    return {
        "test_ap50": report["ap50"],
        "test_ap75": report["ap75"],
        "test_ap": report["ap"],
        "test_best_overlap": _best_overlap(objects, found, only),
        "detection": report,
    }


def padded_targets(objects: Any) -> np.ndarray:
    """`[N, M, 6]` float32 targets of the detector (see `model.detector_training`)."""
    most = max((len(found) for found in objects), default=0)
    targets = np.zeros((len(objects), max(most, 1), TARGET_WIDTH), np.float32)
    targets[..., 4] = -1
    for row, found in zip(targets, objects):
        row[: len(found), :4] = found.boxes
        row[: len(found), 4] = found.classes
        row[: len(found), 5] = found.difficult
    return targets


def find_boxes(
    model: keras.Model | BoxPredictor, images: Any, progress: Progress | None = None
) -> list[FoundBoxes]:
    """What a detector, live or exported, finds in each of N images, without padding."""
    ask = model if isinstance(model, BoxPredictor) else _asked(model)
    found = []
    for start in range(0, len(images), _BLOCK):
        found += unpadded(ask(np.asarray(images[start : start + _BLOCK])))
        if progress:
            progress("boxes of test images", min(start + _BLOCK, len(images)), len(images))
    return found


def _asked(model: keras.Model) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """What a `BoxPredictor` does, of a live detector."""
    shape = tuple(model.input_shape[1:])
    forward = tf.function(
        lambda batch: detections_of(model(batch, training=False), shape), reduce_retracing=True
    )
    return lambda images: {k: v.numpy() for k, v in forward(tf.constant(images)).items()}


def unpadded(answers: dict[str, np.ndarray]) -> list[FoundBoxes]:
    """The detections of each image, from the arrays of `detections`."""
    rows = zip(*(answers[name] for name in (BOXES, CLASSES, SCORES, COUNT)))
    return [FoundBoxes(b[:n], c[:n], s[:n]) for b, c, s, n in rows]


def _best_overlap(truth: Any, found: list[FoundBoxes], only_class: int | None) -> float:
    """Mean over all objects that count of the best IoU with a detection of their class.

    With one class, this is how well its objects are placed, whatever their scores: the one-class
    IoU, `mean over persons p of the maximum over detections d of score 0.3 or more of IoU(p, d)`.
    """
    overlaps = []
    for true, guess in zip(truth, found):
        counted = ~true.difficult
        sure = guess.scores >= SURE
        overlaps.append(
            best_overlaps(
                true.boxes[counted],
                true.classes[counted],
                guess.boxes[sure],
                guess.classes[sure],
                only_class=only_class,
            )
        )
    values = np.concatenate([*overlaps, np.zeros(0)])
    return float(values.mean()) if len(values) else float("nan")


def _build(config: TrainConfig, dataset: Dataset) -> RegularizedDetector:
    mode = None
    if config.regularized:
        regions = sum(map(len, training_objects(dataset)))
        mode = RegionBank(config.max_neighbors, regions, config.embedding_dim)
    base = _network(config, dataset)
    return RegularizedDetector(base, config.alpha, config.distance, mode=mode)


def _network(config: TrainConfig, dataset: Dataset) -> keras.Model:
    return build_detector(
        build_pyramid(named_backbone(config, dataset)),
        embedding_dim=config.embedding_dim,
        num_classes=dataset.num_classes,
    )


def _validation(base: keras.Model, split: LocalSplit, dataset: Dataset) -> Callable[[], Row] | None:
    if not len(split):
        return None

    def validate() -> Row:
        report = detection_report(
            split.objects, find_boxes(base, split.images), dataset.class_names
        )
        return {"val_ap50": report["ap50"], "val_ap": report["ap"]}

    return validate


@full_float32()
def _export_and_check(run: RunFolder, model: keras.Model, dataset: Dataset) -> None:
    """Writes the SavedModel, loads it again and compares it with the live model."""
    export_detector(
        model,
        run.export_path,
        class_names=dataset.class_names,
        about={"run": run.name, "config": dataclasses.asdict(run.config)},
    )
    images = np.asarray(dataset.test.images[:_CHECKED])
    live, served = (find_boxes(each, images) for each in (model, BoxPredictor(run.export_path)))
    gap = max((_score_gap(a.scores, b.scores) for a, b in zip(live, served)), default=0.0)
    check_gap(run, gap, _TOLERANCE, "scores")


def _score_gap(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference of two images' scores, each sorted.

    Scores that differ in the last digit may change places, and one of them may be just too low for
    a detection; it counts as the lowest score that is one.
    """
    rows = np.full((2, max(len(one), len(other))), LEAST_SCORE)
    for row, scores in zip(rows, (one, other)):
        row[: len(scores)] = scores
    low, high = np.sort(rows, axis=1)
    return float(np.abs(low - high).max(initial=0))


def _pictures(
    config: TrainConfig,
    run: RunFolder,
    dataset: Dataset,
    found: list[FoundBoxes],
    measured: dict[str, Any],
) -> Pictures:
    yield "boxes", _sheet(config, dataset, found)
    rows = measured["detection"]["by_class"]
    yield (
        "average_precision",
        figures.bars_by_class(
            {name: row["ap50"] for name, row in rows.items()},
            notes=[f"{row['objects']} objects" for row in rows.values()],
            title="Average precision at IoU 0.5 by class, test images",
        ),
    )
    yield from curves(run, ("class_loss", "box_loss", "graph_loss", "ap50"))


def _sheet(config: TrainConfig, dataset: Dataset, found: list[FoundBoxes]) -> Any:
    """Some test images with what was found; of one class only, if that alone is judged."""
    test = local_splits(dataset)[2]
    some = test.take(np.arange(min(_PICTURED, len(test))))
    objects, boxes = list(some.objects), found[: len(some)]
    if config.only_class is not None:
        number = dataset.class_names.index(config.only_class)
        objects = [_of_class(each, number) for each in objects]
        boxes = [_of_class(each, number) for each in boxes]
    return box_sheet(np.asarray(some.images), objects, boxes, dataset.class_names)


def _of_class(each: Any, number: int) -> Any:
    """The rows of one class of an `Objects` or a `FoundBoxes`."""
    rows = each.classes == number
    fields = {f.name: getattr(each, f.name)[rows] for f in dataclasses.fields(each)}
    return dataclasses.replace(each, **fields)
