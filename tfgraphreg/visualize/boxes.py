"""Figures of boxes: what was found, what was missed, and which is right.

Images are `[height, width, 1 or 3]` uint8; boxes are edges in their pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfgraphreg.data.local import Objects
from tfgraphreg.evaluation.average_precision import SURE, FoundBoxes, rank_voc
from tfgraphreg.visualize.labels import Text, around, write_apart
from tfgraphreg.visualize.style import (
    PAGE_WIDTH,
    RIGHT,
    WRONG,
    draw_outline,
    figure,
    show_image,
)

_MISSED = "#000000"
# For several boxes in a small image.
_outline = functools.partial(draw_outline, width=1.3)
_Text = functools.partial(Text, font=4.5, pad=0.6, frame=0.6)


def box_sheet(
    images: np.ndarray,
    truth: Sequence[Objects],
    found: Sequence[FoundBoxes],
    class_names: Sequence[str],
    *,
    least_score: float = SURE,
    columns: int = 4,
) -> Any:
    """Images with the boxes that were found, each with its class and score.

    A right box (IoU of 0.5 with an object of its class that no better box has) is blue with a full
    line and a check mark, a wrong one orange, dashed and with a cross; an object that no box shown
    finds is dotted in black, and its class stands in brackets. So color is not the only sign. A box
    on a difficult object is neither: gray.

    Args:
        images: N images, at most about 16 for a page.
        truth: Their objects.
        found: What was found in them.
        class_names: C names.
        least_score: Boxes below it are not shown.
        columns: Images in a row.
    """
    rows = max(1, -(-len(truth) // columns))
    with figure(height=rows * (PAGE_WIDTH / columns + 0.1) + 0.5) as made:
        cells = made.subplots(rows, columns, squeeze=False).ravel()
        made.suptitle(
            f"✓ right, ✗ wrong, [missed]; scores from {least_score:g}, IoU 0.5", fontsize=9
        )
        texts = []
        for axes in cells[len(truth) :]:
            axes.set_axis_off()
        for axes, image, objects, boxes in zip(cells, images, truth, found):
            shown = boxes.scores >= least_score
            boxes = FoundBoxes(boxes.boxes[shown], boxes.classes[shown], boxes.scores[shown])
            show_image(axes, image)
            for place in _missed(objects, boxes):
                name = class_names[objects.classes[place]]
                box = objects.boxes[place]
                _outline(axes, box, _MISSED, line=":")
                texts.append(_Text(axes, f"[{name}]", around(box, below=True), _MISSED))
            for box, number, score, verdict in zip(
                boxes.boxes, boxes.classes, boxes.scores, verdicts(objects, boxes)
            ):
                color, line, mark = {
                    1: (RIGHT, "-", "✓ "),
                    0: (WRONG, "--", "✗ "),
                    -1: ("#808080", "-.", ""),
                }[int(verdict)]
                text = f"{mark}{class_names[number]} {score:.0%}"
                _outline(axes, box, color, line=line)
                texts.append(_Text(axes, text, around(box), color))
        write_apart(made, texts)
    return made


def verdicts(objects: Objects, found: FoundBoxes) -> np.ndarray:
    """`[B]`: 1 where a detection is right by VOC's rule at IoU 0.5, 0 where wrong, else -1."""
    verdict = np.zeros(len(found.scores), np.int64)
    for number in np.unique(found.classes):
        mine = np.flatnonzero(found.classes == number)
        ranking = rank_voc([objects], [found], int(number))
        order = mine[np.argsort(-found.scores[mine], kind="stable")]
        verdict[order] = np.where(ranking.right[0], 1, np.where(ranking.wrong[0], 0, -1))
    return verdict


def _missed(objects: Objects, found: FoundBoxes) -> np.ndarray:
    """Rows of the objects that count and that no right detection has."""
    missed = []
    for row in np.flatnonzero(~objects.difficult):
        one = Objects(objects.boxes[[row]], objects.classes[[row]])
        if not (verdicts(one, found) == 1).any():
            missed.append(row)
    return np.array(missed, np.int64)
