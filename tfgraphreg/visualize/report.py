"""report.html: runs, their tables, curves and embeddings in one file that needs nothing else.

The page makes no request: its Content-Security-Policy forbids them all. Every text in it is
data to the page's script, which writes it as text, so a run or a class may have any name.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfgraphreg.errors import DataError
from tfgraphreg.visualize.page import data_uri, write_page

MAX_POINTS = 20_000
_MAX_TILE = 32
_MAX_NEIGHBORS = 20
_LONGEST_ID = 200
_PARTS = ("report_script.html", "report_embedding.html")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its header.
        digits: Digits after the point, for numbers; None shows them as they are.
        signed: Whether a plus is shown.
    """

    name: str
    digits: int | None = None
    signed: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A sortable table. Cells are text, numbers or None."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A run as the page shows it.

    Attributes:
        name: Its name.
        dataset: What it was trained on.
        kind: What sets it apart from other runs of the dataset, besides `alpha`,
            `labels_per_class` and seed; runs of the same kind make one line of a chart.
        alpha: Weight of the graph term.
        labels_per_class: Label budget; None is all labels.
        score: The number that charts show, in [0, 1]; None if there is none.
        history: A row of named numbers for each epoch.
        config: Settings by name.
        measure: What `score` is. Runs of other measures are in other charts.
    """

    name: str
    dataset: str
    kind: str
    alpha: float
    labels_per_class: int | None
    score: float | None
    history: Sequence[Mapping[str, float]]
    config: Mapping[str, Any]
    measure: str = "test accuracy"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Embedding:
    """A picture of an embedding.

    Attributes:
        name: Its title, usually the run's name.
        points: `[N, 2]` or `[N, 3]` finite positions.
        labels: `[N]` class numbers, -1 for none.
        class_names: C names.
        thumbnails: `[N, height, width, 1 or 3]` uint8, or None.
        neighbors: `[N, K]` positions of the nearest items in the embedding that the picture
            shows, nearest first, -1 for none; None takes the nearest in the picture instead.
        items: `[N]` numbers by which the items are named; default 0 to N-1.
        ids: `[N]` texts that name the items instead, such as the paths of their files.
    """

    name: str
    points: np.ndarray
    labels: np.ndarray
    class_names: Sequence[str]
    thumbnails: np.ndarray | None = None
    neighbors: np.ndarray | None = None
    items: np.ndarray | None = None
    ids: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG file's bytes, with a title that also describes it to who cannot see it."""

    title: str
    png: bytes


def write_report(
    path: os.PathLike[str] | str,
    *,
    title: str = "What was learned",
    tables: Sequence[Table] = (),
    graphs: Table | None = None,
    runs: Sequence[Run] = (),
    embeddings: Sequence[Embedding] = (),
    pictures: Sequence[Picture] = (),
    notes: Sequence[str] = (),
    problems: Sequence[str] = (),
    seed: int = 0,
) -> pathlib.Path:
    """Writes the page.

    Args:
        path: The HTML file.
        title: Heading of the page.
        tables: The results.
        graphs: Diagnostics of the graphs.
        runs: For the curves, the charts of accuracy, and the list of settings.
        embeddings: Pictures to move in; of more than 20,000 points a random part is shown.
        pictures: Figures, such as retrieval grids.
        notes: Sentences about the results.
        problems: Sentences about what is missing.
        seed: Of the choice of points.

    Raises:
        DataError: If an embedding's arrays do not fit each other, or the file cannot be written.
    """
    sprites: dict[str, str] = {}
    content = {
        "title": title,
        "tables": [_table(table) for table in tables],
        "graphs": _table(graphs) if graphs else None,
        "runs": [_run(run) for run in runs],
        "embeddings": [_embedding(item, sprites, seed) for item in embeddings],
        "sprites": list(sprites.values()),
        "pictures": [{"title": p.title, "source": data_uri(p.png)} for p in pictures],
        "notes": list(notes),
        "problems": list(problems),
    }
    return write_page(path, content, parts=_PARTS)


def _table(table: Table) -> dict[str, Any]:
    width = len(table.columns)
    for row in table.rows:
        if len(row) != width:
            raise DataError(
                "A table's rows must be as wide as its header.", received=f"{len(row)}, {width}"
            )
    return {
        "title": table.title,
        "note": table.note,
        "columns": [dataclasses.asdict(column) for column in table.columns],
        "rows": [list(row) for row in table.rows],
    }


def _run(run: Run) -> dict[str, Any]:
    names = dict.fromkeys(name for row in run.history for name in row)
    return {
        **{name: getattr(run, name) for name in ("name", "dataset", "kind", "alpha")},
        "score": run.score,
        "measure": run.measure,
        "budget": run.labels_per_class,
        "history": {name: [row.get(name) for row in run.history] for name in names},
        "config": dict(run.config),
    }


