"""A page of findings: for each the picture of an image, of its neighbors, and what to do."""

from __future__ import annotations

import dataclasses
import io
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfgraphreg.visualize.page import data_uri, write_page
from tfgraphreg.visualize.thumbnails import thumbnails

_LARGEST = 96
_LONGEST = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """A picture on a card.

    Attributes:
        item: Number of the image.
        text: Below it, such as its class.
        right: Whether it agrees with the card's image; None where nothing can be said.
    """

    item: int
    text: str
    right: bool | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """One finding.

    Attributes:
        name: The id of the image.
        text: What was found, in a sentence.
        cells: The image itself, then its neighbors.
    """

    name: str
    text: str
    cells: Sequence[Cell]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Findings of one sort.

    Attributes:
        name: A word for links.
        title: Heading.
        text: What it means and what to do.
        total: How many there are, of which `cards` may be the first.
        cards: Those that are shown.
    """

    name: str
    title: str
    text: str
    total: int
    cards: Sequence[Card]


def write_cards(
    path: os.PathLike[str] | str,
    images: Any,
    groups: Sequence[Group],
    *,
    title: str,
    notes: Sequence[str] = (),
    tables: Sequence[dict[str, Any]] = (),
) -> pathlib.Path:
    """Writes the page.

    Args:
        path: The HTML file.
        images: `[N, H, W, C]` uint8; only those that are shown are read.
        groups: A section each, in this order.
        title: Heading of the page.
        notes: Sentences at its top.
        tables: Sortable tables after the groups: `title`, `note`, `columns` (name, digits,
            signed) and `rows`.

    Raises:
        DataError: If the file cannot be written.
    """
    shown = sorted({c.item for group in groups for card in group.cards for c in card.cells})
    place = {item: number for number, item in enumerate(shown)}
    content = {
        "title": title,
        "notes": list(notes),
        "problems": [],
        "pictures": [data_uri(png) for png in _pictures(images, shown)],
        "tables": list(tables),
        "groups": [
            {
                "name": group.name,
                "title": group.title,
                "text": group.text,
                "total": group.total,
                "cards": [_card(card, place) for card in group.cards],
            }
            for group in groups
        ],
    }
    return write_page(path, content, parts=("cards_script.html",))


def _card(card: Card, place: dict[int, int]) -> dict[str, Any]:
    cells = [[place[c.item], c.text[:_LONGEST], c.right] for c in card.cells]
    return {"name": card.name[:_LONGEST], "text": card.text, "cells": cells}


def _pictures(images: Any, shown: Sequence[int]) -> list[bytes]:
    if not shown:
        return []
    return [png(image) for image in thumbnails(images[np.asarray(shown)], most=_LARGEST)]


def png(image: np.ndarray) -> bytes:
    """The PNG file of one `[H, W, 1 or 3]` uint8 image."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
    return file.getvalue()
