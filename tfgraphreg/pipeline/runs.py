"""The run folder: who may write into it, and what it holds."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import time
from collections.abc import Iterator

from tfgraphreg import config as configs
from tfgraphreg import storage
from tfgraphreg.config import TrainConfig
from tfgraphreg.errors import RunError
from tfgraphreg.storage import write_error, write_json

CONFIG = "config.json"
METRICS = "metrics.json"


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A folder runs/<name> of one training run.

    Attributes:
        path: The folder.
        config: What the run does.
    """

    path: pathlib.Path
    config: TrainConfig

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.path.name

    @property
    def export_path(self) -> pathlib.Path:
        """Where the SavedModel of this run lies."""
        if self.config.export_dir:
            return pathlib.Path(self.config.export_dir)
        return pathlib.Path("saved_models") / self.name

    def finished(self) -> dict | None:
        """The metrics of a finished run, else None."""
        path = self.path / METRICS
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def open_run(config: TrainConfig) -> RunFolder:
    """Makes the folder of a new run, or finds that of an interrupted one.

    Raises:
        RunError: If the folder exists and `--resume` was not given, or belongs to a run with
            another config (the message says what differs).
        DataError: If the folder cannot be written.
    """
    path = pathlib.Path(config.run_dir) if config.run_dir else _default_path(config)
    saved = path / CONFIG
    if saved.exists() and config.resume:
        different = configs.differences(configs.read(saved), config)
        if different:
            raise RunError(
                "The run to resume had another config.",
                received=f"{'; '.join(different)} (run {path}, then this command)",
                cure="Give the same flags as before, or another --run-dir.",
            )
    elif path.exists() and (not path.is_dir() or any(path.iterdir())) and not config.resume:
        raise RunError(
            f"The run folder {path} exists already.",
            cure="Add --resume to go on with it, or name another --run-dir.",
        )
    run = RunFolder(path, config)
    _check_writable(path)
    _check_writable(run.export_path.parent)
    stored = dataclasses.replace(
        config, run_dir=str(path), export_dir=str(run.export_path), resume=False
    )
    write_json(saved, dataclasses.asdict(stored))
    return run


@contextlib.contextmanager
def working_on(run: RunFolder) -> Iterator[None]:
    """Keeps a second process out of the run, and clears away what a killed one left.

    Raises:
        RunError: If another process is at work in the run folder.
    """
    try:
        with storage.lock(run.path / ".lock", wait=False):
            for path in (run.path / CONFIG, run.path / METRICS, run.export_path):
                storage.remove_leftovers(path)
            yield
    except BlockingIOError as error:
        raise RunError(
            f"Another process is at work in the run folder {run.path}.",
            cure="Wait until it ends, or name another --run-dir.",
        ) from error


def read_run(path: os.PathLike[str] | str) -> RunFolder:
    """A run folder that exists.

    Raises:
        RunError: If it is no run folder.
    """
    path = pathlib.Path(path)
    if not (path / CONFIG).exists():
        raise RunError(
            f"{path} is no run folder: it has no {CONFIG}.",
            cure="Name a folder under runs/ that scripts/train.py made.",
        )
    return RunFolder(path, configs.read(path / CONFIG))


def finished_metrics(run: RunFolder) -> dict:
    """The metrics of a run that must be finished.

    Raises:
        RunError: If it is not.
    """
    metrics = run.finished()
    if metrics is None:
        raise RunError(
            f"The run {run.path} is not finished: it has no {METRICS}.",
            cure="Finish it: the same command with --resume.",
        )
    return metrics


def _default_path(config: TrainConfig) -> pathlib.Path:
    words = re.sub(r"[^A-Za-z0-9_.-]+", "_", f"{config.dataset}-{config.backbone}").strip("_")
    root = pathlib.Path("runs")
    if config.resume:
        for path in sorted(root.glob(f"{words}-*"), key=os.path.getmtime, reverse=True):
            if (path / CONFIG).exists() and not configs.differences(
                configs.read(path / CONFIG), config
            ):
                return path
    stamp = time.strftime("%Y%m%d-%H%M%S")
    path = root / f"{words}-{stamp}"
    number = 1
    while path.exists():
        number += 1
        path = root / f"{words}-{stamp}-{number}"
    return path


def _check_writable(path: pathlib.Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise write_error(error, path) from error
