"""`task=segment`: the class of every pixel, learned from masks.

    tfgraphreg train --dataset scenes --task segment

See docs/local.md for the time that it takes and the mean IoU that it reaches.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from tfgraphreg.backbones.pyramid import build_pyramid
from tfgraphreg.compat import keras, tf
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.dataset import Dataset
from tfgraphreg.data.local import LocalSplit, local_splits, names_of_masks
from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.evaluation.segmentation import mean_iou, pixel_counts, report_of_counts
from tfgraphreg.export import MaskPredictor, export_segmenter
from tfgraphreg.model.classifier import LOGITS
from tfgraphreg.model.segmenter import COARSEST, build_segmenter, masks_of
from tfgraphreg.model.segmenter_training import (
    RegularizedSegmenter,
    balanced_weights,
    crop_size,
)
from tfgraphreg.neighbors.examples import Examples
from tfgraphreg.progress import Progress
from tfgraphreg.recipes.after_epoch import settling, tensorboard_log
from tfgraphreg.recipes.batches import batch_source, neighbor_mode
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
from tfgraphreg.recipes.saved_model import check_gap, full_float32
from tfgraphreg.runs.folder import RunFolder
from tfgraphreg.training.fit import fit
from tfgraphreg.training.history import Row
from tfgraphreg.visualize import figures
from tfgraphreg.visualize.masks import mask_sheet

logger = logging.getLogger(__name__)

_STEPS_AT_ONCE = 5
_PICTURED = 12
_CHECKED = 5
_TOLERANCE = 1e-5
# An image is read and asked in parts, so that masks of many need not fit in memory at once.
_BLOCK = 100


def check_data(dataset: Dataset) -> None:
    """Raises DataError unless every split has masks, of classes that fit a byte."""
    local_splits(dataset, masks=True)
    if dataset.num_classes > 254:
        raise DataError(
            "A mask holds at most 254 classes.", received=f"{dataset.num_classes} classes"
        )


def learn_masks(
    config: TrainConfig, run: RunFolder, material: Material, progress: Progress
) -> Learned:
    """Trains the config's network on masks, from where the run folder stands."""
    dataset = material.dataset
    train, validation, _ = local_splits(dataset, masks=True)
    classes = len(names_of_masks(dataset))
    weights = None
    if config.class_weights == "balanced":
        weights = balanced_weights(train.masks, classes=classes)
    strategy = start_strategy(config)
    replicas = strategy.num_replicas_in_sync
    epoch = plan_epoch(config, len(train))
    with strategy.scope():
        # A GPU works on one large batch at a time, and replicas share the cores already.
        halves = replicas == 1 and not tf.config.list_physical_devices("GPU")
        model = _build(config, dataset, weights, halves=halves)
        compile_model(config, model, epoch)
    base = model.base_model
    crop_epochs = _crop_epochs(config, run, base, epoch.steps)
    nothing_missing = np.zeros(len(train), bool)
    examples = Examples({"image": train.images}, train.masks, nothing_missing, ids=train.ids)
    source = batch_source(
        config,
        dataset,
        material.graph,
        examples=examples,
        replicas=replicas,
        passes=epoch.passes(config.epochs),
        progress=progress,
    )
    rows = fit(
        model,
        fit_plan(
            config,
            run,
            epoch,
            batches=lambda first: epoch.batches(source, first),
            settle=settling(
                config,
                base,
                dataset,
                epoch.steps * config.epochs,
                ask=lambda images: [_logits(base, images)],
            ),
            crop_epochs=crop_epochs,
            validate=_validation(base, validation, classes),
            listener=tensorboard_log(config, run, dataset, material.graph),
            progress=progress,
        ),
    )
    return learned(config, in_float32(base, lambda: _network(config, dataset)), rows, replicas)


def finish(
    config: TrainConfig, run: RunFolder, material: Material, learned: Learned, progress: Progress
) -> dict[str, Any]:
    """Measures a segmenter on the test images, exports it and draws masks; gives the numbers.

    Raises:
        ModelError: If the exported model differs from the trained one.
    """
    measured = _measured(learned.model, material.dataset, progress)
    _export_and_check(run, learned.model, material.dataset)
    save_figures(run, [("masks", _sheet(learned.model, material.dataset))], progress)
    return measured


def measure_again(
    config: TrainConfig, run: RunFolder, dataset: Dataset, progress: Progress
) -> tuple[dict[str, Any], Pictures]:
    """What the SavedModel of a run is worth, by the numbers of `finish`, and pictures of it.

    Raises:
        ModelError: If the run has no usable SavedModel.
    """
    predictor = MaskPredictor(run.export_path)
    measured = _measured(predictor, dataset, progress)
    return measured, _pictures(run, predictor, dataset, measured)


def _measured(model: Any, dataset: Dataset, progress: Progress) -> dict[str, Any]:
    """The numbers of metrics.json that a segmenter, live or exported, reaches on test images."""
    names = names_of_masks(dataset)
    test = local_splits(dataset, masks=True)[2]
    report = report_of_counts(_counts(model, test, len(names), progress), names)
    return {
        "test_mean_iou": report["mean_iou"],
        "test_pixel_accuracy": report["pixel_accuracy"],
        "test_mean_pixel_accuracy": report["mean_pixel_accuracy"],
        "test_mean_dice": report["mean_dice"],
        "segmentation": report,
    }


