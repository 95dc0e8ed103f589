"""Runs benchmarks, keeps what they found, and guards against regressions.

The JSON file holds `{"full": {...}, "quick": {...}}`, each by name of benchmark; a run replaces
what it measured and leaves the rest, so that long measurements can be made in pieces.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

from tfgraphreg import storage
from tfgraphreg.benchmark.results import NAMES, Found, commit, machine
from tfgraphreg.compat import check_optional
from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.progress import Progress, silent
from tfgraphreg.reading import read_json

# Several seeds, and starting workers, would take most of the quick mode's three minutes.
_QUICK_ALL = tuple(name for name in NAMES if name not in ("quality", "scale"))
ALLOWED = 1.15
"""A ratio may be worse than the stored one by this factor."""


def benchmark(
    name: str,
    *,
    quick: bool = False,
    json_path: str | None = None,
    check: str | None = None,
    page: str | None = None,
    show: Callable[[str, dict[str, Any]], None] = lambda name, result: None,
    progress: Progress = silent,
) -> list[str]:
    """Measures, and keeps what it found.

    Args:
        name: One of `results.NAMES`, or `"all"`.
        quick: Small sizes and few rounds: all of it in less than three minutes on two cores.
        json_path: File that the results are merged into.
        check: File of stored results to compare with.
        page: Markdown file to write from the results in `json_path`.
        show: Called with the name and the result of each benchmark as soon as it is measured.
        progress: Called while work goes on.

    Returns:
        Ratios that are worse than stored by more than 15%, as sentences.

    Raises:
        ConfigError: If the name is unknown.
        MissingExtraError: If workers are to be measured and Dask is not installed.
        DataError: If a file of results cannot be read.
    """
    check_arguments(name, json_path=json_path, page=page)
    stored = _read(check) if check else None
    kept = _read(json_path) if json_path and pathlib.Path(json_path).exists() else {}
    names = (_QUICK_ALL if quick else NAMES) if name == "all" else (name,)
    if "scale" in names:
        check_optional("distributed", "scale", "The benchmark scale")
    mode = "quick" if quick else "full"
    worse: list[str] = []
    compared = 0
    for one in names:
        start, before = time.perf_counter(), machine()
        found = _measure(one, quick, progress)
        result = {
            **dataclasses.asdict(found),
            "seconds": round(time.perf_counter() - start, 1),
            "commit": commit(),
            "machine": before,
            "versions": _versions(),
        }
        show(one, result)
        if json_path:
            kept = _keep(pathlib.Path(json_path), mode, one, result)
        if stored is not None:
            old = stored.get(mode, {}).get(one, {}).get("ratios", {})
            compared += len(old.keys() & result["ratios"].keys())
            worse += regressions(old, result["ratios"])
    if page:
        from tfgraphreg.benchmark.page import write_page

        write_page(page, kept)
    if stored is not None and not compared:
        raise DataError(
            f"{check} holds nothing to compare a {mode} run of {name} with.",
            cure=f"Make it first: tfgraphreg benchmark {name}"
            + (" --quick" if quick else "")
            + f" --json {check}.",
        )
    return worse


def check_arguments(name: str, *, json_path: str | None, page: str | None) -> None:
    """Refuses what cannot be measured or written.

    Raises:
        ConfigError: If the name is unknown, or a page is asked for without results to keep.
    """
    if name not in (*NAMES, "all"):
        raise ConfigError(
            "Unknown benchmark.", received=repr(name), cure=f"Use one of {', '.join(NAMES)} or all."
        )
    if page and not json_path:
        raise ConfigError("`page` needs `json`.", cure="Name the results to make it from.")


def regressions(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What became worse by more than 15%: a sentence each.

    Args:
        before: Stored ratios by name, see `Found`.
        now: Those of this run. Names that only one side has are left out.
    """
    found = []
    for name in sorted(before.keys() & now.keys()):
        old, new = before[name]["value"], now[name]["value"]
        higher = now[name]["better"] == "higher"
        if (new * ALLOWED < old) if higher else (new > old * ALLOWED):
            found.append(
                f"{name}: {new:.4g}, stored {old:.4g} "
                f"({now[name]['better']} is better, 15% are allowed)"
            )
    return found


def _measure(name: str, quick: bool, progress: Progress) -> Found:
    from tfgraphreg.compat import load_nsl

    load_nsl()
    module = importlib.import_module(f"tfgraphreg.benchmark.{name}")
    return module.measure(
        quick=quick, progress=lambda what, done, total: progress(f"{name}: {what}", done, total)
    )


def _versions() -> dict[str, str]:
    from tfgraphreg.recipes.versions import versions

    return versions()


def _keep(path: pathlib.Path, mode: str, name: str, result: dict[str, Any]) -> dict[str, Any]:
    """Merges a result into a file, which another process may have written meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with storage.lock_folder(path.parent):
        kept = _read(path) if path.exists() else {}
        kept.setdefault(mode, {})[name] = result
        storage.write_json(path, kept)
    return kept


def _read(path: os.PathLike[str] | str) -> dict[str, Any]:
    try:
        found = read_json(path)
    except ValueError as error:
        raise DataError(f"{path} cannot be read as results ({error}).") from error
    if not set(found) <= {"full", "quick"}:
        raise DataError(
            f"{path} holds no results of a benchmark.",
            cure="Make them: tfgraphreg benchmark all --json FILE.",
        )
    return found
