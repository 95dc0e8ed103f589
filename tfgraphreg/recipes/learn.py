"""Model, batches and training, put together from a config."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tfgraphreg import __version__, storage
from tfgraphreg.backbones.build import build_backbone
from tfgraphreg.backbones.catalog import BACKBONES
from tfgraphreg.backbones.records import plan_input
from tfgraphreg.backbones.transfer import freeze, learning_rate_factors
from tfgraphreg.compat import keras
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.dataset import Dataset, Split
from tfgraphreg.errors import ModelError, TrainingError
from tfgraphreg.evaluation.spread import embedding_spread, evenly_spaced
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.model.classifier import EMBEDDING, build_classifier, infer, parameters
from tfgraphreg.model.classifier_training import RegularizedClassifier
from tfgraphreg.model.objectives import check_objective
from tfgraphreg.neighbors.batches import as_examples, plain_batches
from tfgraphreg.neighbors.examples import Examples
from tfgraphreg.neighbors.modes import Bank, Gathered, NeighborMode, Packed, Paired
from tfgraphreg.neighbors.order import steps_per_epoch
from tfgraphreg.neighbors.packed import packed_batches
from tfgraphreg.neighbors.packing import pack
from tfgraphreg.progress import Progress, silent
from tfgraphreg.recipes.pseudo import LabelRounds
from tfgraphreg.recipes.start import RUN, start_from
from tfgraphreg.runs.folder import RunFolder
from tfgraphreg.settings import GIVEN
from tfgraphreg.training.augmentation import build_augmenter, build_label_mixer
from tfgraphreg.training.batch_norm import ENOUGH_STEPS, BatchNormAverages, cap_momentum
from tfgraphreg.training.fit import FitPlan, fit
from tfgraphreg.training.history import Row
from tfgraphreg.training.optimizer import make_optimizer
from tfgraphreg.training.strategy import check_batch_size, choose_strategy
from tfgraphreg.training.tensorboard import TensorBoardLog, neighbor_sheet

logger = logging.getLogger(__name__)

# Images that nsl.tools.pack_nbrs may hold in memory, at ten times their size and more.
_NSL_BYTES = 256 << 20

# Below this share of labeled images, some of each step are drawn from them; so many of a batch.
_FEW = 1 / 8

# Matchings drawn to measure how often each edge is: the error of a chance of 0.1 is then 0.02.
_MATCHINGS = 200

# Training images by which the spread of the embedding is measured after an epoch.
_SPREAD_IMAGES = 500

# Of a network that was passed: Adam's own default.
_LEARNING_RATE = 1e-3


@dataclasses.dataclass(frozen=True)
class Learned:
    """A trained classifier, its epochs, and how it was trained.

    `rounds` holds the numbers of each round of pseudo-labels, None without such.
    """

    model: keras.Model
    rows: list[Row]
    replicas: int
    parameters: int
    backbone: str
    batch_size: int
    rounds: list[dict[str, Any]] | None


def learn(
    config: TrainConfig, run: RunFolder, material: Any, progress: Progress = silent
) -> Learned:
    """Trains the config's model on the material, from where the run folder stands.

    The config's backbone and batch size must be chosen already (see `recipes.defaults.fill_in`).
    """
    dataset, graph = material.dataset, material.graph
    strategy = choose_strategy(config.strategy)
    replicas = strategy.num_replicas_in_sync
    paired = config.neighbors == "paired" and config.regularized
    check_batch_size(config.batch_size, replicas, paired=paired)
    check_objective(config.objective, multilabel=dataset.multilabel)
    _make_repeatable(config)
    labeled = labeled_batch_size(config, dataset.train, replicas=replicas)
    steps = steps_per_epoch(len(dataset.train), config.batch_size, labeled)
    passes = max(1, math.ceil(config.min_steps / steps))
    images = passes * _rows(len(dataset.train), config.batch_size, labeled, steps)
    steps *= passes
    if passes > 1:
        logger.info(f"An epoch is {passes} passes over the images, {steps} steps")
    with strategy.scope():
        model = build_model(config, dataset, material.backbone)
        cap_momentum(model.base_model, steps=steps * config.epochs)
        model.compile(
            optimizer=make_optimizer(
                _learning_rate(config),
                schedule=config.schedule,
                steps=steps * config.epochs,
                cycle=steps * config.rebuild_graph_every or None,
                precision=config.precision,
                **_transfer(config, model.base_model, steps),
            ),
            jit_compile=config.jit_compile,
        )
    base = model.base_model
    logger.info(
        f"Model: {config.backbone}, {parameters(base):,} parameters, embedding of width "
        f"{config.embedding_dim}, on {replicas} replica{'s' if replicas > 1 else ''}"
    )
    rounds = None
    if config.propagate != "none":
        rounds = LabelRounds(config, run.path, material, base, progress)

    def source() -> Callable[[int], Any]:
        return batch_source(
            config,
            dataset,
            rounds.graph if rounds else graph,
            examples=rounds.examples() if rounds else None,
            labeled_batch=labeled,
            replicas=replicas,
            passes=passes,
            progress=progress,
        )

    # Only rounds change what batches are made of; else neighbors are packed and edges weighed once.
    fixed = None if rounds else source()

    def batches(first: int) -> Any:
        return (fixed or source())(first * passes)

    rows = fit(
        model,
        FitPlan(
            folder=run.path,
            epochs=config.epochs,
            steps=steps,
            images=images,
            batches=batches,
            settle=_settling(config, base, dataset, steps * config.epochs),
            validate=_measured(base, dataset, rounds),
            listener=_tensorboard(config, run, dataset, graph),
            frozen=config.freeze,
            warmup_epochs=config.warmup_epochs,
            rounds=config.rebuild_graph_every,
            begin_round=rounds.begin if rounds else None,
            ema_momentum=config.ema_momentum,
            progress=progress,
        ),
    )
    summaries = rounds.summaries if rounds else None
    return Learned(
        base, rows, replicas, parameters(base), config.backbone, config.batch_size, summaries
    )


def labeled_batch_size(config: TrainConfig, split: Split, *, replicas: int = 1) -> int:
    """Rows of each batch that are drawn from the labeled images; says so where they are few.

    Raises:
        ConfigError: If none is labeled, and only labels would be learned from.
    """
    if config.labeled_batch is not None:
        return config.labeled_batch
    share = split.labeled.mean() if len(split) else 1.0
    if share >= _FEW or (share == 0 and config.uses_graph):
        return 0
    rows = config.batch_size
    if config.uses_graph:
        whole = 2 * replicas
        rows = max(round(rows * _FEW) // whole * whole, whole)
        if rows >= config.batch_size:
            return 0
    logger.info(
        f"Few labels: {rows} of the {config.batch_size} images of a step are labeled ones, drawn "
        f"from {int(split.labeled.sum())}"
        + ("" if config.uses_graph else "; unlabeled images are not trained on")
    )
    return rows


def _rows(images: int, batch_size: int, labeled: int, steps: int) -> int:
    return steps * batch_size if labeled == batch_size else images + steps * labeled


def _transfer(config: TrainConfig, base: keras.Model, steps: int) -> dict[str, Any]:
    """Freezes what the config says; what the optimizer must know of the backbone."""
    frozen = freeze(base, config.freeze)
    if frozen:
        logger.info(f"  Frozen: {len(frozen)} layers, {frozen[0]} to {frozen[-1]}")
    if config.warmup_epochs:
        logger.info(f"  Only the head is trained in the first {config.warmup_epochs} epoch(s)")
    factors = learning_rate_factors(
        base, backbone=config.backbone_learning_rate, decay=config.stage_decay
    )
    still = bool(frozen) or config.warmup_epochs > 0
    if still and config.weights == "none":
        logger.info(
            "  The backbone has random weights, and what is frozen keeps them: see `weights`"
        )
    return {
        "factors": factors,
        "first_step": config.warmup_epochs * steps,
        "bounded": still,
    }


def build_model(
    config: TrainConfig, dataset: Dataset, backbone: keras.Model | None = None
) -> RegularizedClassifier:
    """The config's classifier, or one on a backbone that was passed, wrapped for training."""
    if backbone is None:
        backbone = _named_backbone(config, dataset)
    elif backbone.input_shape[1:] != dataset.image_shape:
        raise ModelError(
            "`model` takes other images than the dataset has.",
            received=f"input {backbone.input_shape[1:]}, images {dataset.image_shape}",
        )
    base = build_classifier(
        backbone, embedding_dim=config.embedding_dim, num_classes=dataset.num_classes
    )
    if config.weights.startswith(RUN):
        start_from(base, config, dataset.class_names)
    return RegularizedClassifier(
        base,
        config.alpha,
        config.distance,
        regularize=config.regularize,
        mode=neighbor_mode(config, size=len(dataset.train)) if config.regularized else None,
        multilabel=dataset.multilabel,
        objective=config.objective,
        contrast=config.contrast,
        augmenter=build_augmenter(config.augment, seed=config.seed),
        label_mixer=build_label_mixer(config.augment, seed=config.seed),
    )


