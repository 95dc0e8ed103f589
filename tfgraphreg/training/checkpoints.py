"""The last and the best state of a run, on disk."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

from tfgraphreg.compat import keras, tf
from tfgraphreg.errors import RunError, first_line
from tfgraphreg.storage import write_error


class Checkpoints:
    """Weights, optimizer, random generators and epoch of a model in training.

    TensorFlow writes the data files first and the small file `checkpoint` that points to
    them last, so a run that is killed while saving goes on from the epoch before.

    Args:
        folder: `checkpoints/` of the run folder; `last` and `best` are made in it.
        model: The compiled `GraphRegularization`.
    """

    def __init__(self, folder: pathlib.Path, model: keras.Model):
        self.epoch = tf.Variable(0, dtype=tf.int64, trainable=False, name="epochs_done")
        parts: dict[str, Any] = {
            "base": model.base_model,
            "optimizer": model.optimizer,
            "epoch": self.epoch,
        }
        if model.bank is not None:
            parts["bank"] = model.bank
        if model.running is not None:
            parts["running"] = tf.train.Checkpoint(
                mean=model.running.mean, covariance=model.running.covariance
            )
        if model.augmenter is not None:
            parts["augmenter"] = model.augmenter
        self._checkpoint = tf.train.Checkpoint(**parts)
        self._weights = tf.train.Checkpoint(base=model.base_model)
        self._last = tf.train.CheckpointManager(self._checkpoint, str(folder / "last"), 1)
        self._best = tf.train.CheckpointManager(self._weights, str(folder / "best"), 1)

    def restore(self) -> int:
        """Loads the last state, if there is one. Returns the number of epochs it has seen.

        Raises:
            RunError: If the files, or those of the best epoch, are damaged or do not fit the
                model.
        """
        path = self._last.latest_checkpoint
        if path is None:
            return 0
        # First, to be overwritten: damage must show now, not after the epochs to come.
        self.restore_best()
        with _readable(path):
            self._checkpoint.restore(path).assert_existing_objects_matched()
        return int(self.epoch.numpy())

    def restore_best(self) -> None:
        """Loads the weights of the best epoch, if one was marked.

        Raises:
            RunError: If the files are damaged or do not fit the model.
        """
        path = self._best.latest_checkpoint
        if path is not None:
            with _readable(path):
                self._weights.restore(path).expect_partial()

    def save(self, epochs_done: int, *, best: bool) -> None:
        """Saves the state after `epochs_done` epochs, and its weights as the best if asked."""
        self.epoch.assign(epochs_done)
        try:
            if best:
                self._best.save(checkpoint_number=epochs_done)
            self._last.save(checkpoint_number=epochs_done)
        except tf.errors.ResourceExhaustedError as error:
            full = OSError(28, "No space left on device")
            raise write_error(full, self._last.directory) from error


def restore_best(folder: pathlib.Path, base: keras.Model) -> None:
    """Loads the weights of a run's best epoch into its classifier.

    Args:
        folder: `checkpoints/` of the run folder.
        base: A classifier of the same shape as the one that was trained.

    Raises:
        RunError: If there are no such weights, or they are damaged or do not fit.
    """
    path = tf.train.latest_checkpoint(str(folder / "best"))
    if path is None:
        raise RunError(f"{folder} holds no weights of a best epoch.", cure="Train that run again.")
    with _readable(path):
        status = tf.train.Checkpoint(base=base).restore(path)
        status.assert_existing_objects_matched()


@contextlib.contextmanager
def _readable(path: str) -> Iterator[None]:
    """Turns what restoring a damaged checkpoint can raise into a RunError that names it."""
    try:
        yield
    # TensorFlow tells of a data file that was cut short by an IndexError.
    except (
        tf.errors.OpError,
        AssertionError,
        ValueError,
        LookupError,
        RuntimeError,
        OSError,
    ) as error:
        raise RunError(
            f"The checkpoint {path} cannot be restored ({first_line(error)}).",
            cure="Start a new run in another folder.",
        ) from error
