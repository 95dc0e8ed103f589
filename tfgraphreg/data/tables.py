"""CSV files whose rows name images: read from outside, and written."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence

from tfgraphreg.errors import DataError
from tfgraphreg.reading import read_text
from tfgraphreg.storage import user_path


def read_table(
    path: os.PathLike[str] | str, columns: Sequence[str], *, cure: str
) -> Iterator[tuple[str, ...]]:
    """The cells of the named columns, row by row; other columns are passed over.

    Raises:
        DataError: If the file cannot be read, lacks a column, or a row is not as long as the
            header.
    """
    path = user_path(path)
    try:
        # Spreadsheets begin a file with a byte order mark.
        text = io.StringIO(read_text(path).removeprefix("\ufeff"), newline="")
        rows = list(csv.reader(text, strict=True))
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table ({error}).", cure=cure) from error
    head = rows[0] if rows else []
    missing = [name for name in columns if head.count(name) != 1]
    if missing:
        raise DataError(
            f"{path} must have one column {missing[0]}.",
            received=", ".join(head)[:200] or "an empty file",
            cure=cure,
        )
    short = next((i for i, row in enumerate(rows) if len(row) != len(head)), None)
    if short is not None:
        raise DataError(
            f"The rows of {path} must be as long as its header.",
            received=f"{len(rows[short])} cells in row {short + 1}, {len(head)} in the header",
        )
    places = [head.index(name) for name in columns]
    return (tuple(row[place] for place in places) for row in rows[1:])


def table_text(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, separator: str = ","
) -> str:
    """The text of a table: a line of column names, then one for each row."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
