"""A page on which a person labels images by keyboard and saves a CSV file."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from tfgraphreg.visualize.cards import png
from tfgraphreg.visualize.page import data_uri, write_page
from tfgraphreg.visualize.thumbnails import thumbnails

_LARGEST = 256


def write_labeling_page(
    path: os.PathLike[str] | str,
    images: Any,
    ids: Sequence[str],
    reasons: Sequence[str],
    class_names: Sequence[str],
    *,
    known: Sequence[tuple[str, str]] = (),
    title: str = "Images to label",
) -> pathlib.Path:
    """Writes the page. It sends nothing anywhere: the file is made in the browser.

    Args:
        path: The HTML file.
        images: `[M, H, W, C]` uint8 in the order in which they are to be labeled.
        ids: M ids, which the saved file names.
        reasons: M sentences.
        class_names: C names to choose from.
        known: Ids and labels that are known already; the saved file has them too.
        title: Heading of the page.

    Raises:
        DataError: If the file cannot be written.
    """
    content = {
        "title": title,
        "notes": [],
        "problems": [],
        "ids": list(ids),
        "reasons": list(reasons),
        "classes": list(class_names),
        "known": [list(pair) for pair in known],
        "pictures": [data_uri(png(image)) for image in thumbnails(images, most=_LARGEST)],
    }
    return write_page(path, content, parts=("labeling_script.html",))
