"""How well objects are found: average precision by the rules of Pascal VOC and of COCO.

Every rule ranks the detections of one class by score over all images, matches them with true
boxes of that class by intersection over union (IoU), and averages precision over recall. A tie in
score goes to the earlier image, and within an image to the earlier detection. Boxes are
`(x_min, y_min, x_max, y_max)`, edges in any one unit.

The rules differ in two things.

*Difficult objects* never count as missed, and a detection of one is neither right nor wrong. VOC
asks each detection for its best true box, difficult or not. COCO prefers a box that counts, and a
difficult object is what COCO calls a crowd: its overlap with a detection is the share of the
*detection* that lies in it.

*A second detection* of an object is wrong for VOC even if another object overlaps it enough; COCO
gives it the best object that is still free.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfgraphreg.data.local import Objects
from tfgraphreg.errors import DataError
from tfgraphreg.evaluation.detection import area, as_boxes, box_iou, shared_area
from tfgraphreg.evaluation.multilabel import average_over_recall

COCO_IOU = np.linspace(0.5, 0.95, 10)
"""The IoU thresholds over which COCO averages."""

_COCO_RECALL = np.linspace(0, 1, 101)
SURE = 0.3
"""Detections from this score on are shown, and count as found: some low one fits any object."""

_RIGHT, _WRONG, _NEITHER = 1, 0, -1


@dataclasses.dataclass(frozen=True)
class FoundBoxes:
    """The detections in one image.

    Attributes:
        boxes: `[B, 4]`.
        classes: `[B]` class numbers from 0 on.
        scores: `[B]`, finite; higher is more certain.

    Raises:
        DataError: If lengths disagree, a box ends before it begins or a score is not finite.
    """

    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray

    def __post_init__(self):
        boxes = as_boxes("boxes", self.boxes)
        object.__setattr__(self, "boxes", boxes)
        object.__setattr__(self, "classes", _column("classes", self.classes, len(boxes), np.int64))
        scores = _column("scores", self.scores, len(boxes), np.float64)
        if not np.isfinite(scores).all():
            raise DataError("`scores` must be finite.", received=str(scores[~np.isfinite(scores)]))
        object.__setattr__(self, "scores", scores)


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Detections of one class by falling score, judged at T IoU thresholds.

    Attributes:
        right: `[T, B]` bool.
        wrong: `[T, B]` bool. What is neither does not count.
        positives: Number of objects that count.
    """

    right: np.ndarray
    wrong: np.ndarray
    positives: int


def rank_voc(
    truth: Sequence[Objects], found: Sequence[FoundBoxes], number: int, *, iou: float = 0.5
) -> Ranking:
    """Judges the detections of class `number` by the rule of the VOC development kit.

    Overlap is of edges; the kit counts pixels, so that its widths are larger by one.

    Raises:
        DataError: If there are not as many images in `truth` as in `found`.
    """
    return _rank(truth, found, number, _match_voc, np.array([iou]), None)


def rank_coco(
    truth: Sequence[Objects],
    found: Sequence[FoundBoxes],
    number: int,
    *,
    iou: np.ndarray = COCO_IOU,
    max_detections: int = 100,
) -> Ranking:
    """Judges the detections of class `number` by COCO's rule, the best `max_detections` an image.

    Raises:
        DataError: If there are not as many images in `truth` as in `found`.
    """
    return _rank(truth, found, number, _match_coco, np.asarray(iou, np.float64), max_detections)


def average_precision_voc(ranking: Ranking, *, eleven_point: bool = False) -> np.ndarray:
    """`[T]`: VOC's area under the best precision at each recall or more.

    NaN without an object that counts.

    Args:
        ranking: Of `rank_voc`.
        eleven_point: Whether to use the definition of VOC 2007: the mean of the best precision at
            recall 0, 0.1, ..., 1 or more, compared in whole objects, so that 3 of 10 reach 0.3.
    """
    if not ranking.positives:
        return np.full(len(ranking.right), np.nan)
    counted = ranking.right | ranking.wrong
    return np.array(
        [
            average_over_recall(right[row], ranking.positives, eleven_point=eleven_point)
            for right, row in zip(ranking.right, counted)
        ]
    )