def neighbor_mode(
    config: TrainConfig, *, size: int, correction: np.ndarray | None = None
) -> NeighborMode:
    """The config's way to bring neighbors into a batch, for N examples."""
    k, sample = config.max_neighbors, config.neighbor_sampling
    modes = {
        "packed": lambda: Packed(k),
        "gathered": lambda: Gathered(k, sample),
        "bank": lambda: Bank(k, size, sample),
        "paired": lambda: Paired(
            config.pairing == "weight", correction, known=config.graph_loss == "contrast"
        ),
    }
    return modes[config.neighbors]()


def _named_backbone(config: TrainConfig, dataset: Dataset) -> keras.Model:
    """The config's backbone; says what it does to the images."""
    record = BACKBONES.get(config.backbone)
    plan = plan_input(record, dataset.image_shape, image_size=config.image_size)
    for note in plan.notes:
        logger.info(f"  {note}")
    return build_backbone(
        config.backbone,
        input_shape=dataset.image_shape,
        weights="none" if config.weights.startswith(RUN) else config.weights,
        image_size=config.image_size,
    )


def _learning_rate(config: TrainConfig) -> float:
    if config.learning_rate is not None:
        return config.learning_rate
    if config.backbone.startswith(GIVEN):
        return _LEARNING_RATE
    return BACKBONES.get(config.backbone).learning_rate


