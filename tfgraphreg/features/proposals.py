"""Boxes that may hold an object, whatever its class.

`selective_search` is Uijlings et al. 2013, "Selective Search for Object Recognition": the segments
of Felzenszwalb and Huttenlocher, merged greedily by likeness in color, texture, size and fit, the
box of every segment on the way being a proposal. `anchor_grid` looks at no pixel.

Boxes are `(x_min, y_min, x_max, y_max)` in pixels and are edges. Shapes: S segments, P boxes.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from tfgraphreg.errors import DataError

_COLOR_BINS, _TEXTURE_BINS, _DIRECTIONS = 25, 10, 8
# The paper's fast version: two color spaces, two sizes of first segments, two sums of likenesses.
_SPACES = ("hsv", "lab")
_SCALES = (50, 100)
_WITH_COLOR = (True, False)
_MIN_SIZE = 20  # pixels of a first segment
_SMALLEST = 4  # sides of a proposal, in pixels
_MOST_PIXELS = 1 << 22


def selective_search(image: np.ndarray, *, most: int = 500, seed: int = 0) -> np.ndarray:
    """Proposals for one image, the most promising first.

    The order is the paper's: the rank of a segment in its hierarchy, the whole image first, times
    a random number, so that no hierarchy comes before the others.

    Args:
        image: `[H, W, 1 or 3]` uint8.
        most: Number of boxes to keep.
        seed: Of the random numbers.

    Returns:
        `[P, 4]` float32 different boxes, P at most `most`.

    Raises:
        DataError: If the image has another shape, is smaller than 4 pixels a side, or has over
            four million pixels.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] not in (1, 3) or image.dtype != np.uint8:
        raise DataError(
            "Proposals need an image of shape [height, width, 1 or 3], uint8.",
            received=f"{image.dtype} of shape {image.shape}",
        )
    height, width = image.shape[:2]
    if min(height, width) < _SMALLEST or height * width > _MOST_PIXELS:
        raise DataError(
            f"Proposals need at least {_SMALLEST} pixels a side and at most {_MOST_PIXELS:,} "
            "pixels.",
            received=f"{width} x {height}",
        )
    if most < 1:
        raise DataError("`most` must be at least 1.", received=str(most))
    rng = np.random.default_rng(seed)
    boxes, keys = [], []
    for channels in _color_spaces(image):
        texture = _texture(channels)
        for scale in _SCALES:
            segments = _Segments(_first_segments(channels, scale), channels, texture)
            for with_color in _WITH_COLOR:
                merged = segments.merge(with_color=with_color)[::-1]
                boxes.append(merged)
                keys.append(np.arange(1, len(merged) + 1) * rng.random(len(merged)))
    found = np.concatenate(boxes)[np.argsort(np.concatenate(keys), kind="stable")]
    found = found[(found[:, 2:] - found[:, :2] >= _SMALLEST).all(axis=1)]
    _, first = np.unique(found, axis=0, return_index=True)
    return found[np.sort(first)[:most]].astype(np.float32)


