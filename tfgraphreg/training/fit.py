"""Training from the first or from the last saved epoch to the end."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from tfgraphreg.backbones.transfer import freeze
from tfgraphreg.compat import tf
from tfgraphreg.errors import RunError, TrainingError
from tfgraphreg.model.classifier_training import RegularizedClassifier
from tfgraphreg.progress import Progress, silent
from tfgraphreg.training.average import WeightAverage, evaluated_weights
from tfgraphreg.training.callbacks import EpochRecorder, StepReporter, StopOnNaN
from tfgraphreg.training.checkpoints import Checkpoints
from tfgraphreg.training.history import HISTORY, Row, best_epoch, read_history


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitPlan:
    """How long, how fast and in which folder.

    Attributes:
        folder: The run folder.
        epochs: In all, also when some are done already.
        steps: Batches in an epoch.
        images: Images in an epoch.
        batches: Of the first epoch to run; gives all batches from there to the last epoch.
        settle: Called after each epoch before anything is measured or saved; what it raises ends
            training with the epoch before as the last that is saved.
        validate: Gives `val_*` values after each epoch, or None.
        listener: Called with each epoch's row.
        frozen: What stays untrained to the end: `none`, `backbone` or a number of stages.
        warmup_epochs: At the start, in which all of the backbone is frozen.
        crop_epochs: At the start, in which a `RegularizedSegmenter` looks at crops.
        rounds: Epochs after which `begin_round` is called and batches are made anew; 0: never.
        begin_round: Called with the epoch before each round, the first one too, and after an
            interruption with that of the round that goes on. The model is as it is evaluated.
        ema_momentum: Of a moving average of the weights, which is then evaluated; 0: none.
        progress: Called with the steps done in each epoch.
        together: Of several workers: see `Checkpoints`.
    """

    folder: pathlib.Path
    epochs: int
    steps: int
    images: int
    batches: Callable[[int], tf.data.Dataset]
    settle: Callable[[], None] | None = None
    validate: Callable[[], Row] | None = None
    listener: Callable[[Row], None] | None = None
    frozen: str | int = "none"
    warmup_epochs: int = 0
    crop_epochs: int = 0
    rounds: int = 0
    begin_round: Callable[[int], None] | None = None
    ema_momentum: float = 0.0
    progress: Progress = silent
    together: Callable[[int], list[int]] | None = None


def fit(model: RegularizedClassifier, plan: FitPlan) -> list[Row]:
    """Trains the compiled model to the last epoch and leaves it with the best epoch's weights.

    A run folder with checkpoints is gone on with; the result is that of a run that was never
    interrupted.

    Returns:
        One row an epoch, as in history.csv.

    Raises:
        TrainingError: If the loss stops being a number, a batch does not fit in memory, or XLA
            fails.
        RunError: If the checkpoints or history.csv are damaged, or do not fit together.
    """
    if plan.frozen != "none":
        _set_frozen(model, plan.frozen)
    # Adam's slots must exist before their values can be restored, one copy for each replica;
    # those of a backbone that is still being warmed up too.
    with model.distribute_strategy.scope():
        model.optimizer.build(model.trainable_variables)
        average = _average(model, plan)
    checkpoints = Checkpoints(
        plan.folder / "checkpoints", model, average=average, together=plan.together
    )
    history = plan.folder / HISTORY
    done = checkpoints.done()
    rows = _rows_done(history, done)
    checkpoints.restore(best_epoch(rows) + 1 if rows else None)
    recorder = EpochRecorder(
        history,
        checkpoints,
        rows=rows,
        images=plan.images,
        epochs=plan.epochs,
        settle=plan.settle,
        validate=plan.validate,
        listener=plan.listener,
        average=average,
    )
    try:
        for start, end in _segments(plan, done):
            turned = plan.rounds and start % plan.rounds == 0
            if plan.begin_round and (start == done or turned):
                with evaluated_weights(average):
                    plan.begin_round(start)
            if plan.crop_epochs:
                _set_cropped(model, start < plan.crop_epochs)
            warming = start < plan.warmup_epochs
            if warming:
                _set_frozen(model, "backbone")
            _run(model, plan, recorder, start=start, end=end)
            if warming:
                _set_frozen(model, plan.frozen)
    except tf.errors.ResourceExhaustedError as error:
        raise TrainingError(
            "A batch does not fit in the memory of the device.",
            cure="Use a smaller `batch_size`, `image_size` or `max_neighbors`.",
        ) from error
    except tf.errors.InternalError as error:
        if not model.jit_compile:
            raise
        raise TrainingError(
            "XLA could not compile or run the training step.",
            cure="Leave `jit_compile` out, or use `precision=float32`.",
        ) from error
    checkpoints.restore_best(best_epoch(recorder.rows) + 1)
    return recorder.rows


def _average(model: RegularizedClassifier, plan: FitPlan) -> WeightAverage | None:
    if not plan.ema_momentum:
        return None
    return WeightAverage(model.base_model, model.optimizer, plan.ema_momentum)


def _segments(plan: FitPlan, done: int) -> list[tuple[int, int]]:
    """First and last + 1 epoch of each stretch that is trained without a change, from `done` on."""
    rounds = range(0, plan.epochs, plan.rounds) if plan.rounds else ()
    turns = {plan.warmup_epochs, plan.crop_epochs, *rounds}
    starts = sorted({done, *(turn for turn in turns if done < turn < plan.epochs)})
    return [pair for pair in zip(starts, [*starts[1:], plan.epochs]) if pair[0] < pair[1]]


def _rows_done(history: pathlib.Path, done: int) -> list[Row]:
    rows = read_history(history)
    # A row is written before the checkpoint of its epoch: after a kill there may be one too many.
    if not done <= len(rows) <= done + 1:
        lost = history if len(rows) < done else history.parent / "checkpoints"
        raise RunError(
            f"{lost} is missing, damaged or truncated.",
            received=f"{len(rows)} epochs in {history.name}, {done} in the checkpoint",
            cure="Put the files back as they were, or start a new run in another folder.",
        )
    return rows[:done]


def _set_frozen(model: RegularizedClassifier, what: str | int) -> None:
    freeze(model.base_model, what)
    # `fit` undoes what was frozen since the last compile.
    _compile_anew(model)


def _set_cropped(model: Any, cropped: bool) -> None:
    model.cropped = cropped
    # Or the step would be that of images of another size.
    _compile_anew(model)


def _compile_anew(model: Any) -> None:
    model.compile(optimizer=model.optimizer, jit_compile=model.jit_compile)


def _run(
    model: RegularizedClassifier,
    plan: FitPlan,
    recorder: EpochRecorder,
    *,
    start: int,
    end: int,
) -> None:
    averaging = [recorder.average] if recorder.average else []
    model.fit(
        plan.batches(start),
        initial_epoch=start,
        epochs=end,
        steps_per_epoch=plan.steps,
        callbacks=[*averaging, StopOnNaN(), StepReporter(plan.progress), recorder],
        verbose=0,
    )