def batch_source(
    config: TrainConfig,
    dataset: Dataset,
    graph: SimilarityGraph | None,
    *,
    examples: Examples | None = None,
    labeled_batch: int = 0,
    replicas: int = 1,
    passes: int = 1,
    progress: Progress = silent,
) -> Callable[[int], Any]:
    """A function of the first pass over the images that gives the batches from there to the last.

    An epoch has so many `passes`. `examples` are the training images with other labels than the
    given ones.
    """
    examples = as_examples(dataset.train) if examples is None else examples
    window: dict[str, Any] = {
        "batch_size": config.batch_size,
        "seed": config.seed,
        "epochs": config.epochs * passes,
        "labeled_batch": labeled_batch,
    }
    if not config.regularized:
        return lambda first: plain_batches(examples, first_epoch=first, **window)
    assert graph is not None
    # Packed records hold the labels that were given, each image once.
    if config.neighbors == "packed" and not labeled_batch and config.propagate == "none":
        del window["labeled_batch"]
        packed = _pack(config, dataset, graph, progress)
        return lambda first: packed_batches(packed, first_epoch=first, **window)
    corrected = config.neighbors == "paired" and config.pair_correction
    correction = _correction(config, graph, progress) if corrected else None
    mode = neighbor_mode(config, size=len(examples), correction=correction)
    window["replicas"] = replicas
    return lambda first: mode.batches(examples, graph, first_epoch=first, **window)


def _correction(config: TrainConfig, graph: SimilarityGraph, progress: Progress) -> np.ndarray:
    """Factors on edge weights, from matchings drawn for the purpose."""
    from tfgraphreg.neighbors import matching

    chances = matching.edge_probabilities(
        graph,
        draws=_MATCHINGS,
        seed=config.seed,
        by_weight=config.pairing == "weight",
        progress=lambda done, total: progress("matchings", done, total),
    )
    factors = matching.correction(chances, draws=_MATCHINGS)
    low, high = np.quantile(factors, [0.05, 0.95]) if len(factors) else (1.0, 1.0)
    logger.info(
        f"Pairs: {_MATCHINGS} matchings drawn to see how often each edge is; weights corrected by "
        f"factors of {low:.2f} to {high:.2f} for nine edges in ten"
    )
    return factors


