"""The objects of the training images as a dataset of their own: the nodes of a graph of regions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tfgraphreg.data.dataset import Dataset, Split
from tfgraphreg.data.decoding import resize_array
from tfgraphreg.data.local import Objects, local_splits
from tfgraphreg.storage import fingerprint

# Side to which a region is resized before the graph compares it.
SIDE = 32
# Room around a box, as a share of its sides.
_MARGIN = 0.05


def training_objects(dataset: Dataset) -> Sequence[Objects]:
    """The objects of each training image."""
    return local_splits(dataset)[0].objects


def as_regions(dataset: Dataset) -> Dataset:
    """A dataset whose training images are the objects of another's, cut out and resized.

    Their order is that of the images and, in an image, of its objects; their ids are the image's
    with `#` and the object's number. The other splits are empty; their images are among those left
    out, so that edges to them in a file are skipped.
    """
    train = local_splits(dataset)[0]
    cut, labels, ids = [], [], []
    for row, found in enumerate(train.objects):
        if not len(found):
            continue
        image = np.asarray(train.images[row])
        for number, (box, label) in enumerate(zip(found.boxes, found.classes)):
            cut.append(cut_out(image, box))
            labels.append(label)
            ids.append(f"{train.ids[row]}#{number}")
    channels = dataset.image_shape[2]
    images = np.array(cut, np.uint8).reshape(-1, SIDE, SIDE, channels)
    regions = Split(images, np.array(labels, np.int64), np.array(ids, dtype=str))
    none = regions.take(np.arange(0))
    return dataclasses.replace(
        dataset,
        train=regions,
        validation=none,
        test=none,
        checksum=fingerprint([dataset.checksum, "regions", SIDE, _MARGIN]),
        left_out=tuple(dataset.ids_beside_train),
    )


def cut_out(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """`[32, 32, channels]`: what is in a box of an image and a little around it, resized."""
    height, width = image.shape[:2]
    margin = _MARGIN * (box[2:] - box[:2])
    left, top = np.maximum(np.floor(box[:2] - margin), 0).astype(int)
    right, bottom = np.minimum(np.ceil(box[2:] + margin), [width, height]).astype(int)
    return resize_array(image[None, top:bottom, left:right], (SIDE, SIDE))[0]
