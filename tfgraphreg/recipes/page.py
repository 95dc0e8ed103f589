"""From compared runs to report.html, and the command that does both."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfgraphreg.errors import ConfigError, DataError, TFGraphRegError
from tfgraphreg.progress import silent
from tfgraphreg.recipes.compare import (
    ALWAYS_SHOWN,
    Comparison,
    compare,
    gather,
    told_of,
    with_numbers,
)
from tfgraphreg.recipes.tables import write_tables
from tfgraphreg.runs.run import MAIN, Run
from tfgraphreg.storage import (
    UNREADABLE_NPZ,
    check_note,
    note_of,
    one_writer,
    read_arrays,
    user_path,
)
from tfgraphreg.visualize import report
from tfgraphreg.visualize.style import read_picture

logger = logging.getLogger(__name__)

EMBEDDINGS = ("embedding.npz", "embedding_3d.npz")
# Each brings its pictures into the page.
_MAX_EMBEDDINGS = 4
_MAX_PICTURES = 24
_MAX_PICTURE_BYTES = 5_000_000
_MAX_POINTS = 5_000_000
_LOCK = ".tables.lock"


def compare_runs(
    paths: Sequence[str], *, sweep: str | None = None, out: str | None = None
) -> Comparison:
    """Makes the runs of a sweep, if one is named, then table.csv, table.md and report.html.

    Args:
        paths: Run folders, or folders of run folders.
        sweep: A sweep file (see `tfgraphreg.recipes.sweep.read_sweep`).
        out: Folder for the results. Default: the sweep's own, else `comparison`.

    Raises:
        ConfigError: If neither runs nor a sweep are named, or the sweep is wrong.
        RunError: If no run is finished.
        DataError: If the results cannot be written.
    """
    if not paths and sweep is None:
        raise ConfigError(
            "There is nothing to compare.", cure="Name run folders, or a file with `sweep`."
        )
    failed: list[str] = []
    folders: list[Any] = list(paths)
    folder = user_path(out or "comparison")
    if sweep is not None:
        from tfgraphreg.recipes.sweep import read_sweep, run_sweep

        plan = read_sweep(sweep)
        failed = run_sweep(plan)
        # A failed run has been reported already.
        names = [name for name in plan.runs if not any(f" {name} " in text for text in failed)]
        folders += [plan.out / name for name in names]
        folder = folder if out else plan.out
    runs, problems = gather(folders)
    found = compare(runs, problems=[*failed, *problems])
    # Of two at once, the files must be of the same one.
    files = [folder / name for name in ("table.csv", "table.md", "report.html")]
    with one_writer(folder / _LOCK, *files):
        write_tables(found, folder)
        write_page(found, folder / "report.html")
    logger.info(
        f"Table: {folder / 'table.csv'}, {folder / 'table.md'}    Page: {folder / 'report.html'}"
    )
    return found


def write_page(comparison: Comparison, path: os.PathLike[str] | str) -> pathlib.Path:
    """Writes the page of a comparison, with the embeddings and figures of its run folders.

    Raises:
        DataError: If the page cannot be written.
    """
    embeddings, problems = _embeddings(comparison.runs)
    pictures, damaged = _pictures(comparison.runs)
    problems += damaged
    for problem in problems:
        logger.info(problem)
    return report.write_report(
        path,
        title="Comparison of runs" if len(comparison.runs) > 1 else comparison.runs[0].name,
        tables=[
            _results(comparison, rows, heading, metrics)
            for title, rows in comparison.tables.items()
            for heading, metrics in (
                (title, with_numbers(comparison.metrics, rows)),
                (f"{title}: more numbers", with_numbers(comparison.more, rows)),
            )
            if metrics
        ],
        graphs=_graphs(comparison.runs),
        runs=[_shown(run, comparison.columns) for run in comparison.runs],
        embeddings=embeddings,
        pictures=pictures,
        notes=comparison.notes,
        problems=[*comparison.problems, *problems],
    )


def read_embedding(run: Run, name: str = EMBEDDINGS[0]) -> report.Embedding:
    """The picture of a run's embedding, of the file `name` in its folder.

    The file's arrays: `points [N, 2 or 3]`, `labels [N]` class numbers, and, if known,
    `indices [N]` positions in a split, `split` ("train" or "test", the default),
    `class_names [C]`, `thumbnails [N, h, w, 1 or 3]` uint8 and `neighbors [N, K]`, positions
    among the N of the nearest items in the embedding. Without thumbnails the run's dataset is
    loaded for them.

    Raises:
        DataError: If the file is missing or damaged.
    """
    path = run.path / name
    try:
        check_note(path)
        arrays = read_arrays(path)
        points = arrays["points"].astype(np.float64)
        for key in ("indices", "neighbors"):
            if key in arrays:
                arrays[key] = arrays[key].astype(np.int64)
        if points.size > _MAX_POINTS * 3:
            raise ValueError(f"more than {_MAX_POINTS} points")
        labels = arrays["labels"].astype(np.int64)
    except UNREADABLE_NPZ as error:
        raise DataError(
            f"{path} is no usable embedding ({error}).",
            cure="Make it again with `tfgraphreg embed`.",
        ) from error
    highest = int(labels.max(initial=-1)) + 1
    return report.Embedding(
        name=f"{run.name}: {arrays['title']}" if "title" in arrays else run.name,
        points=points,
        labels=labels,
        class_names=_class_names(run, arrays.get("class_names"), highest),
        thumbnails=arrays["thumbnails"] if "thumbnails" in arrays else _thumbnails(run, arrays),
        neighbors=arrays.get("neighbors"),
        items=arrays.get("indices"),
        ids=arrays["ids"].astype(str) if "ids" in arrays else None,
    )


def _embeddings(runs: Sequence[Run]) -> tuple[list[report.Embedding], list[str]]:
    found: list[report.Embedding] = []
    problems: list[str] = []
    # The best first; the page would grow too heavy with all of them.
    order = sorted(runs, key=lambda run: (-(run.score or 0.0), run.name))
    having = [
        (run, name)
        for run in order
        for name in EMBEDDINGS
        if any(path.exists() for path in (run.path / name, note_of(run.path / name)))
    ]
    for run, name in having[:_MAX_EMBEDDINGS]:
        try:
            made = read_embedding(run, name)
            report.check_embedding(made)
            found.append(made)
        except TFGraphRegError as error:
            problems.append(f"The embedding of {run.name} is not shown: {error}")
    if len(having) > _MAX_EMBEDDINGS:
        problems.append(
            f"{_MAX_EMBEDDINGS} of {len(having)} embeddings are shown, those of the best runs."
        )
    return found, problems


def _class_names(run: Run, named: np.ndarray | None, highest: int) -> list[str]:
    names = list(run.metrics.get("per_class_accuracy") or {}) if named is None else list(named)
    return [str(name) for name in names] + [f"class {c}" for c in range(len(names), highest)]


def _thumbnails(run: Run, arrays: dict[str, np.ndarray]) -> np.ndarray | None:
    if "indices" not in arrays:
        return None
    from tfgraphreg.runs.outputs import load_data

    try:
        data = load_data(run.config, silent)
    except TFGraphRegError as error:
        logger.info(f"The embedding of {run.name} is shown without images: {error}")
        return None
    images = (data.train if str(arrays.get("split", "test")) == "train" else data.test).images
    indices = arrays["indices"].astype(np.int64)
    if len(indices) and not 0 <= indices.min() <= indices.max() < len(images):
        raise DataError(f"The indices in the embedding of {run.name} do not belong to the dataset.")
    images = images[indices]
    return images if images.dtype == np.uint8 and images.shape[-1] in (1, 3) else None


def _results(
    comparison: Comparison, rows: Sequence[dict[str, Any]], title: str, metrics: Sequence[str]
) -> report.Table:
    fields = [
        name
        for name in comparison.columns
        if name != "dataset" and len({repr(row[name]) for row in rows}) > 1
    ]
    keys = list(fields)
    columns = [report.Column(name=name.replace("_", " ")) for name in fields]
    for index, metric in enumerate(metrics):
        name = metric.replace("_", " ")
        shown = [("mean", name, False), ("std", "± std", False)]
        if index == 0:
            shown += [("difference", "difference to alpha=0", True)]
            shown += [("low", "95 % from", True), ("high", "to", True)]
        for key, header, signed in shown:
            if key != "mean" and all(row[f"{metric}_{key}"] is None for row in rows):
                continue
            keys.append(f"{metric}_{key}")
            columns.append(report.Column(name=header, digits=4, signed=signed))
    # How many, as in the other tables; which they are stands in the table of every run.
    keys += ["runs", "train_seconds_mean"]
    columns += [report.Column(name="seeds"), report.Column(name="seconds", digits=1)]
    return report.Table(
        title=title,
        columns=columns,
        rows=[[_cell(row[key]) for key in keys] for row in rows],
        note=f"{_common(comparison, rows[0], fields)} Mean and standard deviation over seeds; the "
        "difference is paired by seed, with Student's 95 % confidence interval.",
    )


# Of the settings that all rows have in common, those that a reader asks for first.
_ALWAYS_TOLD = ("backbone", "distance", "neighbors", "alpha", "epochs", "batch_size")
_TOLD_IF_SET = ("labels_per_class", "limit", "validation_fraction", "augment")


def _common(comparison: Comparison, row: dict[str, Any], varying: Sequence[str]) -> str:
    """What all runs in the table of a row have in common, in a sentence."""
    table = row["dataset"], row["task"]
    runs = [run for run in comparison.runs if (run.config.dataset, run.config.task) == table]
    defaults = {field.name: field.default for field in dataclasses.fields(runs[0].config)}
    told = []
    for name in (*_ALWAYS_TOLD, *_TOLD_IF_SET):
        # What a config leaves open is told by the metrics.
        values = [run.metrics.get(name, told_of(run.config, name)) for run in runs]
        value = values[0]
        if (
            values.count(value) == len(values)
            and name not in varying
            and (name in _ALWAYS_TOLD or value != defaults[name])
        ):
            told.append(f"{name.replace('_', ' ')} {'auto' if value is None else value}")
    return f"In all rows: {', '.join(told)}." if told else ""


def _cell(value: Any) -> Any:
    return "yes" if value is True else "no" if value is False else value


def _shown(run: Run, columns: Sequence[str]) -> report.Run:
    told = [n for n in columns if n not in ("dataset", "alpha", "labels_per_class")]
    config = run.config
    return report.Run(
        name=run.name,
        dataset=config.dataset,
        kind=", ".join(_word(name, told_of(config, name)) for name in told),
        alpha=config.alpha,
        labels_per_class=config.labels_per_class,
        score=run.score,
        measure=MAIN[config.task].replace("_", " "),
        history=run.history,
        config=dataclasses.asdict(config),
    )


def _word(name: str, value: Any) -> str:
    """A setting in words; cnn5 and cosine say themselves what they are, none does not."""
    known = name in ALWAYS_SHOWN and isinstance(value, str)
    return value if known else f"{name.replace('_', ' ')} {value}"


def _graphs(runs: Sequence[Run]) -> report.Table | None:
    """One row for each graph that differs from the others; runs often share theirs."""
    rows: dict[tuple[Any, ...], list[Any]] = {}
    for run in runs:
        graph = run.metrics.get("graph")
        if not isinstance(graph, dict):
            continue
        config = run.config
        told = (
            config.dataset,
            config.graph,
            config.graph_features,
            config.graph_metric,
            config.graph_neighbors,
            *(graph.get(name) for name in ("nodes", "edges", "edge_label_agreement")),
        )
        rows.setdefault(told, [*told, 0])[-1] += 1
    if not rows:
        return None
    names = ("dataset", "graph", "features", "metric", "neighbors", "nodes", "edges")
    columns = [report.Column(name=name) for name in names]
    columns += [report.Column(name="label agreement", digits=4), report.Column(name="runs")]
    return report.Table(
        title="Graphs",
        columns=columns,
        rows=list(rows.values()),
        note="Label agreement: share of edges between images of the same class.",
    )


def _pictures(runs: Sequence[Run]) -> tuple[list[report.Picture], list[str]]:
    """The figures that other commands left in the run folders, and what is wrong with some."""
    found: list[report.Picture] = []
    problems: list[str] = []
    for run in runs:
        # Figures are saved as PNG and as SVG; of one that lost its PNG the SVG is left.
        drawn = {path.with_suffix(".png") for path in run.path.glob("figures/*.svg")}
        for path in sorted({*run.path.glob("*.png"), *run.path.glob("figures/*.png"), *drawn}):
            if len(found) == _MAX_PICTURES:
                break
            try:
                if path.stat().st_size > _MAX_PICTURE_BYTES:
                    continue
                content = read_picture(path)
            except FileNotFoundError:
                problems.append(f"A picture of {run.name} is not shown: {path} is gone")
                continue
            except DataError as error:
                problems.append(f"A picture of {run.name} is not shown: {error}")
                continue
            title = f"{run.name}: {path.stem.replace('_', ' ')}"
            found.append(report.Picture(title=title, png=content))
    return found, problems