def _embedding(item: Embedding, sprites: dict[str, str], seed: int) -> dict[str, Any]:
    points = np.asarray(item.points, np.float64)
    count = len(points)
    check_embedding(item)
    names = np.arange(count) if item.items is None else np.asarray(item.items, np.int64)
    kept = np.arange(count)
    if count > MAX_POINTS:
        kept = np.sort(np.random.default_rng(seed).choice(count, MAX_POINTS, replace=False))
    middle = (points.min(0) + points.max(0)) / 2 if count else 0.0
    half = max(float(np.abs(points - middle).max(initial=0.0)), 1e-30)
    flat = np.round((points[kept] - middle) / half * 32767).astype("<i2")
    in_picture = item.neighbors is None
    near = item.neighbors
    found = _nearest(points[kept]) if near is None else _renamed(near, kept, count)
    made = {
        "name": item.name,
        "total": count,
        "count": len(kept),
        "width": points.shape[1],
        "points": _base64(flat),
        "labels": _base64(np.asarray(item.labels)[kept].astype("<i4")),
        "classes": [str(name) for name in item.class_names],
        "items": _base64(names[kept].astype("<i4")),
        "ids": None if item.ids is None else [str(item.ids[i])[:_LONGEST_ID] for i in kept],
        "neighbors": _base64(found.astype("<i4")),
        "k": found.shape[1],
        "inPicture": in_picture,
        "sprite": None,
    }
    if item.thumbnails is not None and count:
        sheet, tile, columns = sprite_sheet(np.asarray(item.thumbnails)[kept])
        source = data_uri(sheet)
        sprites.setdefault(source, source)
        made.update(sprite=list(sprites).index(source), tile=tile, columns=columns)
    return made


def check_embedding(item: Embedding) -> None:
    """Refuses arrays that do not fit each other.

    Raises:
        DataError: If they do not.
    """
    points = np.asarray(item.points, np.float64)
    if points.ndim != 2 or points.shape[1] not in (2, 3) or not np.isfinite(points).all():
        raise DataError(
            "`points` must be finite numbers of shape [N, 2] or [N, 3].",
            received=f"shape {points.shape}",
        )
    for name in ("labels", "thumbnails", "neighbors", "items", "ids"):
        value = getattr(item, name)
        if value is not None and len(value) != len(points):
            raise DataError(
                f"`{name}` must have an entry for each point.",
                received=f"{len(value)} entries, {len(points)} points",
            )
    labels = np.asarray(item.labels)
    if labels.ndim != 1 or (labels >= len(item.class_names)).any() or (labels < -1).any():
        raise DataError(
            "`labels` must be class numbers, or -1, one for each point.",
            received=f"shape {labels.shape}, {len(item.class_names)} class names",
        )
    if item.neighbors is not None:
        neighbors = np.asarray(item.neighbors)
        if neighbors.ndim != 2 or (neighbors >= len(points)).any() or (neighbors < -1).any():
            raise DataError("`neighbors` must be positions of points, or -1, of shape [N, K].")


def _renamed(neighbors: np.ndarray, kept: np.ndarray, count: int) -> np.ndarray:
    """Neighbors of the kept points as positions among the kept; -1 for those left out."""
    place = np.full(count + 1, -1, np.int64)
    place[kept] = np.arange(len(kept))
    return place[np.asarray(neighbors, np.int64)[kept, :_MAX_NEIGHBORS]]


def _nearest(points: np.ndarray) -> np.ndarray:
    from scipy.spatial import cKDTree

    count = min(10, len(points) - 1)
    if count < 1:
        return np.empty((len(points), 0), np.int64)
    _, found = cKDTree(points).query(points, k=count + 1)
    # Among points at the same place a point need not come first in its own list.
    others = [row[row != i][:count] for i, row in enumerate(found)]
    return np.stack(others)


def sprite_sheet(thumbnails: np.ndarray) -> tuple[bytes, int, int]:
    """All thumbnails in one PNG, row by row.

    Args:
        thumbnails: `[N, height, width, 1 or 3]` (or `[N, height, width]`) uint8, N >= 1.

    Returns:
        The PNG, the side of a tile in pixels (at most 32), and the number of columns.

    Raises:
        DataError: If the shape or type is another.
    """
    from PIL import Image

    images = np.asarray(thumbnails)
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in ((), (3,)):
        raise DataError(
            "`thumbnails` must be uint8 of shape [N, height, width, 1 or 3].",
            received=f"{images.dtype} {images.shape}",
        )
    tile = min(_MAX_TILE, max(images.shape[1:3]))
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    gray = images.ndim == 3
    sheet = Image.new("L" if gray else "RGB", (columns * tile, rows * tile))
    for index, pixels in enumerate(images):
        image = Image.fromarray(pixels)
        if max(image.size) > tile:
            image.thumbnail((tile, tile))
        left = (index % columns) * tile + (tile - image.width) // 2
        sheet.paste(image, (left, (index // columns) * tile + (tile - image.height) // 2))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue(), tile, columns


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