def average_precision_coco(ranking: Ranking) -> np.ndarray:
    """`[T]`: COCO's mean of the best precision at recall 0, 0.01, ..., 1 or more.

    NaN without an object that counts.
    """
    if not ranking.positives:
        return np.full(len(ranking.right), np.nan)
    right, wrong = ranking.right.cumsum(axis=1), ranking.wrong.cumsum(axis=1)
    precision = right / np.maximum(right + wrong, 1)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # One more column: what no detection reaches has precision 0.
    best = np.pad(best, [(0, 0), (0, 1)])
    at = [np.searchsorted(row, _COCO_RECALL, side="left") for row in right / ranking.positives]
    return np.array([row[index].mean() for row, index in zip(best, at)])


def detection_report(
    truth: Sequence[Objects],
    found: Sequence[FoundBoxes],
    class_names: Sequence[str],
    *,
    only_class: int | None = None,
) -> dict[str, Any]:
    """Average precision of every class and its means.

    Args:
        truth: For each image its objects.
        found: For each image the detections, in the same order.
        class_names: C names.
        only_class: Judge this class alone, such as the number of "person"; None for all.

    Returns:
        `ap` (COCO's, mean over IoU 0.5 to 0.95), `ap50` and `ap75` (COCO's at one IoU),
        `voc_ap50` (all points) and `voc07_ap50` (11 points): means over the classes that have
        objects, NaN if none has. `by_class` has the same numbers by name, with `objects` and
        `detections`; `images` is their number.

    Raises:
        DataError: If there are not as many images in `truth` as in `found`, or a class number
            is out of range.
    """
    names = [str(name) for name in class_names]
    for name, sides in (("truth", truth), ("found", found)):
        for side in sides:
            if side.classes.size and not 0 <= side.classes.min() <= side.classes.max() < len(names):
                raise DataError(
                    f"Class numbers in `{name}` must be from 0 to {len(names) - 1}.",
                    received=f"{side.classes.min()} to {side.classes.max()}",
                )
    if only_class is not None and not 0 <= only_class < len(names):
        raise DataError(
            f"`only_class` must be from 0 to {len(names) - 1}.", received=str(only_class)
        )
    numbers = range(len(names)) if only_class is None else [only_class]
    by_class = {names[number]: _class_report(truth, found, number) for number in numbers}
    means = {}
    for key in ("ap", "ap50", "ap75", "voc_ap50", "voc07_ap50"):
        values = np.array([row[key] for row in by_class.values()])
        values = values[~np.isnan(values)]
        means[key] = float(values.mean()) if len(values) else float("nan")
    return {**means, "by_class": by_class, "images": len(truth)}


def recall_by_count(
    truth: Sequence[Objects],
    proposals: Sequence[np.ndarray],
    counts: Sequence[int],
    *,
    iou: float = 0.5,
) -> dict[int, float]:
    """Share of true boxes that the first `count` proposals of their image cover, for each count.

    Args:
        truth: For each image its objects; difficult ones do not count.
        proposals: For each image `[P, 4]` boxes without a class, the best first.
        counts: Numbers of proposals, from 1 on.
        iou: Overlap from which a box is covered.

    Returns:
        Recall by count; NaN without an object that counts.

    Raises:
        DataError: If there are not as many images in `truth` as in `proposals`.
    """
    _same_images(truth, proposals)
    overlaps = _overlaps_that_count(truth, proposals)
    total = sum(map(len, overlaps))
    covered = {
        count: sum(int((row[:, :count].max(axis=1, initial=0) >= iou).sum()) for row in overlaps)
        for count in counts
    }
    return {count: hit / total if total else float("nan") for count, hit in covered.items()}


def average_best_overlap(
    truth: Sequence[Objects], proposals: Sequence[np.ndarray], class_names: Sequence[str]
) -> dict[str, Any]:
    """ABO of each class and their mean, MABO (Uijlings et al. 2013), for boxes without a class.

    The ABO of a class is the mean, over its objects that are not difficult, of the best IoU with
    any proposal of the image.

    Returns:
        `{"abo": {name: number or NaN}, "mabo": mean over classes with objects}`.

    Raises:
        DataError: If there are not as many images in `truth` as in `proposals`.
    """
    _same_images(truth, proposals)
    best = [row.max(axis=1, initial=0) for row in _overlaps_that_count(truth, proposals)]
    values = np.concatenate([*best, np.zeros(0)])
    classes = np.concatenate([*(t.classes[~t.difficult] for t in truth), np.zeros(0, np.int64)])
    abo = {
        str(name): float(values[classes == number].mean()) if (classes == number).any() else np.nan
        for number, name in enumerate(class_names)
    }
    defined = [value for value in abo.values() if not np.isnan(value)]
    return {"abo": abo, "mabo": float(np.mean(defined)) if defined else float("nan")}