def _pack(config: TrainConfig, dataset: Dataset, graph: SimilarityGraph, progress: Progress):
    started = time.perf_counter()
    packer = config.packer
    if packer == "auto":
        images = dataset.train.images
        size = int(np.prod(images.shape))
        packer = "nsl" if isinstance(images, np.ndarray) and size <= _NSL_BYTES else "stream"
    # Labels, ids and edges are added to the key by `pack` itself.
    key = {"data": dataset.checksum, "nsl": "1.4.0", "packer": __version__}
    packed = pack(
        dataset.train,
        graph,
        max_neighbors=config.max_neighbors,
        folder=storage.cache_folder() / "packed",
        key=key,
        packer=packer,
        progress=lambda done, total: progress("packing", done, total),
    )
    logger.info(
        f"Packed: {packed.num_examples} images with up to {config.max_neighbors} neighbor(s) by "
        f"the packer {packer}, {packed.size / 1e6:.0f} MB, {time.perf_counter() - started:.1f} s"
    )
    return packed


def _make_repeatable(config: TrainConfig) -> None:
    keras.backend.clear_session()
    # Generators kept in variables are saved with a checkpoint, so that dropout goes on
    # after --resume where it would have been.
    keras.backend.experimental.enable_tf_random_generator()
    keras.utils.set_random_seed(config.seed)
    keras.mixed_precision.set_global_policy(config.precision)


def _settling(config: TrainConfig, base: keras.Model, dataset: Dataset, steps: int):
    """Makes the model fit to be asked after an epoch, and refuses one that answers nothing."""
    averages = None
    if steps < ENOUGH_STEPS:
        averages = BatchNormAverages(base, dataset.train.images, batch_size=config.batch_size)
    some = dataset.train.images[: config.batch_size]

    def settle() -> None:
        if averages:
            averages.measure()
        answers = infer(base, some, multilabel=dataset.multilabel)
        finite = all(np.isfinite(values).all() for values in answers.values())
        if not (finite and all(np.isfinite(values).all() for values in base.get_weights())):
            raise TrainingError(
                "Training diverged: the network no longer gives finite numbers.",
                cure="Try a smaller `learning_rate` or `alpha` in another `run_dir`. What this run "
                "saved before is kept.",
            )

    return settle


def _validation(base: keras.Model, dataset: Dataset):
    split = dataset.validation
    if not len(split):
        return None

    def validate() -> Row:
        scores = infer(base, split.images, multilabel=dataset.multilabel)["probabilities"]
        if dataset.multilabel:
            return {"val_accuracy": float(np.mean((scores > 0.5) == (split.labels > 0)))}
        picked = scores[np.arange(len(split)), split.labels]
        return {
            "val_loss": float(-np.mean(np.log(np.maximum(picked, 1e-12)))),
            "val_accuracy": float(np.mean(scores.argmax(1) == split.labels)),
        }

    return validate


def _measured(base: keras.Model, dataset: Dataset, rounds: LabelRounds | None) -> Callable[[], Row]:
    """What each epoch's row holds besides losses."""
    validate = _validation(base, dataset)
    train = dataset.train
    chosen = evenly_spaced(len(train), _SPREAD_IMAGES)

    def measure() -> Row:
        some = infer(base, train.images[chosen], multilabel=dataset.multilabel)
        return {
            **(validate() if validate else {}),
            **embedding_spread(some[EMBEDDING]),
            **(rounds.row() if rounds else {}),
        }

    return measure


def _tensorboard(config: TrainConfig, run: RunFolder, dataset: Dataset, graph) -> TensorBoardLog:
    sheet = None
    if graph is not None:
        neighbors, _ = graph.top(min(5, config.graph_neighbors), ids=dataset.train.ids)
        sheet = neighbor_sheet(dataset.train.images, neighbors, seed=config.seed)
    names = ("backbone", "alpha", "distance", "neighbors", "max_neighbors", "seed", "batch_size")
    hparams = {name: getattr(config, name) for name in names}
    return TensorBoardLog(run.path / "tensorboard", hparams=hparams, sheet=sheet)
