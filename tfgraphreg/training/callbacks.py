"""What happens between the steps and the epochs of `fit`."""

from __future__ import annotations

import logging
import math
import pathlib
import time
from collections.abc import Callable
from typing import Any

from tfgraphreg.compat import keras
from tfgraphreg.errors import TrainingError
from tfgraphreg.progress import Progress
from tfgraphreg.training.average import WeightAverage, evaluated_weights, leave_losses_unread
from tfgraphreg.training.checkpoints import Checkpoints
from tfgraphreg.training.history import SHOWN, Row, best_epoch, write_history

logger = logging.getLogger(__name__)

_CHECK_EVERY = 25


class StopOnNaN(keras.callbacks.Callback):
    """Ends training with a sentence once the loss is no finite number."""

    def __init__(self):
        super().__init__()
        leave_losses_unread(self)
        self._next = 0

    def on_epoch_begin(self, epoch, logs=None):
        """Begins to count."""
        self._next = 0

    def on_train_batch_end(self, batch, logs=None):
        """Looks at the loss now and then: reading it waits for the step."""
        # Of several steps at once only the last one is told.
        if batch >= self._next:
            self._next = batch + _CHECK_EVERY
            self._check(logs, f"step {batch + 1}")

    def on_epoch_end(self, epoch, logs=None):
        """Looks at the loss of the whole epoch."""
        self._check(logs, f"the end of epoch {epoch + 1}")

    def _check(self, logs: dict[str, Any] | None, when: str) -> None:
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss became {loss} at {when}.",
                cure="Try a smaller `learning_rate` or `alpha`, or `precision=float32`.",
            )


class StepReporter(keras.callbacks.Callback):
    """Reports the steps of each epoch.

    Args:
        progress: Called with the epoch, the steps done and all steps.
    """

    def __init__(self, progress: Progress):
        super().__init__()
        leave_losses_unread(self)
        self._progress, self._epoch = progress, 0

    def on_epoch_begin(self, epoch, logs=None):
        """Begins to count."""
        self._epoch = epoch
        self._report(0)

    def on_train_batch_end(self, batch, logs=None):
        """Counts a step."""
        self._report(batch + 1)

    def _report(self, done: int) -> None:
        self._progress(f"epoch {self._epoch + 1}", done, self.params.get("steps") or 0)


class EpochRecorder(keras.callbacks.Callback):
    """Times each epoch, validates, writes history.csv, then saves the checkpoint.

    In that order: a run killed in between has a row too many, which resuming cuts off, and
    never a checkpoint whose row is missing.

    Args:
        path: history.csv.
        checkpoints: Where states go.
        rows: The rows of the epochs that an interrupted run has done.
        images: Images in an epoch, for the throughput.
        epochs: Epochs in all, for the log.
        settle: Called after each epoch, before it is validated and saved.
        validate: Gives `val_*` values; called after each epoch.
        listener: Called with each row as it is added.
        average: The average of the weights, if it is evaluated in their place.
    """

    def __init__(
        self,
        path: pathlib.Path,
        checkpoints: Checkpoints,
        *,
        rows: list[Row],
        images: int,
        epochs: int,
        settle: Callable[[], None] | None = None,
        validate: Callable[[], Row] | None = None,
        listener: Callable[[Row], None] | None = None,
        average: WeightAverage | None = None,
    ):
        super().__init__()
        self.average = average
        self.path, self.checkpoints, self.rows = path, checkpoints, rows
        self.images, self.epochs = images, epochs
        self.settle = settle
        self.validate, self.listener = validate, listener

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock."""
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Adds the row."""
        row = {"epoch": epoch, **{k: float(v) for k, v in (logs or {}).items()}}
        with evaluated_weights(self.average):
            if self.settle:
                self.settle()
            seconds = time.perf_counter() - self._start
            if self.validate:
                row.update(self.validate())
        row["learning_rate"] = learning_rate(self.model.optimizer)
        row["seconds"] = seconds
        row["images_per_second"] = self.images / seconds
        self.rows.append(row)
        logger.info(f"Epoch {epoch + 1}/{self.epochs}: {seconds:.1f} s, {_in_words(row)}")
        write_history(self.path, self.rows)
        self.checkpoints.save(epoch + 1, best=best_epoch(self.rows) + 1)
        if self.listener:
            self.listener(row)


def _in_words(row: Row) -> str:
    """The losses and accuracies of an epoch."""
    shown = {k: v for k, v in row.items() if k.endswith(SHOWN)}
    return ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in shown.items())


def learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """The learning rate of the step that comes next."""
    return float(keras.backend.get_value(optimizer.learning_rate))
