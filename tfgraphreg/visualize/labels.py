"""Texts over an image that do not cover each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Place = tuple[float, float, int, int]
"""x and y in pixels of the image; where the text is from there: -1, 0, 1 to the left of it, around
it, to the right of it; and the same of above, around and below it."""

# A text is moved by so many of its heights before it covers another.
_MOST_MOVED = 5


@dataclasses.dataclass(frozen=True)
class Text:
    """A text, and where it may stand.

    Attributes:
        axes: Of the image.
        words: The text.
        places: The best first.
        color: Of its frame.
        font: Its size, in points.
        pad: Around it, in points.
        frame: Width of the frame, in points.
    """

    axes: Any
    words: str
    places: Sequence[Place]
    color: str
    font: float
    pad: float
    frame: float


def around(box: np.ndarray, *, below: bool = False) -> list[Place]:
    """Where the text of a box may stand: at its corners, outside or inside.

    Args:
        box: `(x_min, y_min, x_max, y_max)`, edges in pixels.
        below: Whether the lower corners are better than the upper ones.
    """
    left, top, right, bottom = (float(edge) for edge in np.asarray(box) - 0.5)
    upper: list[Place] = [(left, top, 1, -1), (left, top, 1, 1)]
    lower: list[Place] = [(left, bottom, 1, 1), (left, bottom, 1, -1)]
    upper += [(right, top, -1, -1), (right, top, -1, 1)]
    lower += [(right, bottom, -1, 1), (right, bottom, -1, -1)]
    first, second = (lower, upper) if below else (upper, lower)
    return [*first[:2], *second[:2], *first[2:], *second[2:]]


def write_apart(made: Any, texts: Sequence[Text], *, room: Any = None) -> None:
    """Writes texts, each at the first of its places that lies in the room and on no other text.

    One that fits nowhere is moved up and down, and at last stands where it covers the least. The
    layout of the figure is settled by this: what is added later does not change it.

    Args:
        made: The figure, to which everything but the texts was added.
        texts: The most important first.
        room: Where texts may stand, in dots of the figure; that of each image if None.
    """
    from matplotlib.transforms import Bbox

    made.draw_without_rendering()
    # The layout must not give way to the texts, whose places depend on it.
    made.set_layout_engine("none")
    renderer = made.canvas.get_renderer()
    taken = [each.get_window_extent(renderer) for each in (*made.texts, *made.legends)]
    for each in texts:
        axes = each.axes
        text = axes.text(
            0,
            0,
            each.words,
            fontsize=each.font,
            ha="left",
            va="bottom",
            color="black",
            bbox={
                "facecolor": "white",
                "edgecolor": each.color,
                "pad": each.pad,
                "linewidth": each.frame,
            },
        )
        edge = (each.pad + each.frame) * made.dpi / 72
        size = text.get_window_extent(renderer).size + 2 * edge
        within = axes.get_window_extent(renderer).padded(size[1]) if room is None else room
        best, least = None, np.inf
        for corner in _corners(each.places, size, axes.transData):
            box = Bbox.from_bounds(*corner, *size)
            if not _contains(within, box):
                continue
            covered = sum(_shared(box, other) for other in taken)
            if covered < least:
                best, least = box, covered
            if not covered:
                break
        if best is None:
            # Longer than the room is wide: from its left edge on.
            height = axes.transData.transform(each.places[0][:2])[1]
            best = Bbox.from_bounds(within.x0, min(height, within.y1 - size[1]), *size)
        corner = np.array([best.x0, best.y0]) + edge
        text.set_position(axes.transData.inverted().transform(corner))
        taken.append(best)


def _corners(places: Sequence[Place], size: np.ndarray, to_dots: Any) -> Iterator[np.ndarray]:
    """Lower left corners of a text of this size: at its places, then a line further, and so on."""
    for lines in range(_MOST_MOVED):
        for x, y, right, down in places:
            # On the screen y grows upward.
            corner = to_dots.transform((x, y)) + (np.array([right, -down]) - 1) / 2 * size
            for way in (1, -1) if lines else (1,):
                yield corner + np.array([0, way * lines * size[1]])


def _contains(room: Any, box: Any) -> bool:
    return bool(room.x0 <= box.x0 and box.x1 <= room.x1 and room.y0 <= box.y0 and box.y1 <= room.y1)


def _shared(one: Any, other: Any) -> float:
    """The area that two boxes have in common."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return max(0.0, width) * max(0.0, height)
