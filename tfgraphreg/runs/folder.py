"""The run folder: who may write into it, and what it holds."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from tfgraphreg import config as configs
from tfgraphreg import storage
from tfgraphreg.config import TrainConfig
from tfgraphreg.errors import RunError, TFGraphRegError, first_line
from tfgraphreg.model.settings import AUTO_BACKBONE
from tfgraphreg.reading import read_json
from tfgraphreg.storage import EXPORT_META, write_error, write_json
from tfgraphreg.training.history import HISTORY

CONFIG = "config.json"
METRICS = "metrics.json"
EVALUATION = "evaluation.json"
_INPUTS = "inputs.json"
FIGURES = "figures"
_LOCK = ".lock"
_RESULTS_LOCK = ".results.lock"
_AGAIN = "Delete it, and make the run again with `resume=True`."


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
        """The metrics of a finished run, else None.

        Raises:
            RunError: If its metrics.json is broken.
        """
        path = self.path / METRICS
        if not path.exists():
            return None
        try:
            found = read_json(path)
            storage.check_note(path)
        except ValueError as error:
            raise RunError(f"{path} is broken ({error}).", cure=_AGAIN) from error
        return found


def open_run(config: TrainConfig) -> RunFolder:
    """Makes the folder of a new run, or finds that of an earlier one; `working_on` begins it.

    A run whose epochs alone became more goes on from its last epoch; what was measured of it is
    taken away.

    Raises:
        RunError: If the folder exists and `resume` is false, or belongs to a run with
            another config (the message says what differs), or if the exported model would replace
            what is not an earlier one of this run.
        DataError: If the folder cannot be written.
    """
    path = storage.user_path(config.run_dir) if config.run_dir else _default_path(config)
    before = _before(path, config)
    if before is None and path.exists() and (not path.is_dir() or any(path.iterdir())):
        if not config.resume:
            raise _exists_already(path)
    elif before is not None and config.export_dir is None:
        config = dataclasses.replace(config, export_dir=before.export_dir)
    run = RunFolder(path, config)
    try:
        _check_name("run_dir", path)
        _check_name("export_dir", run.export_path)
        _check_export(run)
        _check_writable(path)
        _check_writable(run.export_path.parent)
    except Exception:
        if config.run_dir is None:
            with contextlib.suppress(OSError):
                path.rmdir()  # Where `_default_path` made it.
        raise
    return run


def _before(path: pathlib.Path, config: TrainConfig) -> TrainConfig | None:
    """The config of the run that lies there and can be gone on with; None if there is none.

    Raises:
        RunError: If there is one that `config` does not go on with.
    """
    if not (path / CONFIG).exists():
        return None
    if not config.resume:
        raise _exists_already(path)
    before = configs.read(path / CONFIG)
    different = configs.differences(before, config)
    if different and not _only_more_epochs(before, config):
        raise RunError(
            "The run to resume had another config.",
            received=f"{'; '.join(different)} (run {path}, then this command)",
            cure="Give the same settings as before, or another `run_dir`.",
        )
    return before


def _exists_already(path: pathlib.Path) -> RunError:
    return RunError(
        f"The run folder {path} exists already.",
        cure="Add `resume=True` to go on with it, or name another `run_dir`.",
    )


def _begin(run: RunFolder) -> None:
    """Writes the config into the folder, unless another process was quicker."""
    before = _before(run.path, run.config)
    if before is not None and _only_more_epochs(before, run.config):
        _continue(run.path, before.epochs)
    stored = dataclasses.replace(
        run.config, run_dir=str(run.path), export_dir=str(run.export_path), resume=False
    )
    write_json(run.path / CONFIG, dataclasses.asdict(stored), noted=True)


def _only_more_epochs(before: TrainConfig, config: TrainConfig) -> bool:
    fields = [{**each.result_fields(), "epochs": None} for each in (before, config)]
    return config.epochs > before.epochs and fields[0] == fields[1]


def _continue(path: pathlib.Path, epochs: int) -> None:
    """Makes a run of so many epochs one that is not finished."""
    inputs = _read_inputs(path)
    after = [*continued_after(path), epochs]
    write_json(path / _INPUTS, {**inputs, "continued_after": after}, noted=True)
    for name in (METRICS, EVALUATION):
        # A note without its file tells that the file was lost.
        storage.note_of(path / name).unlink(missing_ok=True)
        (path / name).unlink(missing_ok=True)


def continued_after(path: pathlib.Path) -> list[int]:
    """After how many epochs a run was given more; empty for a run of one piece."""
    found = _read_inputs(path).get("continued_after", [])
    return found if isinstance(found, list) else []


def _read_inputs(path: pathlib.Path) -> dict[str, Any]:
    """What a run began with; empty if nothing was noted yet.

    Raises:
        RunError: If the note is damaged.
    """
    if not (path / _INPUTS).exists():
        return {}
    try:
        found = read_json(path / _INPUTS)
        if not isinstance(found.get("graph_file"), str | None):
            raise ValueError("graph_file is no text")
        storage.check_note(path / _INPUTS)
    except ValueError as error:
        raise RunError(
            f"{path / _INPUTS}, which tells what files the run began with, is damaged "
            f"({first_line(error)}).",
            cure="Put it back as it was, or start a new run in another folder.",
        ) from error
    return found


@contextlib.contextmanager
def working_on(run: RunFolder) -> Iterator[None]:
    """Keeps a second process out of the run, and clears away what a killed one left.

    Raises:
        RunError: If another process is at work in the run folder, or began a run in it just now.
    """
    try:
        files = [run.path / name for name in (CONFIG, METRICS, _INPUTS, HISTORY)]
        with storage.one_writer(run.path / _LOCK, *files, run.export_path, wait=False):
            _begin(run)
            yield
    except BlockingIOError as error:
        raise RunError(
            f"Another process is at work in the run folder {run.path}.",
            cure="Wait until it ends, or name another `run_dir`.",
        ) from error


@contextlib.contextmanager
def writing_results(run: RunFolder, *names: str) -> Iterator[None]:
    """Lets one process at a time write figures and the named files, which are of one command.

    Raises:
        DataError: If the folder cannot be written.
    """
    with storage.one_writer(run.path / _RESULTS_LOCK, *(run.path / name for name in names)):
        for folder in (FIGURES, "tensorboard"):
            storage.remove_leftovers_in(run.path / folder)
        yield


@contextlib.contextmanager
def gone_if_it_fails(run: RunFolder) -> Iterator[None]:
    """Takes a run folder away whose run cannot begin, so that the mended command finds no trace.

    What was there before, and a run that has seen an epoch, stay.
    """
    try:
        yield
    except Exception:
        left = {path.name for path in run.path.iterdir()}
        if "checkpoints" in left and not any((run.path / "checkpoints").rglob("*.index")):
            left.discard("checkpoints")
        notes = {f".{name}.sha256" for name in (CONFIG, _INPUTS)}
        if left <= {CONFIG, _INPUTS, _LOCK, "tensorboard", *notes}:
            shutil.rmtree(run.path, ignore_errors=True)
        raise


def keep_inputs(run: RunFolder, *, graph_file: str | None) -> None:
    """Notes what files a run began with, or checks that one taken up again has the same.

    Args:
        run: The run.
        graph_file: Digest of the user's own file of edges or vectors, if there is one.

    Raises:
        RunError: If that file was changed since the run began, or the note of it is damaged.
    """
    inputs = _read_inputs(run.path)
    begun = (run.path / "checkpoints").exists()
    if "graph_file" not in inputs and not (begun and graph_file):
        write_json(run.path / _INPUTS, {**inputs, "graph_file": graph_file}, noted=True)
    elif inputs.get("graph_file") != graph_file:
        name, features = run.config.graph, run.config.graph_features
        if features.startswith("file:") and not pathlib.Path(name).is_file():
            name = features
        raise RunError(
            f"The graph in {name} is not the one that the run {run.path} began with.",
            cure="Put the earlier file there, or name another `run_dir`.",
        )


def read_run(path: os.PathLike[str] | str) -> RunFolder:
    """A run folder that exists, with the place of its exported model.

    Raises:
        RunError: If it is no run folder, or another run's model lies where its own should.
    """
    path = storage.user_path(path)
    if not (path / CONFIG).exists():
        raise RunError(
            f"{path} is no run folder: it has no {CONFIG}.",
            cure="Name a folder that a training run made, such as runs/NAME.",
        )
    run = RunFolder(path, configs.read(path / CONFIG))
    export = _found_export(run)
    other = _exported(export)
    different = configs.differences(run.config, other) if other else []
    if different:
        raise RunError(
            f"The model in {export} is not that of the run {path}: it was replaced by another's.",
            received=f"{'; '.join(different)} (this run, then the model)",
            cure="Train this run again with an `export_dir` of its own.",
        )
    return dataclasses.replace(run, config=dataclasses.replace(run.config, export_dir=str(export)))


def _found_export(run: RunFolder) -> pathlib.Path:
    """Where the model lies: as the run says, or if that is relative to where it was trained."""
    path = run.export_path
    beside = run.path.resolve().parent.parent / path
    return beside if not path.exists() and (beside / EXPORT_META).exists() else path


def _exported(folder: pathlib.Path) -> TrainConfig | None:
    """The config of the run that exported a model, if it is known."""
    try:
        return configs.from_mapping(read_json(folder / EXPORT_META)["config"])
    except (ValueError, KeyError, TypeError, AttributeError, TFGraphRegError):
        return None


def _check_name(setting: str, path: pathlib.Path) -> None:
    if set("[\\") & set(str(path)):
        raise RunError(
            f"TensorFlow takes [ and \\ in `{setting}` for a pattern and cannot save there.",
            received=f"{setting}={path}",
            cure="Name another folder.",
        )


def _check_export(run: RunFolder) -> None:
    """Refuses a place for the exported model where it would replace anything but a model."""
    target = run.export_path
    if target.resolve() in (run.path.resolve(), *run.path.resolve().parents):
        raise RunError(
            "The exported model would replace the folder of its own run.",
            received=f"run_dir={run.path}, export_dir={target}",
            cure=f"Use `export_dir={run.path / 'export'}`.",
        )
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not (target / EXPORT_META).exists():
        raise RunError(
            f"{target} exists already and is no exported model, which alone may be replaced.",
            cure="Name another `export_dir`.",
        )
    other = _exported(target)
    owner = other.run_dir if other else None
    asked_for = run.config.export_dir is not None
    if owner and not asked_for and pathlib.Path(owner).resolve() != run.path.resolve():
        raise RunError(
            f"{target} holds the model of another run, {owner}.", cure="Name an `export_dir`."
        )


def finished_metrics(run: RunFolder) -> dict:
    """The metrics of a run that must be finished.

    Raises:
        RunError: If it is not.
    """
    metrics = run.finished()
    if metrics is None:
        raise RunError(
            f"The run {run.path} is not finished: it has no {METRICS}.",
            cure="Finish it: the same run with `resume=True`.",
        )
    return metrics


def _default_path(config: TrainConfig) -> pathlib.Path:
    backbone = "" if config.backbone == AUTO_BACKBONE else f"-{config.backbone}"
    words = re.sub(r"[^A-Za-z0-9_.-]+", "_", config.dataset + backbone).strip("_")
    root = pathlib.Path("runs")
    if config.resume:
        for path in sorted(root.glob(f"{words}-*"), key=os.path.getmtime, reverse=True):
            if (path / CONFIG).exists() and not configs.differences(
                configs.read(path / CONFIG), config
            ):
                return path
    stamp = time.strftime("%Y%m%d-%H%M%S")
    path, number = root / f"{words}-{stamp}", 1
    while True:
        try:
            # Of two that begin in one second, each makes its own.
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            number += 1
            path = root / f"{words}-{stamp}-{number}"
        except OSError as error:
            raise write_error(error, path) from error


def _check_writable(path: pathlib.Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        # On Linux it has no name, so that a process killed here leaves none.
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise write_error(error, path) from error
