"""The last and the best state of a run, on disk."""

from __future__ import annotations

import contextlib
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

from tfgraphreg.compat import keras, tf
from tfgraphreg.errors import RunError, first_line
from tfgraphreg.storage import write_error, write_text
from tfgraphreg.training.average import WeightAverage, evaluated_weights

_INDEX = re.compile(r"ckpt-(\d{1,9})\.index")
_CURE = "Put the files back as they were, or start a new run in another folder."


class Checkpoints:
    """Weights, optimizer, random generators and epoch of a model in training.

    `last` and `best` hold one checkpoint each, `ckpt-N` after N epochs. TensorFlow writes the data
    first and the index last, so a run that is killed while saving goes on from the epoch before.
    Which epoch is the best is told by history.csv; the small files `checkpoint`, by which other
    programs find a checkpoint, are written and never read.

    Args:
        folder: `checkpoints/` of the run folder; `last` and `best` are made in it.
        model: The compiled `RegularizedClassifier`.
        average: The average of its weights, if it is evaluated in their place.
        together: Of several workers, each with a folder of its own: called by all with a number,
            waits for the others and gives the numbers of all.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        model: keras.Model,
        *,
        average: WeightAverage | None = None,
        together: Callable[[int], list[int]] | None = None,
    ):
        self._average, self._together = average, together
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
        if average is not None:
            parts["average"] = tf.train.Checkpoint(values=list(average.averages))
        self._checkpoint = tf.train.Checkpoint(**parts)
        self._weights = tf.train.Checkpoint(base=model.base_model)
        self._last, self._best = folder / "last", folder / "best"

    def done(self) -> int:
        """The number of epochs that the last checkpoint has seen; 0 if there is none.

        Several workers may have been stopped between two of their saves; it is then that of the
        last checkpoint that all of them have.

        Raises:
            RunError: If a worker lacks that checkpoint.
        """
        own = _numbers(self._last)
        last = max(own, default=0)
        if self._together is None:
            return last
        every = self._together(last)
        common = min(every)
        # Asked of all, so that all end together.
        if not all(self._together(int(common == 0 or common in own))) or max(every) > common + 1:
            found = ", ".join(f"worker {rank}: {done}" for rank, done in enumerate(every))
            raise RunError(
                "The workers' checkpoints do not fit together.",
                received=f"epochs done by {found}",
                cure="Put the folders back as they were, or start a new run in another folder.",
            )
        return common

    def restore(self, best: int | None) -> int:
        """Loads the last state, if there is one. Returns the number of epochs it has seen.

        Args:
            best: The number of epochs after which the model was the best, by history.csv.

        Raises:
            RunError: If the files, or those of the best epoch, are missing, damaged or do not fit
                the model.
        """
        done = self.done()
        if not done:
            return 0
        # First, to be overwritten: damage must show now, not after the epochs to come.
        self.restore_best(best)
        path = self._last / f"ckpt-{done}"
        with _readable(path):
            self._checkpoint.read(str(path)).assert_existing_objects_matched()
            if int(self.epoch.numpy()) != done:
                raise ValueError(f"it is that of epoch {int(self.epoch.numpy())}")
        return done

    def restore_best(self, best: int | None) -> None:
        """Loads the weights of the model after `best` epochs; None does nothing.

        Raises:
            RunError: If the files are missing, damaged or do not fit the model.
        """
        if best is None:
            return
        path = self._best / f"ckpt-{best}"
        with _readable(path):
            status = self._weights.read(str(path))
            status.assert_existing_objects_matched().expect_partial()

    def save(self, epochs_done: int, *, best: int) -> None:
        """Saves the state after `epochs_done` epochs.

        Args:
            epochs_done: How many.
            best: After how many the model was the best so far. If that is now, the weights are
                saved as those of the best, too.
        """
        self.epoch.assign(epochs_done)
        try:
            if best == epochs_done:
                with evaluated_weights(self._average):
                    _save(self._weights, self._best, epochs_done)
            _save(self._checkpoint, self._last, epochs_done)
            if self._together is not None:
                self._together(epochs_done)  # Until all have saved, all keep the one before.
            # Only now: a run that is killed in between needs the best before.
            _keep_only(self._best, best)
            _keep_only(self._last, epochs_done)
        except tf.errors.ResourceExhaustedError as error:
            full = OSError(28, "No space left on device")
            raise write_error(full, self._last) from error


def _save(checkpoint: tf.train.Checkpoint, folder: pathlib.Path, number: int) -> None:
    name = f"ckpt-{number}"
    checkpoint.write(str(folder / name))
    # What TensorFlow's own readers of a folder look for, beside the files.
    write_text(
        folder / "checkpoint",
        f'model_checkpoint_path: "{name}"\nall_model_checkpoint_paths: "{name}"\n',
    )


def _keep_only(folder: pathlib.Path, number: int) -> None:
    """Removes every other checkpoint, and what killed processes left."""
    for path in folder.iterdir():
        own = path.name.startswith(f"ckpt-{number}.") and "tempstate" not in path.name
        if own or path.name == "checkpoint":
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _numbers(folder: pathlib.Path) -> list[int]:
    """The numbers of the checkpoints in a folder that were written to the end."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return [int(found[1]) for found in map(_INDEX.fullmatch, names) if found]


def restore_best(folder: pathlib.Path, base: keras.Model, best: int) -> None:
    """Loads the weights of a run's best epoch into its classifier.

    Args:
        folder: `checkpoints/` of the run folder.
        base: A classifier of the same shape as the one that was trained.
        best: The number of epochs after which it was the best, by history.csv.

    Raises:
        RunError: If there are no such weights, or they are damaged or do not fit.
    """
    with _readable(path := folder / "best" / f"ckpt-{best}"):
        status = tf.train.Checkpoint(base=base).read(str(path))
        status.assert_existing_objects_matched().expect_partial()


@contextlib.contextmanager
def _readable(path: pathlib.Path) -> Iterator[None]:
    """Turns what restoring a damaged checkpoint can raise into a RunError that names it."""
    try:
        if not path.with_name(f"{path.name}.index").exists():
            raise ValueError("it is missing")
        yield
    # TensorFlow reports a truncated data file by an IndexError.
    except (
        tf.errors.OpError,
        AssertionError,
        ValueError,
        LookupError,
        RuntimeError,
        OSError,
    ) as error:
        raise RunError(
            f"The checkpoint {path} cannot be restored ({first_line(error)}).", cure=_CURE
        ) from error
