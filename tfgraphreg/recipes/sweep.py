"""A grid of runs, each in a process of its own, so that no run can end the others."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import os
import pathlib
import re
import subprocess
import sys
import time
import types
import typing
from collections.abc import Iterator
from typing import Any

from tfgraphreg import config as configs
from tfgraphreg import storage
from tfgraphreg.config import TrainConfig
from tfgraphreg.errors import ConfigError, RunError
from tfgraphreg.reading import read_yaml
from tfgraphreg.recipes.graphs import file_mark
from tfgraphreg.runs.run import MAIN, Run, read_finished

logger = logging.getLogger(__name__)

_MAX_RUNS = 10_000
_PLACES = ("run_dir", "export_dir", "resume")
_LOG = "log.txt"


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A grid of runs.

    Attributes:
        out: The folder that holds the run folders.
        runs: Name and config of each run, in the order of the grid.
    """

    out: pathlib.Path
    runs: dict[str, TrainConfig]


def read_sweep(path: os.PathLike[str] | str) -> Sweep:
    """Reads a sweep file: a YAML mapping of settings to a value or a list of values.

    The runs are all combinations. `out` names their folder; default: runs/<name of the file>.
    The setting that stands last changes first.

    Raises:
        ConfigError: If the file cannot be read, or a combination cannot work.
    """
    path = pathlib.Path(path)
    try:
        content = read_yaml(path)
    except ValueError as error:
        raise ConfigError(f"{path} cannot be read as a sweep ({error}).") from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path} is no sweep: it must hold a mapping.", cure="Such as `alpha: [0, 0.1]`."
        )
    out = content.pop("out", None) or pathlib.Path("runs") / path.stem
    if not isinstance(out, (str, pathlib.Path)):
        raise ConfigError("`out` must be the name of a folder.", received=f"out={out!r}")
    folder = storage.user_path(out)
    return Sweep(folder, grid(content, folder))


def grid(settings: dict[Any, Any], out: pathlib.Path) -> dict[str, TrainConfig]:
    """All combinations of the settings, by run name; each checked before anything runs.

    Raises:
        ConfigError: If a setting is unknown, empty, or a combination cannot work.
    """
    from tfgraphreg.recipes.train import check_names

    choices = {}
    for name, value in configs.flat(settings).items():
        if name in _PLACES:
            raise ConfigError(
                f"A sweep names its runs itself, so `{name}` cannot be set.",
                cure="Name the folder of all runs with `out`.",
            )
        values = value if isinstance(value, list) else [value]
        if not values:
            raise ConfigError(f"`{name}` has no value in the sweep.", cure="Give one or more.")
        choices[name] = [_typed(name, item) for item in values]
    size = 1
    for values in choices.values():
        size *= len(values)
    if size > _MAX_RUNS:
        raise ConfigError(f"A sweep may have at most {_MAX_RUNS} runs.", received=f"{size} runs")
    runs: dict[str, TrainConfig] = {}
    idle = set(choices)
    for combination in itertools.product(*choices.values()):
        # Where a setting changes nothing, all its values give one run: alpha 0 has no neighbors.
        chosen = configs.effective(dict(zip(choices, combination)))
        idle -= chosen.keys()
        config = configs.from_mapping(chosen)
        check_names(config)
        name = run_name(config)
        runs[name] = dataclasses.replace(
            config, run_dir=str(out / name), export_dir=str(out / name / "saved_model"), resume=True
        )
    for name in sorted(idle):
        # In none of the runs: then the sweep means something else.
        for value in choices[name]:
            configs.from_mapping({**dict(zip(choices, combination)), name: value})
    return runs


def run_name(config: TrainConfig) -> str:
    """The same name for the same result, in this sweep and in a later one with more values."""
    words = f"{config.dataset}-{config.backbone}-{config.distance}-a{config.alpha:g}"
    words = re.sub(r"[^A-Za-z0-9_.-]+", "_", f"{words}-{config.neighbors}-s{config.seed}")
    return f"{words[:100].lstrip('.-')}-{storage.fingerprint(config.result_fields())[:8]}"


