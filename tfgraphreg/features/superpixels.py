"""Superpixels: small connected regions of alike pixels, numbered through all images.

They are the segments of Felzenszwalb and Huttenlocher, "Efficient Graph-Based Image Segmentation"
(IJCV 2004), from scikit-image; a region may be joined by a corner.

Shapes: N images, S superpixels, P pairs of them.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfgraphreg.errors import DataError
from tfgraphreg.progress import Progress, silent

WIDTH = 7
"""Numbers that describe a superpixel by itself: three means and three deviations of Lab, edges."""

SUPERPIXEL_SIZE = 10
"""Pixels that a superpixel has at least, unless another number is given."""

_SCALE, _SIGMA = 20, 0.8


@dataclasses.dataclass(frozen=True, eq=False)
class Superpixels:
    """The S superpixels of N images.

    Attributes:
        segments: `[N, H, W]` int32: which superpixel a pixel is in. Those of an image follow each
            other, and those of the next image begin where they end.
        borders: `[P, 2]` int32 pairs of superpixels of which two pixels share a side, each pair
            once and the smaller number first.
        statistics: `[S, 7]` float32: mean and standard deviation of the colors in CIELAB, and the
            mean length of the gradient of lightness, which says how textured it is.
    """

    segments: np.ndarray
    borders: np.ndarray
    statistics: np.ndarray

    def __len__(self) -> int:
        return len(self.statistics)

    @property
    def colors(self) -> np.ndarray:
        """`[S, 3]` float32 mean colors in CIELAB."""
        return self.statistics[:, :3]


def superpixels(
    images: np.ndarray, *, smallest: int = SUPERPIXEL_SIZE, progress: Progress = silent
) -> Superpixels:
    """Divides every image into superpixels. Nothing is random.

    Args:
        images: `[N, H, W, 1 or 3]` uint8.
        smallest: Pixels that a superpixel has at least, if the image has as many; from 1 on.
        progress: Called as ``progress(what, done, total)``.

    Raises:
        DataError: If there is no image, images have another form, or `smallest` is below 1.
    """
    shape = tuple(np.shape(images))
    dtype = getattr(images, "dtype", type(images).__name__)
    if len(shape) != 4 or shape[3] not in (1, 3) or dtype != np.uint8 or 0 in shape:
        raise DataError(
            "Superpixels need at least one image, [N, height, width, 1 or 3] of uint8.",
            received=f"{dtype} of shape {list(shape)}",
        )
    if smallest < 1:
        raise DataError(
            "A superpixel must have at least one pixel.", received=f"smallest={smallest}"
        )
    segments = np.empty(shape[:3], np.int32)
    borders, statistics, start = [], [], 0
    for number in range(shape[0]):
        found, described = _of_image(np.asarray(images[number]), smallest)
        segments[number] = found + start
        borders.append(touching(found) + start)
        statistics.append(described)
        start += len(described)
        progress("finding superpixels", number + 1, shape[0])
    joined = np.concatenate(borders).astype(np.int32)
    return Superpixels(segments, joined, np.concatenate(statistics))


def touching(segments: np.ndarray) -> np.ndarray:
    """`[P, 2]` pairs of different numbers that are side by side or one above the other.

    Args:
        segments: `[H, W]` whole numbers.
    """
    beside = np.stack([segments[:, :-1].ravel(), segments[:, 1:].ravel()], axis=1)
    above = np.stack([segments[:-1].ravel(), segments[1:].ravel()], axis=1)
    pairs = np.concatenate([beside, above])
    return np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)


def averaged(maps: np.ndarray, found: Superpixels) -> np.ndarray:
    """`[S, D]` float32: the mean over each superpixel of maps of vectors.

    Args:
        maps: `[N, h, w, D]` numbers of any resolution, such as the map of a network. A pixel
            has the vector of the cell that it lies in.
        found: Of the same N images.

    Raises:
        DataError: If the maps have another form.
    """
    maps, (count, height, width) = np.asarray(maps), found.segments.shape
    if maps.ndim != 4 or len(maps) != count or 0 in maps.shape or maps.dtype.kind not in "fiu":
        raise DataError(
            "Maps of vectors must be numbers of shape [N, height, width, D], one for each image.",
            received=f"{maps.dtype} of shape {list(maps.shape)}, {count} images",
        )
    rows = np.arange(height) * maps.shape[1] // height
    columns = np.arange(width) * maps.shape[2] // width
    means = []
    for segments, vectors in zip(found.segments, maps):
        local = segments - segments.min()
        means.append(_means(local, np.asarray(vectors, np.float64)[rows][:, columns]))
    return np.concatenate(means).astype(np.float32)


def _of_image(image: np.ndarray, smallest: int) -> tuple[np.ndarray, np.ndarray]:
    """`[H, W]` numbers from 0 on, and `[S, 7]` statistics."""
    from scipy import ndimage
    from skimage.color import rgb2lab
    from skimage.segmentation import felzenszwalb

    rgb = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    segments = felzenszwalb(rgb, scale=_SCALE, sigma=_SIGMA, min_size=smallest, channel_axis=2)
    lab = rgb2lab(rgb)
    edges = ndimage.gaussian_gradient_magnitude(lab[..., 0], 1)[..., None]
    means = _means(segments, np.concatenate([lab, lab**2, edges], axis=2))
    # Rounding may bring the variance of equal colors below 0.
    deviations = np.sqrt(np.maximum(means[:, 3:6] - means[:, :3] ** 2, 0))
    statistics = np.concatenate([means[:, :3], deviations, means[:, 6:]], axis=1)
    return segments, statistics.astype(np.float32)


def _means(segments: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`[S, D]` means of `values` `[H, W, D]` over `segments` `[H, W]`, numbers from 0 on."""
    places = segments.ravel()
    sizes = np.bincount(places)
    flat = values.reshape(len(places), -1)
    return np.stack([np.bincount(places, column) / sizes for column in flat.T], axis=1)
