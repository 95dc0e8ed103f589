"""Training from the first or from the last saved epoch to the end."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable

from tfgraphreg.backbones.transfer import freeze
from tfgraphreg.compat import tf
from tfgraphreg.errors import RunError, TrainingError
from tfgraphreg.model.classifier_training import RegularizedClassifier
from tfgraphreg.progress import Progress, silent
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
        progress: Called with the steps done in each epoch.
    """

    folder: pathlib.Path
    epochs: int
    steps: int
    images: int
    batches: Callable[[int], tf.data.Dataset]
    settle: Callable[[], None] | None = None
    validate: Callable[[], Row] | None = None
    listener: Callable[[Row], None] | None = None
    frozen: str = "none"
    warmup_epochs: int = 0
    progress: Progress = silent


def fit(model: RegularizedClassifier, plan: FitPlan) -> list[Row]:
    """Trains the compiled model to the last epoch and leaves it with the best epoch's weights.

    A run folder with checkpoints is gone on with; the result is that of a run that was never
    interrupted.

    Returns:
        One row an epoch, as in history.csv.

    Raises:
        TrainingError: If the loss stops being a number, or a batch does not fit in memory.
        RunError: If the checkpoints or history.csv are damaged, or do not fit together.
    """
    if plan.frozen != "none":
        _set_frozen(model, plan.frozen)
    # Adam's slots must exist before their values can be restored, one copy for each replica;
    # those of a backbone that is still being warmed up too.
    with model.distribute_strategy.scope():
        model.optimizer.build(model.trainable_variables)
    checkpoints = Checkpoints(plan.folder / "checkpoints", model)
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
    )
    try:
        if done < plan.warmup_epochs:
            _set_frozen(model, "backbone")
            _run(model, plan, recorder, start=done, end=plan.warmup_epochs)
            _set_frozen(model, plan.frozen)
        _run(model, plan, recorder, start=max(done, plan.warmup_epochs), end=plan.epochs)
    except tf.errors.ResourceExhaustedError as error:
        raise TrainingError(
            "A batch does not fit in the memory of the device.",
            cure="Use a smaller `batch_size`, `image_size` or `max_neighbors`.",
        ) from error
    checkpoints.restore_best(best_epoch(recorder.rows) + 1)
    return recorder.rows


def _rows_done(history: pathlib.Path, done: int) -> list[Row]:
    rows = read_history(history)
    # A row is written before the checkpoint of its epoch: after a kill there may be one too many.
    if not done <= len(rows) <= done + 1:
        lost = history if len(rows) < done else history.parent / "checkpoints"
        raise RunError(
            f"{lost} is missing, damaged or cut short.",
            received=f"{len(rows)} epochs in {history.name}, {done} in the checkpoint",
            cure="Put the files back as they were, or start a new run in another folder.",
        )
    return rows[:done]


def _set_frozen(model: RegularizedClassifier, what: str) -> None:
    freeze(model.base_model, what)
    # `fit` undoes what was frozen since the last compile.
    model.compile(optimizer=model.optimizer, jit_compile=model.jit_compile)


def _run(
    model: RegularizedClassifier, plan: FitPlan, recorder: EpochRecorder, *, start: int, end: int
) -> None:
    if start >= end:
        return
    model.fit(
        plan.batches(start),
        initial_epoch=start,
        epochs=end,
        steps_per_epoch=plan.steps,
        callbacks=[StopOnNaN(), StepReporter(plan.progress), recorder],
        verbose=0,
    )