def _build(
    config: TrainConfig, dataset: Dataset, weights: np.ndarray | None, *, halves: bool
) -> RegularizedSegmenter:
    return RegularizedSegmenter(
        _network(config, dataset),
        config.alpha,
        config.distance,
        mode=neighbor_mode(config, size=len(dataset.train)) if config.regularized else None,
        class_weights=weights,
        contrast=config.contrast,
        seed=config.seed,
        halves=halves,
        # An average of the weights moves after every step.
        steps_at_once=1 if config.ema_momentum else _STEPS_AT_ONCE,
    )


def _crop_epochs(config: TrainConfig, run: RunFolder, base: keras.Model, steps: int) -> int:
    """The epochs of crops; none where they are not asked for and cannot be.

    Raises:
        ConfigError: If they are asked for and cannot be.
    """
    if not config.crop_epochs:
        return 0
    shape = base.input_shape[1:]
    size = crop_size(*shape[:2])
    if size is None:
        obstacle = "The images are too small for crops, which need sides of 48 pixels."
    elif not _takes(base, (*size, shape[2])):
        obstacle = f"The backbone {config.backbone} takes images of one size only, so no crops."
    else:
        logger.info(
            f"Crops of {size[0]} x {size[1]} pixels in the first {config.crop_epochs} epoch(s), "
            f"{config.crop_epochs * steps} steps"
        )
        return config.crop_epochs
    if run.config.crop_epochs is None:
        return 0
    raise ConfigError(
        obstacle,
        received=f"crop_epochs={config.crop_epochs}, images of {shape[0]} x {shape[1]} pixels",
        cure="Leave `crop_epochs` out.",
    )


def _takes(model: keras.Model, shape: tuple[int, int, int]) -> bool:
    """Whether a network gives logits for images of this shape."""
    try:
        logits = model(tf.zeros([1, *shape]), training=False)[LOGITS]
    except (ValueError, TypeError, tf.errors.OpError):
        return False
    return logits.shape[1:3] == shape[:2]


def _network(config: TrainConfig, dataset: Dataset) -> keras.Model:
    return build_segmenter(
        build_pyramid(named_backbone(config, dataset), coarsest=COARSEST),
        embedding_dim=config.embedding_dim,
        num_classes=len(names_of_masks(dataset)),
    )


def _counts(
    model: Any, split: LocalSplit, classes: int, progress: Progress | None = None
) -> np.ndarray:
    """`[K, K]` pixels of a split by true and predicted class."""
    counts = np.zeros((classes, classes), np.int64)
    for start in range(0, len(split), _BLOCK):
        images, masks = (part[start : start + _BLOCK] for part in (split.images, split.masks))
        counts += pixel_counts(np.asarray(masks), _masks(model, images), classes=classes)
        if progress:
            progress("masks of test images", min(start + _BLOCK, len(split)), len(split))
    return counts


def _masks(model: Any, images: Any) -> np.ndarray:
    """Masks by a segmenter or a `MaskPredictor`."""
    if isinstance(model, MaskPredictor):
        return model(np.asarray(images))["masks"]
    return masks_of(model, images)


def _validation(base: keras.Model, split: LocalSplit, classes: int) -> Callable[[], Row] | None:
    if not len(split):
        return None
    return lambda: {"val_mean_iou": mean_iou(_counts(base, split, classes))}


@full_float32()
def _export_and_check(run: RunFolder, model: keras.Model, dataset: Dataset) -> None:
    """Writes the SavedModel, loads it again and compares it with the live model."""
    export_segmenter(
        model,
        run.export_path,
        class_names=dataset.class_names,
        about={"run": run.name, "config": dataclasses.asdict(run.config)},
    )
    images = np.asarray(dataset.test.images[:_CHECKED])
    live = tf.nn.softmax(_logits(model, images)).numpy()
    served = MaskPredictor(run.export_path)(images)
    gap = float(np.abs(live - served["probabilities"]).max())
    check_gap(run, gap, _TOLERANCE)


def _logits(model: keras.Model, images: Any) -> np.ndarray:
    return model(tf.convert_to_tensor(np.asarray(images)), training=False)[LOGITS].numpy()


def _pictures(
    run: RunFolder, model: MaskPredictor, dataset: Dataset, measured: dict[str, Any]
) -> Pictures:
    yield "masks", _sheet(model, dataset)
    report = measured["segmentation"]
    pixels = np.asarray(report["confusion_matrix"]).sum(axis=1)
    yield (
        "iou_by_class",
        figures.bars_by_class(
            report["iou"],
            notes=[f"{share:.1%} of pixels" for share in pixels / max(pixels.sum(), 1)],
            title="IoU by class, test images",
        ),
    )
    yield from curves(run, ("loss", "graph_loss", "pixel_accuracy", "mean_iou"))


def _sheet(model: Any, dataset: Dataset) -> Any:
    """Some test images with their true and predicted masks."""
    test = local_splits(dataset, masks=True)[2]
    some = test.take(np.arange(min(_PICTURED, len(test))))
    images = np.asarray(some.images)
    return mask_sheet(images, some.masks, _masks(model, images), names_of_masks(dataset))
