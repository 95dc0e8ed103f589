"""history.csv: one row an epoch."""

from __future__ import annotations

import csv
import io
import pathlib

from tfgraphreg.storage import write_text

Row = dict[str, float]
HISTORY = "history.csv"


def read_history(path: pathlib.Path, *, epochs: int | None = None) -> list[Row]:
    """Rows of a history file, at most the first `epochs`; none if there is no file."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    return rows if epochs is None else rows[:epochs]


def write_history(path: pathlib.Path, rows: list[Row]) -> None:
    """Writes all rows at once, atomically. The columns are those of the first row."""
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        # In full: a resumed run takes its numbers from here.
        writer.writerow({k: repr(v) for k, v in row.items()})
    write_text(path, out.getvalue())


def best_epoch(rows: list[Row]) -> int:
    """The number (from 0) of the epoch with the highest validation accuracy, else the last.

    Without a validation set the training loss would choose; it falls with almost every
    epoch, so the last epoch stands for it.
    """
    if "val_accuracy" not in rows[0]:
        return len(rows) - 1
    return max(range(len(rows)), key=lambda i: rows[i]["val_accuracy"])
