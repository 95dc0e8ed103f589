"""Training as a config says: model, batches and epochs put together."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

from tfgraphreg.backbones.catalog import BACKBONES
from tfgraphreg.backbones.transfer import freeze, learning_rate_factors
from tfgraphreg.compat import keras
from tfgraphreg.config import TrainConfig
from tfgraphreg.model.classifier import parameters
from tfgraphreg.model.objectives import check_objective
from tfgraphreg.neighbors.order import steps_per_epoch
from tfgraphreg.progress import Progress, silent
from tfgraphreg.recipes.after_epoch import measuring, settling, tensorboard_log
from tfgraphreg.recipes.batches import batch_source, labeled_batch_size
from tfgraphreg.recipes.defaults import (
    ENOUGH_STEPS,
    settled_batch_size,
    settled_passes,
    settled_precision,
    settled_weight_decay,
)
from tfgraphreg.recipes.material import Material
from tfgraphreg.recipes.network import build_model, untrained
from tfgraphreg.recipes.pseudo import LabelRounds
from tfgraphreg.recipes.workers import check_same_material, without_workers
from tfgraphreg.runs.folder import RunFolder
from tfgraphreg.settings import GIVEN
from tfgraphreg.training.batch_norm import cap_momentum
from tfgraphreg.training.cluster import Cluster
from tfgraphreg.training.fit import FitPlan, fit
from tfgraphreg.training.history import Row
from tfgraphreg.training.optimizer import make_optimizer
from tfgraphreg.training.strategy import (
    check_batch_size,
    choose_strategy,
    gather,
    share_by_rows,
)

logger = logging.getLogger(__name__)

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
    config: TrainConfig,
    run: RunFolder,
    material: Material,
    progress: Progress = silent,
    *,
    cluster: Cluster | None = None,
) -> Learned:
    """Trains the config's model on the material, from where the run folder stands.

    The config's backbone and batch size must be chosen already (see `recipes.defaults.fill_in`).
    Of several workers each has a `run` of its own, and all must call this.
    """
    dataset, graph = material.dataset, material.graph
    check_objective(config.objective, multilabel=dataset.multilabel)
    strategy = start_strategy(config)
    together = None
    if cluster is not None:
        together = gather(strategy)
        check_same_material(together, material)
    replicas = strategy.num_replicas_in_sync
    labeled = labeled_batch_size(config, dataset.train, replicas=replicas)
    passes = settled_passes(config, dataset.train, dataset.num_classes)
    epoch = plan_epoch(config, len(dataset.train), labeled=labeled, passes=passes)
    with strategy.scope():
        model = build_model(config, dataset, material.backbone)
        compile_model(config, model, epoch)
    base = model.base_model
    writes = cluster is None or cluster.chief
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
            passes=epoch.passes(config.epochs),
            progress=progress,
        )

    # Only rounds change what batches are made of; else neighbors are packed and edges weighed once.
    fixed = None if rounds else source()

    def batches(first: int) -> Any:
        made = epoch.batches(fixed or source(), first)
        return made if cluster is None else share_by_rows(made)

    rows = fit(
        model,
        fit_plan(
            config,
            run,
            epoch,
            batches=batches,
            settle=settling(config, base, dataset, epoch.steps * config.epochs),
            validate=measuring(base, dataset, rounds),
            listener=tensorboard_log(config, run, dataset, graph) if writes else None,
            rounds=config.rebuild_graph_every,
            begin_round=rounds.begin if rounds else None,
            progress=progress,
            together=together,
        ),
    )
    if cluster is not None:
        base = without_workers(base, config, dataset)
    base = in_float32(base, lambda: untrained(config, dataset, material.backbone))
    return learned(config, base, rows, replicas, rounds=rounds.summaries if rounds else None)


@dataclasses.dataclass(frozen=True)
class Epoch:
    """What an epoch is made of: its steps, those of one pass over the images, rows of batches."""

    steps: int
    pass_steps: int
    rows: int

    def passes(self, epochs: int) -> int:
        """Passes over the images in so many epochs, the last one perhaps in part."""
        return math.ceil(epochs * self.steps / self.pass_steps)

    def batches(self, source: Callable[[int], Any], first: int) -> Any:
        """The batches from an epoch on, of a source that gives those from a pass on."""
        begun, skipped = divmod(first * self.steps, self.pass_steps)
        made = source(begun)
        return made.skip(skipped) if skipped else made


def start_strategy(config: TrainConfig) -> Any:
    """The distribution strategy of a config, checked; every random generator starts anew.

    Raises:
        ConfigError: If its replicas cannot share the batches.
    """
    strategy = choose_strategy(config.strategy)
    paired = config.neighbors == "paired" and config.regularized
    check_batch_size(settled_batch_size(config), strategy.num_replicas_in_sync, paired=paired)
    _make_repeatable(config)
    return strategy


def plan_epoch(config: TrainConfig, images: int, *, labeled: int = 0, passes: float = 1.0) -> Epoch:
    """The epoch of so many training images, with `labeled` rows of each batch drawn besides.

    It has `min_steps` at least, and else the steps of so many `passes` over the images.
    """
    batch_size = settled_batch_size(config)
    once = steps_per_epoch(images, batch_size, labeled)
    steps = max(round(once * passes), config.min_steps)
    if steps > once:
        logger.info(f"An epoch is {steps / once:.4g} passes over the images, {steps} steps")
    if steps * config.epochs < ENOUGH_STEPS:
        logger.info(f"Only {steps * config.epochs} step(s) in all: more `epochs` would teach more")
    rows = _rows(images, batch_size, labeled, once)
    return Epoch(steps, once, round(rows * steps / once))


def compile_model(config: TrainConfig, model: Any, epoch: Epoch) -> None:
    """Compiles a wrapped network as the config says; in the scope of its strategy."""
    base = model.base_model
    cap_momentum(base, steps=epoch.steps * config.epochs)
    model.compile(
        optimizer=make_optimizer(
            _learning_rate(config),
            schedule=config.schedule,
            steps=epoch.steps * config.epochs,
            cycle=epoch.steps * config.rebuild_graph_every or None,
            weight_decay=settled_weight_decay(config),
            precision=settled_precision(config),
            **_transfer(config, base, epoch.steps),
        ),
        jit_compile=config.jit_compile,
    )
    replicas = model.distribute_strategy.num_replicas_in_sync
    logger.info(
        f"Model: {config.backbone}, {parameters(base):,} parameters, embedding of width "
        f"{config.embedding_dim}, on {replicas} replica{'s' if replicas > 1 else ''}"
    )


def fit_plan(config: TrainConfig, run: RunFolder, epoch: Epoch, **parts: Any) -> FitPlan:
    """The plan of a config; `parts` are the fields of `FitPlan` that a task decides."""
    return FitPlan(
        folder=run.path,
        epochs=config.epochs,
        steps=epoch.steps,
        images=epoch.rows,
        frozen=config.freeze,
        warmup_epochs=config.warmup_epochs,
        ema_momentum=config.ema_momentum,
        **parts,
    )


def learned(
    config: TrainConfig,
    base: keras.Model,
    rows: list[Row],
    replicas: int,
    *,
    rounds: list[dict[str, Any]] | None = None,
) -> Learned:
    """What was learned by a config whose backbone and batch size are chosen."""
    size = settled_batch_size(config)
    return Learned(base, rows, replicas, parameters(base), config.backbone, size, rounds)


@contextlib.contextmanager
def same_precision() -> Iterator[None]:
    """Leaves Keras with the precision policy that it found, whatever a run sets."""
    before = keras.mixed_precision.global_policy()
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


def in_float32(base: keras.Model, build: Callable[[], keras.Model]) -> keras.Model:
    """A network that computes in float32 alone: itself, or one of `build` with its weights."""
    if keras.mixed_precision.global_policy().name == "float32":
        return base
    keras.mixed_precision.set_global_policy("float32")
    found = build()
    found.set_weights(base.get_weights())
    return found


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


def _learning_rate(config: TrainConfig) -> float:
    if config.learning_rate is not None:
        return config.learning_rate
    if config.backbone.startswith(GIVEN):
        return _LEARNING_RATE
    return BACKBONES.get(config.backbone).learning_rate


def _make_repeatable(config: TrainConfig) -> None:
    keras.backend.clear_session()
    # Generators kept in variables are saved with a checkpoint, so that dropout goes on
    # after --resume where it would have been.
    keras.backend.experimental.enable_tf_random_generator()
    keras.utils.set_random_seed(config.seed)
    keras.mixed_precision.set_global_policy(settled_precision(config))
