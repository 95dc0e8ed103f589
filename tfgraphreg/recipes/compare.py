"""Run folders into one table: mean, spread, and what the graph term changed.

A row holds the runs that differ in nothing but their seed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tfgraphreg import config as configs
from tfgraphreg import storage
from tfgraphreg.config import TrainConfig, names_of
from tfgraphreg.errors import RunError, TFGraphRegError
from tfgraphreg.graph.settings import GraphSettings
from tfgraphreg.neighbors.settings import NeighborSettings
from tfgraphreg.runs.folder import CONFIG, METRICS
from tfgraphreg.runs.run import MAIN, PARTS, REPORTED, Run, number, read_finished

METRIC_NAMES = (
    "test_accuracy",
    "test_mean_average_precision",
    "recall_at_1",
    "precision_at_10",
    "mean_average_precision",
    *PARTS,
)
# In table.csv and on the page.
_MORE = tuple(
    f"{name}_probe" if group == "probes" else name
    for group, names in REPORTED.items()
    for name in names
)
ALWAYS_SHOWN = ("dataset", "backbone", "distance", "alpha", "neighbors")
_CONFIDENCE = 0.95
# What alpha=0 leaves without any effect on training. `distance` still decides the retrieval.
_GRAPH_ONLY = {
    *names_of(GraphSettings),
    *names_of(NeighborSettings),
    "regularize",
    "graph_loss",
    "contrast_temperature",
}
_FREE_OF_DISTANCE = ("test_accuracy", "test_mean_average_precision", *PARTS)
_TITLES = {"segment": "masks", "detect": "boxes"}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Runs, their table, and what was in the way.

    Attributes:
        runs: The runs in the table.
        rows: A mapping for each set of runs that differ only in their seed: the `columns`,
            then `task`, `runs`, `seeds` and for each metric M that some run has `M_mean`, `M_std`
            (sample standard deviation, None for one run), `M_difference` (mean of the paired
            differences to alpha=0 of the same seed), `M_low` and `M_high` (its 95 %
            confidence interval by Student's t), `M_pairs`.
        columns: Fields of the config that are shown: the usual ones and all that vary.
        metrics: Names of the metrics that some run has.
        problems: A sentence for each folder that was left out.
        notes: Sentences about the table as a whole.
        more: Names of further metrics in the rows, for table.csv and the page.
    """

    runs: list[Run]
    rows: list[dict[str, Any]]
    columns: list[str]
    metrics: list[str]
    problems: list[str]
    notes: list[str]
    more: list[str] = dataclasses.field(default_factory=list)

    @property
    def datasets(self) -> list[str]:
        """The datasets of the runs, each once."""
        return list(dict.fromkeys(row["dataset"] for row in self.rows))

    @property
    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Rows by the title of their table: those of one dataset and task can be compared."""
        found: dict[str, list[dict[str, Any]]] = {}
        for row in self.rows:
            words = (row["dataset"], _TITLES.get(row["task"]))
            found.setdefault(": ".join(filter(None, words)), []).append(row)
        return found


def gather(paths: Iterable[os.PathLike[str] | str]) -> tuple[list[Run], list[str]]:
    """Reads run folders; a folder of run folders stands for all of them.

    Returns:
        The finished runs, and a sentence for each folder that is broken, unfinished, or says
        the same config and seed as an earlier one.
    """
    runs: list[Run] = []
    problems: list[str] = []
    seen: dict[str, Run] = {}
    for path in _run_folders(paths):
        try:
            run = read_finished(path)
        except TFGraphRegError as error:
            problems.append(str(error))
            continue
        mark = storage.fingerprint([run.config.result_fields(), run.graph_file])
        if mark in seen:
            problems.append(
                f"{path} repeats the config and seed of {seen[mark].path} and was left out."
            )
            continue
        seen[mark] = run
        runs.append(run)
    return runs, problems


def compare(runs: Sequence[Run], *, problems: Sequence[str] = ()) -> Comparison:
    """The table of finished runs.

    Raises:
        RunError: If there is no run.
    """
    if not runs:
        raise RunError(
            "There is no finished run to compare.",
            received="; ".join(problems) or "no run folder",
            cure="Name folders that training runs made.",
        )
    metrics = [m for m in METRIC_NAMES if _values(runs, m)]
    groups: dict[str, list[Run]] = {}
    for run in runs:
        mark = storage.fingerprint([_without(run.config, {"seed"}), run.graph_file])
        groups.setdefault(mark, []).append(run)
    columns = _shown_columns([group[0].config for group in groups.values()])
    more = [m for m in _MORE if _values(runs, m)]
    rows = [_row(group, runs, columns, [*metrics, *more]) for group in groups.values()]
    # By task within a dataset, as the tables are.
    order = ["dataset", "task", *columns]
    rows.sort(key=lambda row: [_sort_key(row[name]) for name in order])
    return Comparison(list(runs), rows, columns, metrics, list(problems), _notes(runs, rows), more)


def told_of(config: TrainConfig, name: str) -> Any:
    """A setting as tables show it: `neighbors` of a detector are those of its regions."""
    regions = name == "neighbors" and config.task == "detect"
    return "regions" if regions else getattr(config, name)


def with_numbers(metrics: Sequence[str], rows: Sequence[dict[str, Any]]) -> list[str]:
    """The metrics that some of the rows have."""
    return [m for m in metrics if any(row[f"{m}_mean"] is not None for row in rows)]


def paired_interval(differences: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % confidence interval of the mean of n paired differences, by Student's t.

    Returns:
        Its two ends, or None if n < 2.
    """
    if len(differences) < 2:
        return None
    from scipy.special import stdtrit

    values = np.asarray(differences, np.float64)
    half = float(
        stdtrit(len(values) - 1, 0.5 + _CONFIDENCE / 2) * values.std(ddof=1) / len(values) ** 0.5
    )
    return float(values.mean()) - half, float(values.mean()) + half


