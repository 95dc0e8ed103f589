"""history.csv: one row an epoch."""

from __future__ import annotations

import csv
import io
import pathlib

from tfgraphreg.errors import RunError, first_line
from tfgraphreg.storage import check_note, write_noted

Row = dict[str, float]
HISTORY = "history.csv"
# Ends of the names of the columns that a person reads after each epoch.
SHOWN = ("loss", "accuracy", "iou", "ap50")
# By which the best epoch is chosen: a column for each task.
CHOSEN_BY = ("val_accuracy", "val_mean_iou", "val_ap50")


def read_history(path: pathlib.Path) -> list[Row]:
    """Rows of a history file; none if there is no file.

    Raises:
        RunError: If the file is damaged: truncated, or with a line that is no row of numbers.
    """
    if not path.exists():
        return []
    try:
        rows = _parse(path.read_text(encoding="utf-8"))
        if rows:
            check_note(path)
        return rows
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(
            f"The run folder {path.parent} is broken ({path.name}: {first_line(error)}).",
            cure="Put the file back as it was, or start a new run in another folder.",
        ) from error


def _parse(text: str) -> list[Row]:
    # A truncated number still parses, so a final newline is required.
    if text and not text.endswith("\n"):
        raise ValueError("its last line is truncated")
    lines = csv.reader(io.StringIO(text))
    columns = next(lines, [])
    rows: list[Row] = []
    for line in lines:
        if len(line) != len(columns):
            raise ValueError(
                f"line {lines.line_num} has {len(line)} columns instead of {len(columns)}"
            )
        row = {name: float(value) for name, value in zip(columns, line)}
        if row.get("epoch") != len(rows):
            raise ValueError(f"line {lines.line_num} is not that of epoch {len(rows)}")
        row["epoch"] = len(rows)
        rows.append(row)
    return rows


def write_history(path: pathlib.Path, rows: list[Row]) -> None:
    """Writes all rows at once, atomically.

    Rows of a run that an older version began may lack columns, which are then NaN.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=columns, restval="nan", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        # In full: a resumed run takes its numbers from here.
        writer.writerow({k: repr(v) for k, v in row.items()})
    write_noted(path, out.getvalue())


def best_epoch(rows: list[Row]) -> int:
    """The number (from 0) of the epoch that is best on the validation set, else the last.

    The best has the highest value of the first of `CHOSEN_BY` that rows have. Without a validation
    set the training loss would choose; it falls with almost every epoch, so the last epoch stands
    for it.
    """
    name = next((name for name in CHOSEN_BY if name in rows[0]), None)
    if name is None:
        return len(rows) - 1
    return max(range(len(rows)), key=lambda i: rows[i][name])