def run_sweep(sweep: Sweep) -> list[str]:
    """Makes the runs that are not finished. Says of each how it went.

    Returns:
        A sentence for each run that failed; the others are made all the same, and the next
        call tries it again.

    Raises:
        DataError: If the folder cannot be written.
    """
    with _alone(sweep.out) as lock:
        problems = []
        for number, (name, config) in enumerate(sweep.runs.items(), 1):
            place = f"[{number}/{len(sweep.runs)}] {name}"
            if _made(config) is not None:
                logger.info(f"{place}: finished before")
                continue
            logger.info(f"{place}: runs, log in {config.run_dir}/{_LOG}")
            started = time.perf_counter()
            problem = _run(config, lock)
            if problem:
                problems.append(f"The run {name} failed: {problem}")
                logger.info(f"{place}: FAILED: {problem}")
            else:
                logger.info(f"{place}: {_in_words(config)}, {time.perf_counter() - started:.0f} s")
    return problems


def command(config: TrainConfig) -> list[str]:
    """The command that makes a run."""
    words = [sys.executable, "-m", "tfgraphreg", "train"]
    for field in dataclasses.fields(TrainConfig):
        value = getattr(config, field.name)
        if value is not None and value != field.default:
            flag = "--" + field.name.replace("_", "-")
            words.append(flag if value is True else f"{flag}={value}")
    return words


def _run(config: TrainConfig, lock: int) -> str | None:
    """Makes one run; gives what went wrong, if anything did."""
    log = pathlib.Path(str(config.run_dir)) / _LOG
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as file:
        process = subprocess.Popen(
            command(config),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            # A run that outlives a killed sweep keeps its folder locked.
            pass_fds=[lock],
        )
        try:
            status = process.wait()
        except BaseException:
            # Ctrl-C reached the run too; it gets a moment to write its last words.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)
            process.kill()
            process.wait()
            raise
    if status == 0 and _made(config) is not None:
        return None
    if status < 0:
        return f"it was ended by signal {-status}; see {log}"
    return f"{_last_line(log)} (status {status}); see {log}"


def _made(config: TrainConfig) -> Run | None:
    """The finished run of a config, if there is one."""
    try:
        run = read_finished(str(config.run_dir))
    except RunError:
        return None
    if configs.differences(run.config, config) or run.graph_file != file_mark(config):
        return None
    return run


def _in_words(config: TrainConfig) -> str:
    """The main number of a finished run."""
    run = _made(config)
    name = MAIN[config.task].replace("_", " ")
    return f"no {name}" if run is None or run.score is None else f"{name} {run.score:.4f}"


def _last_line(log: pathlib.Path) -> str:
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - 4000))
        lines = file.read().decode("utf-8", "replace").split("\n")
    filled = [line.strip() for line in lines if line.strip()]
    return filled[-1][:500] if filled else "it said nothing"


@contextlib.contextmanager
def _alone(out: pathlib.Path) -> Iterator[int]:
    """Waits until no other sweep, and no run that a killed sweep left behind, works in `out`."""
    import fcntl

    try:
        out.mkdir(parents=True, exist_ok=True)
        file = open(out / ".lock", "ab")  # noqa: SIM115
    except OSError as error:
        raise storage.write_error(error, out) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info(
                f"Another sweep, or a run of one that was ended, works in {out}; waiting for it."
            )
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def _typed(name: str, value: Any) -> Any:
    """A value as its field wants it. YAML takes 1e-3 for a word and 1 for a whole number."""
    hints = typing.get_type_hints(TrainConfig)
    if name not in hints:
        configs.from_mapping({name: value})
    kinds = typing.get_args(hints[name]) or (hints[name],)
    if value is None and types.NoneType in kinds:
        return None
    kind = next(k for k in kinds if k is not types.NoneType)
    wrong = ConfigError(
        f"`{name}` must be {_KIND_NAMES[kind]} in the sweep.", received=f"{name}={value!r}"
    )
    if kind is bool or isinstance(value, bool):
        if kind is bool and isinstance(value, bool):
            return value
        raise wrong
    if kind is str and isinstance(value, (str, int, float)):
        return str(value)
    if kind is int and isinstance(value, int):
        return value
    if kind is float and isinstance(value, (int, float, str)):
        with contextlib.suppress(ValueError, OverflowError):
            return float(value)
    raise wrong


_KIND_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