def anchor_grid(
    size: tuple[int, int],
    *,
    stride: int,
    sides: Sequence[float],
    ratios: Sequence[float] = (1.0,),
) -> np.ndarray:
    """Boxes of every side and ratio around the center of every cell, clipped to the image.

    Args:
        size: `(height, width)` of the image.
        stride: Side of a cell.
        sides: Square roots of the areas.
        ratios: Heights divided by widths.

    Returns:
        `[rows * columns * sides * ratios, 4]` float32, cell by cell in reading order.
    """
    height, width = size
    y = (np.arange(-(-height // stride)) + 0.5) * stride
    x = (np.arange(-(-width // stride)) + 0.5) * stride
    half = np.array(
        [(s / np.sqrt(r) / 2, s * np.sqrt(r) / 2) for s in sides for r in ratios], np.float64
    )
    centers = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 1, 2)
    boxes = np.concatenate([centers - half, centers + half], axis=-1).reshape(-1, 4)
    return np.clip(boxes, 0, [width, height, width, height]).astype(np.float32)


def _color_spaces(image):
    from skimage.color import rgb2hsv, rgb2lab

    rgb = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    for space in _SPACES:
        if space == "hsv":
            yield rgb2hsv(rgb).astype(np.float32)
        else:
            lab = (rgb2lab(rgb) - [0, -100, -100]) / [100, 200, 200]
            yield np.clip(lab, 0, 1).astype(np.float32)


def _first_segments(channels, scale):
    from skimage.segmentation import felzenszwalb

    # The original takes values to 255, scikit-image to 1 and multiplies the scale accordingly.
    return felzenszwalb(channels, scale=scale, sigma=0.8, min_size=_MIN_SIZE, channel_axis=2)


def _texture(channels):
    """`[H, W, 3 * 8]` in [0, 1): Gaussian derivatives in eight directions."""
    from scipy import ndimage

    vertical, horizontal = (
        np.stack(
            [ndimage.gaussian_filter(channels[..., c], 1, order=order) for c in range(3)], axis=-1
        )
        for order in ((1, 0), (0, 1))
    )
    angles = np.arange(_DIRECTIONS) * 2 * np.pi / _DIRECTIONS
    values = horizontal[..., None] * np.cos(angles) + vertical[..., None] * np.sin(angles)
    values = np.maximum(values, 0).reshape(*channels.shape[:2], -1)
    return values / (values.max() + 1e-6) * (1 - 1e-6)


class _Segments:
    """The first segments of an image: their histograms, sizes, boxes and neighbors."""

    def __init__(self, labels, channels, texture):
        count = int(labels.max()) + 1
        self.count, self.pixels = count, labels.size
        self.size = np.bincount(labels.ravel(), minlength=count).astype(np.float64)
        self.color = _histograms(labels, channels, _COLOR_BINS, count)
        self.texture = _histograms(labels, texture, _TEXTURE_BINS, count)
        rows, columns = np.indices(labels.shape).reshape(2, -1)
        self.box = np.empty((count, 4))
        for place, values, reduce, start in (
            (0, columns, np.minimum, np.inf),
            (1, rows, np.minimum, np.inf),
            (2, columns + 1, np.maximum, 0),
            (3, rows + 1, np.maximum, 0),
        ):
            edge = np.full(count, start, np.float64)
            reduce.at(edge, labels.ravel(), values)
            self.box[:, place] = edge
        pairs = np.concatenate(
            [
                np.stack([labels[:, :-1].ravel(), labels[:, 1:].ravel()], axis=1),
                np.stack([labels[:-1].ravel(), labels[1:].ravel()], axis=1),
            ]
        )
        self.pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)

    def merge(self, *, with_color):
        """`[2 S - 1, 4]` boxes: those of the segments, then of each union in its order."""
        total = 2 * self.count - 1
        size, box, color, texture = (
            np.concatenate([a, np.zeros((total - self.count, *a.shape[1:]))])
            for a in (self.size, self.box, self.color, self.texture)
        )

        def likeness(one, others):
            low = np.minimum(box[one, :2], box[others, :2])
            high = np.maximum(box[one, 2:], box[others, 2:])
            both = size[one] + size[others]
            hole = np.prod(high - low, axis=1) - both
            value = 2 - (both + hole) / self.pixels
            value += np.minimum(texture[one], texture[others]).sum(axis=1)
            if with_color:
                value += np.minimum(color[one], color[others]).sum(axis=1)
            return value

        neighbors: list[set[int]] = [set() for _ in range(total)]
        heap: list[tuple[float, int, int]] = []
        for a in range(self.count):
            mine = self.pairs[self.pairs[:, 0] == a, 1]
            neighbors[a].update(mine.tolist())
            for b in mine.tolist():
                neighbors[b].add(a)
            heap += [(-s, a, b) for s, b in zip(likeness(a, mine).tolist(), mine.tolist())]
        heapq.heapify(heap)
        gone = np.zeros(total, bool)
        made = self.count
        while heap:
            _, a, b = heapq.heappop(heap)
            if gone[a] or gone[b]:
                continue
            gone[[a, b]] = True
            share = size[a] / (size[a] + size[b])
            color[made] = share * color[a] + (1 - share) * color[b]
            texture[made] = share * texture[a] + (1 - share) * texture[b]
            size[made] = size[a] + size[b]
            box[made, :2] = np.minimum(box[a, :2], box[b, :2])
            box[made, 2:] = np.maximum(box[a, 2:], box[b, 2:])
            around = np.array(sorted((neighbors[a] | neighbors[b]) - {a, b}), np.int64)
            neighbors[made].update(around.tolist())
            for other in around.tolist():
                neighbors[other] -= {a, b}
                neighbors[other].add(made)
            if len(around):
                for value, other in zip(likeness(made, around).tolist(), around.tolist()):
                    heapq.heappush(heap, (-value, other, made))
            made += 1
        return box[:made]


def _histograms(labels, values, bins, count):
    """`[S, channels * bins]` histograms of values in [0, 1], each row of sum 1."""
    channels = values.shape[2]
    place = np.minimum((values.reshape(-1, channels) * bins).astype(np.int64), bins - 1)
    place += np.arange(channels) * bins + labels.reshape(-1, 1) * channels * bins
    found = np.bincount(place.ravel(), minlength=count * channels * bins)
    found = found.reshape(count, -1).astype(np.float64)
    return found / found.sum(axis=1, keepdims=True)
