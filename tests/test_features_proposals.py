"""Selective search beside a plain version of it, and recall on scenes."""

import time

import numpy as np
import pytest

from tfgraphreg.data.catalog import load_dataset
from tfgraphreg.errors import DataError
from tfgraphreg.evaluation.average_precision import average_best_overlap, recall_by_count
from tfgraphreg.features import proposals
from tfgraphreg.features.proposals import anchor_grid, selective_search


@pytest.fixture(scope="module")
def scenes():
    return load_dataset("scenes:digits?n=1&test=30&size=96")


def test_recall_on_scenes_in_time(scenes):
    truth = scenes.test.objects
    started = time.process_time()
    found = [selective_search(image) for image in scenes.test.images]
    seconds = (time.process_time() - started) / len(found)
    recall = recall_by_count(truth, found, [100, 500])
    assert recall[500] >= 0.95 and recall[100] >= 0.8, recall
    assert average_best_overlap(truth, found, scenes.class_names)["mabo"] > 0.8
    assert max(map(len, found)) <= 500 and seconds < 0.5
    for boxes in found:
        assert len(np.unique(boxes, axis=0)) == len(boxes)
        assert (boxes >= 0).all() and (boxes <= 96).all()
        assert (boxes[:, 2:] - boxes[:, :2] >= 4).all()
        assert [0, 0, 96, 96] in boxes.tolist()


def test_the_seed_decides_and_fewer_are_the_first(scenes):
    image = scenes.test.images[0]
    many = selective_search(image, seed=3)
    np.testing.assert_array_equal(many, selective_search(image, seed=3))
    np.testing.assert_array_equal(many[:40], selective_search(image, most=40, seed=3))
    assert not np.array_equal(many[:40], selective_search(image, seed=4)[:40])
    gray = selective_search(image[..., :1])
    np.testing.assert_array_equal(gray, selective_search(np.repeat(image[..., :1], 3, axis=2)))


def _plain_merge(labels, channels, texture, with_color):
    """Every likeness computed again from pixels at every step."""
    regions = {i: labels == i for i in range(labels.max() + 1)}
    boxes = [_box(mask) for mask in regions.values()]
    while len(regions) > 1:
        best = None
        for a in regions:
            for b in regions:
                if a < b and _touch(regions[a], regions[b]):
                    value = _likeness(regions[a], regions[b], channels, texture, with_color)
                    if best is None or value > best[0]:
                        best = (value, a, b)
        _, a, b = best
        new = regions.pop(a) | regions.pop(b)
        regions[len(boxes)] = new
        boxes.append(_box(new))
    return boxes


def _box(mask):
    y, x = np.nonzero(mask)
    return [x.min(), y.min(), x.max() + 1, y.max() + 1]


def _touch(a, b):
    across, down = a[:, :-1] & b[:, 1:], a[:-1] & b[1:]
    across_back, down_back = b[:, :-1] & a[:, 1:], b[:-1] & a[1:]
    return (across.any() or down.any()) or (across_back.any() or down_back.any())


def _likeness(a, b, channels, texture, with_color):
    def shared(values, bins):
        total = 0.0
        for c in range(values.shape[2]):
            counts = [np.histogram(values[m][:, c], bins, (0, 1))[0] / m.sum() for m in (a, b)]
            total += np.minimum(*counts).sum() / values.shape[2]
        return total

    x0, y0, x1, y1 = _box(a | b)
    covered = a.sum() + b.sum()
    value = 1 - covered / a.size
    value += 1 - ((x1 - x0) * (y1 - y0) - covered) / a.size
    value += shared(texture, 10)
    return value + (shared(channels, 25) if with_color else 0)


@pytest.mark.parametrize("with_color", [True, False])
def test_merging_equals_the_plain_version(with_color):
    rng = np.random.default_rng(0)
    labels = np.kron(np.arange(12).reshape(3, 4), np.ones((5, 6), int))
    labels[0, :9] = 5  # no rectangles only
    labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    # No value on an edge between two bins.
    channels = (rng.integers(0, 25, (*labels.shape, 3)) + 0.5) / 25
    channels[labels % 3 == 0] = 0.3
    texture = (rng.integers(0, 10, (*labels.shape, 24)) + 0.5) / 10
    ours = proposals._Segments(labels, channels, texture).merge(with_color=with_color)
    expected = _plain_merge(labels, channels, texture, with_color)
    np.testing.assert_array_equal(ours, expected)


def test_anchors_by_hand_and_on_scenes(scenes):
    boxes = anchor_grid((20, 30), stride=10, sides=(4, 8), ratios=(1, 4))
    assert boxes.shape == (2 * 3 * 4, 4)
    np.testing.assert_allclose(boxes[:4], [[3, 3, 7, 7], [4, 1, 6, 9], [1, 1, 9, 9], [3, 0, 7, 13]])
    np.testing.assert_allclose(boxes[4], [13, 3, 17, 7])
    np.testing.assert_allclose(boxes[12], [3, 13, 7, 17])
    grid = anchor_grid((96, 96), stride=12, sides=(24, 34, 48), ratios=(0.5, 1, 2))
    truth = scenes.test.objects
    assert recall_by_count(truth, [grid] * len(truth), [len(grid)])[len(grid)] > 0.8


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((9, 9), np.uint8), "height, width, 1 or 3"),
        (np.zeros((9, 9, 3), np.float32), "float32"),
        (np.zeros((3, 9, 3), np.uint8), "at least 4 pixels"),
        (np.zeros((1, 1 << 23, 1), np.uint8), "at most 4,194,304 pixels"),
    ],
)
def test_bad_images_are_named(image, words):
    with pytest.raises(DataError, match=words):
        selective_search(image)
    with pytest.raises(DataError, match="`most` must be at least 1"):
        selective_search(np.zeros((9, 9, 1), np.uint8), most=0)
