"""Scenes and the values for boxes and masks."""

import numpy as np
import pytest

from tfgraphreg.data import scenes
from tfgraphreg.data.canvas import Items, draw_scene
from tfgraphreg.data.catalog import find_loader, load_dataset
from tfgraphreg.data.dataset import Split
from tfgraphreg.data.digits import read
from tfgraphreg.data.local import LocalSplit, Objects, local_splits
from tfgraphreg.errors import DataError, UnknownNameError


@pytest.fixture(scope="module")
def drawn():
    return load_dataset("scenes:digits?n=60&size=64", validation_fraction=0.2)


def squares(count, side=20, margin=0):
    """Items whose pixels name them: item i is a square of gray value 100 + 10 i and class i."""
    values = np.arange(100, 100 + 10 * count, 10, dtype=np.uint8)
    images = np.broadcast_to(values[:, None, None], (count, side, side)).copy()
    shapes = np.zeros(images.shape, bool)
    shapes[:, margin : side - margin, margin : side - margin] = True
    return Items(images, shapes, np.arange(count))


def test_boxes_and_masks_are_exactly_what_is_visible():
    counts, covered = set(), False
    for seed in range(40):
        image, mask, objects = draw_scene(squares(6, margin=4), 48, np.random.default_rng(seed))
        assert image.shape == (48, 48, 3) and image.dtype == mask.dtype == np.uint8
        counts.add(len(objects))
        inside = np.zeros(mask.shape, bool)
        for (left, top, right, bottom), number in zip(objects.boxes.astype(int), objects.classes):
            inside[top:bottom, left:right] = True
            part = mask[top:bottom, left:right] == number + 1
            # Tight: each side of the box touches a visible pixel of the class.
            assert part[0].any() and part[-1].any() and part[:, 0].any() and part[:, -1].any()
            covered |= not part.all()
        assert not mask[~inside].any()
        assert set(np.unique(mask)) == {0, *(objects.classes + 1)}
        # Every pixel of a class is the item's one color: no clutter lies in front.
        for number in np.unique(objects.classes):
            if (objects.classes == number).sum() == 1:
                assert len(np.unique(image[mask == number + 1], axis=0)) == 1
    assert counts == {1, 2, 3, 4, 5, 6} and covered


def test_no_item_is_mostly_covered():
    """With squares, what is visible can be compared with the whole square."""
    for seed in range(40):
        items = squares(6)
        _, mask, objects = draw_scene(items, 48, np.random.default_rng(seed))
        for number in np.unique(objects.classes):
            if (objects.classes == number).sum() == 1:
                box = objects.boxes[objects.classes == number][0]
                side = max(box[2] - box[0], box[3] - box[1])
                assert (mask == number + 1).sum() >= 0.75 * side * side
                assert side <= round(0.6 * 48)


def test_scenes_are_seeded_and_a_larger_number_keeps_the_first(drawn):
    again = load_dataset("scenes:digits?n=60&size=64", seed=3)
    more = load_dataset("scenes:digits?n=80&size=64&test=2")
    other = load_dataset("scenes:digits?n=60&size=64&seed=1")
    assert len(again.test) == 15 and len(more.test) == 2
    np.testing.assert_array_equal(again.train.images[:60], more.train.images[:60])
    np.testing.assert_array_equal(again.train.masks, more.train.masks[:60])
    assert list(again.train.ids) == list(more.train.ids[:60])
    assert (again.train.images != other.train.images).any()
    assert len({data.checksum for data in (again, more, other)}) == 3


def test_test_scenes_show_test_items_alone(monkeypatch):
    images, _ = read()
    seen = {}

    def spy(items, size, rng):
        seen.setdefault(len(items.classes), items)
        return draw_scene(items, size, rng)

    monkeypatch.setattr(scenes, "draw_scene", spy)
    load_dataset("scenes:digits?n=2&test=2")
    train, test = (seen[count].images.reshape(count, -1) for count in sorted(seen, reverse=True))
    assert len(train) + len(test) == len(images)
    assert not {row.tobytes() for row in train} & {row.tobytes() for row in test}


def test_a_split_of_objects_is_a_split(drawn):
    train, validation, test = local_splits(drawn, masks=True)
    assert isinstance(train, Split) and len(train) == 48 and len(validation) == 12
    assert drawn.multilabel and drawn.class_names == tuple("0123456789")
    for split in (train, validation, test):
        for row, mask, objects in zip(split.labels, split.masks, split.objects):
            present = set(objects.classes.tolist())
            assert present == set(np.flatnonzero(row)) == {v - 1 for v in np.unique(mask) if v}
    some = train.take([3, 1])
    assert isinstance(some, LocalSplit) and some.ids.tolist() == train.ids[[3, 1]].tolist()
    np.testing.assert_array_equal(some.masks, train.masks[[3, 1]])
    assert some.objects == (train.objects[3], train.objects[1])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("scenes:dig", "Did you mean digits"),
        ("scenes:digits?m=3", "n, test, size, seed"),
        ("scenes:digits?n=3&n=4", "each once"),
        ("scenes:digits?", None),
        ("scenes?size=7", "`size` of scenes must be a whole number from 32 to 512"),
        ("scenes?n=-3", "`n` of scenes"),
        ("scenes?n=1e3", "`n` of scenes"),
        ("scenes?n=" + "9" * 5000, "`n` of scenes"),
        ("scenes?n=100000&size=512", "do not fit into 8 GB"),
    ],
)
def test_names_are_checked_before_anything_is_drawn(name, words):
    if words is None:
        find_loader(name)
        return
    with pytest.raises(DataError, match=words):
        find_loader(name)


def test_a_size_beside_the_name_is_refused():
    with pytest.raises(DataError, match=r"scenes:digits\?size=32"):
        load_dataset("scenes:digits?n=2", image_size=32)
    with pytest.raises(UnknownNameError, match="Did you mean scenes"):
        load_dataset("scene")


@pytest.mark.parametrize(
    ("boxes", "classes", "words"),
    [
        ([[0, 0, 1, 1]], [], "1 boxes, 0 classes"),
        ([[0, 0, 0, 1]], [1], "with an area"),
        ([[0, 2, 1, 1]], [1], "with an area"),
        ([[0, 0, np.nan, 1]], [1], "with an area"),
        ([[0, 0, np.inf, 1]], [1], "with an area"),
    ],
)
def test_objects_are_checked(boxes, classes, words):
    with pytest.raises(DataError, match=words):
        Objects(np.array(boxes), np.array(classes))


def test_a_split_needs_objects_and_masks_that_fit():
    images, labels = np.zeros((2, 4, 4, 1), np.uint8), np.zeros((2, 3), np.int8)
    ids, none = np.array(["a", "b"]), Objects(np.zeros((0, 4)), np.zeros(0))
    with pytest.raises(DataError, match="2 images, 1 lists"):
        LocalSplit(images, labels, ids, objects=(none,))
    with pytest.raises(DataError, match=r"int64 of shape \[2, 4, 4\]"):
        LocalSplit(images, labels, ids, objects=(none, none), masks=np.zeros((2, 4, 4), int))
    with pytest.raises(DataError, match="no boxes of objects"):
        local_splits(load_dataset("digits", limit=20))