def _overlaps_that_count(truth, proposals):
    return [box_iou(t.boxes[~t.difficult], boxes) for t, boxes in zip(truth, proposals)]


def _class_report(truth, found, number):
    voc, coco = rank_voc(truth, found, number), rank_coco(truth, found, number)
    ap = average_precision_coco(coco)
    return {
        "ap": float(ap.mean()),
        "ap50": float(ap[0]),
        "ap75": float(ap[5]),
        "voc_ap50": float(average_precision_voc(voc)[0]),
        "voc07_ap50": float(average_precision_voc(voc, eleven_point=True)[0]),
        "objects": coco.positives,
        "detections": sum(int((side.classes == number).sum()) for side in found),
    }


_Match = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def _rank(
    truth: Sequence[Objects],
    found: Sequence[FoundBoxes],
    number: int,
    match: _Match,
    thresholds: np.ndarray,
    most: int | None,
) -> Ranking:
    _same_images(truth, found)
    verdicts, scores, positives = [np.zeros((len(thresholds), 0), np.int8)], [np.zeros(0)], 0
    for image, side in zip(truth, found):
        mine, theirs = image.classes == number, np.flatnonzero(side.classes == number)
        difficult = image.difficult[mine]
        positives += int((~difficult).sum())
        theirs = theirs[np.argsort(-side.scores[theirs], kind="stable")][:most]
        verdicts.append(match(side.boxes[theirs], image.boxes[mine], difficult, thresholds))
        scores.append(side.scores[theirs])
    order = np.argsort(-np.concatenate(scores), kind="stable")
    ranked = np.concatenate(verdicts, axis=1)[:, order]
    return Ranking(ranked == _RIGHT, ranked == _WRONG, positives)


def _match_voc(boxes, truth, difficult, thresholds):
    """`[T, B]` verdicts on boxes by falling score."""
    verdict = np.full((len(thresholds), len(boxes)), _WRONG, np.int8)
    if not len(boxes) or not len(truth):
        return verdict
    overlap = box_iou(boxes, truth)
    best, value = overlap.argmax(axis=1), overlap.max(axis=1)
    for row, threshold in zip(verdict, thresholds):
        hit = value >= threshold
        row[hit & difficult[best]] = _NEITHER
        counted = np.flatnonzero(hit & ~difficult[best])
        _, first = np.unique(best[counted], return_index=True)
        row[counted[first]] = _RIGHT
    return verdict


def _match_coco(boxes, truth, difficult, thresholds):
    """`[T, B]` verdicts on boxes by falling score."""
    verdict = np.full((len(thresholds), len(boxes)), _WRONG, np.int8)
    if not len(boxes) or not len(truth):
        return verdict
    plain, crowd = truth[~difficult], truth[difficult]
    overlap = box_iou(boxes, plain)
    inside = shared_area(boxes, crowd)
    inside = np.divide(inside, area(boxes)[:, None], out=np.zeros_like(inside), where=inside > 0)
    # An overlap of 1 may come out as a little less.
    thresholds = np.minimum(thresholds, 1 - 1e-10)
    ignored = inside.max(axis=1, initial=0)[None] >= thresholds[:, None]
    verdict[ignored] = _NEITHER
    free = np.ones((len(thresholds), len(plain)), bool)
    if not len(plain):
        return verdict
    for column in np.flatnonzero((overlap >= thresholds.min()).any(axis=1)):
        # Reversed, because COCO gives a tie to the later object.
        values = np.where(free, overlap[column], -1)[:, ::-1]
        best = len(plain) - 1 - values.argmax(axis=1)
        hit = np.flatnonzero(values.max(axis=1) >= thresholds)
        verdict[hit, column] = _RIGHT
        free[hit, best[hit]] = False
    return verdict


def _same_images(truth, others):
    if len(truth) != len(others):
        raise DataError(
            "There must be true and found boxes for the same images.",
            received=f"{len(truth)} and {len(others)} images",
        )


def _column(name, values, count, dtype):
    values = np.asarray(values)
    if values.shape != (count,) and not (values.size == 0 and count == 0):
        raise DataError(
            f"`{name}` must have one entry for each of {count} boxes.",
            received=f"shape={values.shape}",
        )
    return values.reshape(count).astype(dtype)