def _run_folders(paths: Iterable[os.PathLike[str] | str]) -> list[pathlib.Path]:
    found: dict[pathlib.Path, pathlib.Path] = {}
    for given in paths:
        path = pathlib.Path(given)
        inside = [path]
        if path.is_dir() and not (path / CONFIG).exists() and not (path / METRICS).exists():
            inside = sorted(child.parent for child in path.glob(f"*/{CONFIG}")) or [path]
        for folder in inside:
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def _row(
    group: list[Run], runs: Sequence[Run], columns: list[str], metrics: list[str]
) -> dict[str, Any]:
    config = dataclasses.asdict(group[0].config)
    row: dict[str, Any] = {name: told_of(group[0].config, name) for name in columns}
    row["task"] = config["task"]
    row["runs"] = len(group)
    row["seeds"] = " ".join(str(seed) for seed in sorted(run.config.seed for run in group))
    for metric in metrics:
        values = _values(group, metric)
        row[f"{metric}_mean"] = float(np.mean(values)) if values else None
        row[f"{metric}_std"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
        pairs = [] if config["alpha"] == 0 else _paired_differences(group, runs, metric)
        low, high = paired_interval(pairs) or (None, None)
        row[f"{metric}_difference"] = float(np.mean(pairs)) if pairs else None
        row[f"{metric}_low"], row[f"{metric}_high"] = low, high
        row[f"{metric}_pairs"] = len(pairs)
    seconds = _values(group, "train_seconds")
    row["train_seconds_mean"] = float(np.mean(seconds)) if seconds else None
    return row


def _paired_differences(group: list[Run], runs: Sequence[Run], metric: str) -> list[float]:
    found = []
    for run in group:
        plain = baseline_of(run, runs, metric)
        left = number(run.metrics, metric)
        right = number(plain.metrics, metric) if plain else None
        if left is not None and right is not None:
            found.append(left - right)
    return found


def baseline_of(run: Run, runs: Sequence[Run], metric: str) -> Run | None:
    """The run with alpha=0 and the same seed that differs from `run` in nothing that matters.

    Settings of the graph do not change a run without a graph term, so they may differ; where
    several fit, the one with the fewest differences is taken.
    """
    free = {"alpha", *_GRAPH_ONLY}
    if metric in _FREE_OF_DISTANCE:
        free.add("distance")
    wanted = _without(run.config, free)
    fitting = [r for r in runs if r.config.alpha == 0 and _without(r.config, free) == wanted]
    return min(
        fitting,
        key=lambda r: (len(configs.differences(r.config, run.config)), r.name),
        default=None,
    )


def _without(config: TrainConfig, names: set[str]) -> dict[str, Any]:
    return {k: v for k, v in config.result_fields().items() if k not in names}


def _shown_columns(found: list[TrainConfig]) -> list[str]:
    fields = [f.name for f in dataclasses.fields(TrainConfig) if f.name in found[0].result_fields()]
    vary = {
        name for name in fields if len({repr(getattr(config, name)) for config in found}) > 1
    } - {"seed", "task"}
    return [*ALWAYS_SHOWN, *(n for n in fields if n in vary and n not in ALWAYS_SHOWN)]


def _notes(runs: Sequence[Run], rows: list[dict[str, Any]]) -> list[str]:
    notes = []
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    if len(datasets) > 1:
        notes.append(
            f"The runs are of {len(datasets)} datasets ({', '.join(datasets)}), whose numbers "
            "cannot be compared with each other; each has a table of its own."
        )
    tasks = sorted({row["task"] for row in rows})
    if len(tasks) > 1:
        notes.append(
            f"The runs are of {len(tasks)} tasks ({', '.join(tasks)}), whose numbers cannot be "
            "compared with each other; each has a table of its own."
        )
    versions = {json.dumps(run.metrics.get("versions"), sort_keys=True) for run in runs}
    if len(versions) > 1:
        notes.append(
            "The runs were made with different versions of packages (see their metrics.json)."
        )
    pieces = sum(bool(run.metrics.get("continued_after")) for run in runs)
    if pieces:
        notes.append(
            f"{pieces} of the {len(runs)} runs were given more epochs after their last: their "
            "learning rate is not that of a run of one piece."
        )
    alone = sum(
        row["alpha"] > 0 and row.get(f"{MAIN[row['task']]}_pairs", 0) < row["runs"] for row in rows
    )
    if alone:
        notes.append(
            f"{alone} of {len(rows)} rows have runs without a run of alpha=0, the same seed and "
            "otherwise the same settings; the difference is that of the pairs there are."
        )
    return notes


def _values(runs: Sequence[Run], name: str) -> list[float]:
    found = (number(run.metrics, name) for run in runs)
    return [value for value in found if value is not None]


def _sort_key(value: Any) -> tuple[int, float, str]:
    if isinstance(value, (int, float)):
        return 0, float(value), ""
    return (2, 0.0, "") if value is None else (1, 0.0, str(value))
