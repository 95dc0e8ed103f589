"""A comparison of runs as CSV, as Markdown and in the terminal."""

from __future__ import annotations

import csv
import io
import os
import pathlib
from typing import Any

from tfgraphreg import storage
from tfgraphreg.recipes.compare import Comparison, with_numbers


def write_tables(comparison: Comparison, folder: os.PathLike[str] | str) -> list[pathlib.Path]:
    """Writes table.csv and table.md into the folder."""
    folder = pathlib.Path(folder)
    storage.write_text(folder / "table.csv", csv_table(comparison))
    storage.write_text(folder / "table.md", markdown_table(comparison))
    return [folder / "table.csv", folder / "table.md"]


def csv_table(comparison: Comparison) -> str:
    """All columns of all rows, numbers at full precision."""
    out = io.StringIO()
    names = list(comparison.rows[0])
    writer = csv.DictWriter(out, fieldnames=names, lineterminator="\n")
    writer.writeheader()
    for row in comparison.rows:
        writer.writerow({k: "" if v is None else v for k, v in row.items()})
    return out.getvalue()


def markdown_table(comparison: Comparison) -> str:
    """A section with a table for each dataset and task, then notes and problems."""
    lines = ["# Comparison of runs", ""]
    for title, found in comparison.tables.items():
        header, rows = text_cells(comparison, found)
        lines += [f"## {_markdown(title)}", ""]
        lines.append("| " + " | ".join(header) + " |")
        lines.append("|" + " --- |" * len(header))
        lines += ["| " + " | ".join(_markdown(cell) for cell in row) + " |" for row in rows]
        lines.append("")
    lines += ["Mean ± standard deviation over the seeds; difference to alpha=0 of the same seed,"]
    lines += ["with its 95 % confidence interval (Student's t on the pairs).", ""]
    for title, sentences in (("Notes", comparison.notes), ("Left out", comparison.problems)):
        if sentences:
            lines += [f"## {title}", "", *(f"- {_markdown(s)}" for s in sentences), ""]
    return "\n".join(lines)


def text_cells(
    comparison: Comparison, rows: list[dict[str, Any]]
) -> tuple[list[str], list[list[str]]]:
    """Header and cells of one of the `tables` of a comparison, for people."""
    fields = [name for name in comparison.columns if name != "dataset"]
    metrics = with_numbers(comparison.metrics, rows)
    header = [name.replace("_", " ") for name in fields] + ["seeds"]
    for index, metric in enumerate(metrics):
        header.append(metric.replace("_", " "))
        if index == 0:
            header.append("difference to alpha=0")
    cells = []
    for row in rows:
        line = [_plain(row[name]) for name in fields] + [str(row["runs"])]
        for index, metric in enumerate(metrics):
            line.append(_mean_text(row, metric))
            if index == 0:
                line.append(_difference_text(row, metric))
        cells.append(line)
    return header, cells


def _plain(value: Any) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _mean_text(row: dict[str, Any], metric: str) -> str:
    mean, spread = row[f"{metric}_mean"], row[f"{metric}_std"]
    if mean is None:
        return "-"
    return f"{mean:.4f}" + ("" if spread is None else f" ± {spread:.4f}")


def _difference_text(row: dict[str, Any], metric: str) -> str:
    mean, low, high = (row[f"{metric}_{name}"] for name in ("difference", "low", "high"))
    if mean is None:
        return "-"
    return f"{mean:+.4f}" + ("" if low is None else f" [{low:+.4f}, {high:+.4f}]")


def _markdown(text: str) -> str:
    """Text that can neither end a cell nor begin markup."""
    flat = " ".join(text.split()).replace("\\", "\\\\")
    for sign in "|`*_[]<>#":
        flat = flat.replace(sign, {"<": "&lt;", ">": "&gt;"}.get(sign, "\\" + sign))
    return flat
