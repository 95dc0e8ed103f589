"""How well boxes are placed.

Boxes are `(x_min, y_min, x_max, y_max)` in any one unit, with area
(x_max - x_min)(y_max - y_min): coordinates are edges, not pixels. The Keras metric of the
same definition is in `tfgraphreg.evaluation.keras_metrics`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tfgraphreg.errors import DataError

IGNORE = -1


def box_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """`[A, B]`: intersection over union of every pair of `[A, 4]` and `[B, 4]` boxes.

    Boxes of no area have IoU 0 with everything, themselves included.

    Raises:
        DataError: If a box ends before it begins or is not finite.
    """
    boxes, others = as_boxes("boxes", boxes), as_boxes("others", others)
    shared = shared_area(boxes, others)
    union = area(boxes)[:, None] + area(others)[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def shared_area(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """`[A, B]`: area of the intersection of every pair of `[A, 4]` and `[B, 4]` boxes."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.prod(np.maximum(high - low, 0), axis=-1)


def best_overlaps(
    boxes: np.ndarray,
    classes: np.ndarray,
    predicted_boxes: np.ndarray,
    predicted_classes: np.ndarray,
    *,
    only_class: int | None = None,
    ignore_label: int = IGNORE,
) -> np.ndarray:
    """For one image, the best IoU of each true box with a predicted box of its class.

    Their mean over all images is the average best overlap (Uijlings et al. 2013, "Selective
    Search for Object Recognition"). A true box without a prediction of its class has 0.

    Args:
        boxes: `[A, 4]` true boxes.
        classes: `[A]` whole numbers.
        predicted_boxes: `[B, 4]`.
        predicted_classes: `[B]`.
        only_class: Judge this class alone, such as the number of "person"; None for all.
        ignore_label: Class of boxes, true or predicted, that do not count, such as "difficult"
            ones or padding.

    Returns:
        `[those that count]` in [0, 1].
    """
    classes, predicted_classes = np.asarray(classes), np.asarray(predicted_classes)
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    predicted_boxes = np.asarray(predicted_boxes, np.float64).reshape(-1, 4)
    if len(classes) != len(boxes) or len(predicted_classes) != len(predicted_boxes):
        raise DataError(
            "Every box needs a class.",
            received=f"{len(boxes)} boxes with {len(classes)} classes, "
            f"{len(predicted_boxes)} predicted with {len(predicted_classes)}",
        )
    counted = classes != ignore_label
    if only_class is not None:
        counted &= classes == only_class
    boxes, classes = boxes[counted], classes[counted]
    used = predicted_classes != ignore_label
    predicted_boxes, predicted_classes = predicted_boxes[used], predicted_classes[used]
    overlaps = box_iou(boxes, predicted_boxes) * (classes[:, None] == predicted_classes[None])
    return overlaps.max(axis=1, initial=0.0)


def area(boxes: np.ndarray) -> np.ndarray:
    """`[A]` areas of `[A, 4]` boxes."""
    return np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)


def as_boxes(name: str, boxes: npt.ArrayLike) -> np.ndarray:
    """`boxes` as `[A, 4]` float64.

    Raises:
        DataError: If the shape is another, a box ends before it begins or is not finite.
    """
    boxes = np.asarray(boxes, np.float64)
    if boxes.size == 0:
        return boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise DataError(f"`{name}` must have the shape [boxes, 4].", received=f"{boxes.shape}")
    bad = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    if bad.any():
        raise DataError(
            f"`{name}` must be finite (x_min, y_min, x_max, y_max) that end after they begin.",
            received=f"{boxes[np.argmax(bad)].tolist()}",
        )
    return boxes
