import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tfgraphreg.data.catalog import load_dataset
from tfgraphreg.data.dataset import UNLABELED
from tfgraphreg.data.decoding import BadImage, inspect_image
from tfgraphreg.data.lazy import FileImages, StoredImages
from tfgraphreg.errors import ConfigError, DataError


def write_folder(root, *, layout, count=6, classes=("cat", "dog"), suffix=".jpg", size=(12, 10)):
    rng = np.random.default_rng(0)
    for prefix in layout:
        for name in classes:
            folder = root / prefix / name
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i:04d}{suffix}")
    return root


def open_folder(root, tmp_path, **options):
    return load_dataset(f"folder:{root}", cache_dir=tmp_path / "cache", **options)


def test_train_and_test_folders_give_png_pixels_labels_and_ids(tmp_path):
    root = write_folder(tmp_path / "set", layout=("train", "test"), suffix=".png")
    dataset = open_folder(root, tmp_path)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.image_shape == (12, 10, 3)
    assert len(dataset.train) == len(dataset.test) == 12
    for split, name in ((dataset.train, "train"), (dataset.test, "test")):
        for i in range(len(split)):
            folder = ("cat", "dog")[split.labels[i]]
            assert split.ids[i] == f"{name}/{folder}/{i % 6:04d}"
            expected = np.asarray(Image.open(root / f"{split.ids[i]}.png"))
            np.testing.assert_array_equal(split.images[i], expected)


def test_one_folder_is_split_by_the_seed_and_by_class(tmp_path):
    root = write_folder(tmp_path / "set", layout=("",), count=50)
    first = open_folder(root, tmp_path, seed=3)
    assert np.bincount(first.test.labels).tolist() == [10, 10]
    assert np.bincount(first.train.labels).tolist() == [40, 40]
    again, other = open_folder(root, tmp_path, seed=3), open_folder(root, tmp_path, seed=4)
    assert first.test.ids.tolist() == again.test.ids.tolist() != other.test.ids.tolist()
    assert not set(first.test.ids) & set(first.train.ids)
    assert "share of 0.2" in first.notes[0]


@pytest.mark.parametrize("left", [0, 1, 100, -30])
def test_a_damaged_note_of_what_was_checked_is_made_again(tmp_path, left):
    root = write_folder(tmp_path / "set", layout=("train", "test"))
    first = open_folder(root, tmp_path)
    (note,) = (tmp_path / "cache" / "folders").glob("*.npz")
    whole = note.read_bytes()
    note.write_bytes(whole[:left])
    again = open_folder(root, tmp_path)
    assert again.train.ids.tolist() == first.train.ids.tolist()
    assert len(note.read_bytes()) == len(whole)


def test_bad_files_are_named_and_refused_or_left_out(tmp_path):
    root = write_folder(tmp_path / "set", layout=("train", "test"))
    cats = root / "train" / "cat"
    whole = (cats / "0000.jpg").read_bytes()
    (cats / "torn.jpg").write_bytes(whole[:-40])
    (cats / "text.jpg").write_text("no image")
    (cats / "empty.png").write_bytes(b"")
    (cats / "really_jpeg.png").write_bytes(whole)
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(whole)
    (cats / "link.jpg").symlink_to(outside)
    (cats / "line\nbreak.jpg").write_bytes(whole)
    Image.new("1", (10_000, 10_000)).save(cats / "bomb.png")
    (root / "train" / "notes.txt").write_text("hello")

    with pytest.raises(DataError, match=r"7 file\(s\) in .* cannot be used") as caught:
        open_folder(root, tmp_path)
    message = str(caught.value)
    assert "on_bad_image=skip" in message
    for name, reason in {
        "torn.jpg": "cannot be decoded",
        "text.jpg": "is no image",
        "empty.png": "is empty",
        "really_jpeg.png": "is JPEG, which its suffix .png does not say",
        "link.jpg": "is a link out of the folder",
        "line\\nbreak.jpg": "has a control character in its name",
        "bomb.png": "has 10000 x 10000 pixels",
    }.items():
        assert f"train/cat/{name}' {reason}" in message

    for _ in range(2):  # the second time from the kept result
        dataset = open_folder(root, tmp_path, on_bad_image="skip")
        assert len(dataset.train) == 12
        assert "7 file(s)" in dataset.notes[0]
        assert "notes.txt" in dataset.notes[1]


def test_a_linked_folder_is_reported_and_not_followed(tmp_path):
    root = write_folder(tmp_path / "set", layout=("train", "test"))
    (root / "train" / "bird").symlink_to(root / "train" / "cat")
    with pytest.raises(DataError, match="'train/bird' is a link to a folder"):
        open_folder(root, tmp_path)


def test_a_header_that_claims_an_enormous_image_is_refused_without_decoding(tmp_path):
    path = tmp_path / "bomb.bmp"
    Image.new("RGB", (4, 4)).save(path)
    content = bytearray(path.read_bytes())
    content[18:26] = np.array([60_000, 60_000], "<i4").tobytes()
    path.write_bytes(content)
    with pytest.raises(BadImage, match="pixels"):
        inspect_image(path)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda root: [p.unlink() for p in root.rglob("*.jpg")], "no usable images"),
        (lambda root: [p.unlink() for p in root.rglob("dog/*.jpg")], "hold no usable image"),
        (
            lambda root: Image.new("RGB", (10, 12)).save(root / "train/cat/0000.png"),
            r"Two files have the id 'train/cat/0000'",
        ),
        (lambda root: os.rename(root / "test/dog", root / "test/cow"), "train/ does not have"),
        (
            lambda root: Image.new("RGB", (10, 12)).save(root / "train/stray.png"),
            "is not in train/",
        ),
    ],
)
def test_folders_that_are_no_dataset(tmp_path, change, message):
    root = write_folder(tmp_path / "set", layout=("train", "test"))
    change(root)
    with pytest.raises(DataError, match=message):
        open_folder(root, tmp_path)


def test_one_class_only_and_no_folder(tmp_path):
    root = write_folder(tmp_path / "set", layout=("train", "test"), classes=("cat",))
    with pytest.raises(DataError, match=r"at least two classes.*has 1: cat"):
        open_folder(root, tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        open_folder(tmp_path / "nowhere", tmp_path)
    with pytest.raises(ConfigError, match="`on_bad_image`"):
        open_folder(root, tmp_path, on_bad_image="ask")


def test_unlabeled_images_and_labels_per_class(tmp_path):
    root = write_folder(
        tmp_path / "set", layout=("train", "test"), classes=("cat", "dog", "_unlabeled")
    )
    for image in (root / "test" / "_unlabeled").iterdir():
        image.unlink()
    (root / "test" / "_unlabeled").rmdir()
    dataset = open_folder(root, tmp_path, labels_per_class=2)
    assert dataset.class_names == ("cat", "dog")
    assert len(dataset.train) == 18
    assert np.unique(dataset.train.labels, return_counts=True)[1].tolist() == [14, 2, 2]
    assert dataset.train.labels.min() == UNLABELED


def test_large_folders_stay_on_disk_and_give_the_same_pixels(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "set", layout=("train", "test"), count=20)
    in_memory = open_folder(root, tmp_path, image_size=8)
    monkeypatch.setattr("tfgraphreg.data.folder.IN_MEMORY_BYTES", 0)
    lazy = open_folder(root, tmp_path, image_size=8)
    stored = open_folder(root, tmp_path, image_size=8, cache_images=True)
    assert isinstance(lazy.train.images, FileImages)
    assert isinstance(stored.train.images, StoredImages)
    expected = in_memory.train.images
    assert expected.shape == (40, 8, 8, 3)
    some = np.array([5, 6, 7, 3, 3, 39])
    mask = np.arange(40) % 3 == 0
    for images in (lazy.train.images, stored.train.images):
        assert images.shape == expected.shape and images.dtype == np.uint8
        np.testing.assert_array_equal(images[some], expected[some])
        np.testing.assert_array_equal(images[mask], expected[mask])
        np.testing.assert_array_equal(images[4:30:2], expected[4:30:2])
        np.testing.assert_array_equal(images[-1], expected[-1])
        np.testing.assert_array_equal(images[[]], expected[:0])
        np.testing.assert_array_equal(images.take_rows(some)[1:3], expected[some][1:3])
        np.testing.assert_array_equal(np.asarray(images), expected)
        with pytest.raises(IndexError):
            images[40]


def test_an_image_that_changes_after_the_check_is_named(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "set", layout=("train", "test"))
    monkeypatch.setattr("tfgraphreg.data.folder.IN_MEMORY_BYTES", 0)
    images = open_folder(root, tmp_path).train.images
    (root / "train/cat/0002.jpg").write_bytes(b"gone")
    with pytest.raises(DataError, match=r"0002\.jpg is no image"):
        images[:4]


def test_gray_images_have_one_channel_and_deep_ones_keep_their_upper_byte(tmp_path):
    root = tmp_path / "set"
    values = np.arange(120, dtype=np.uint16).reshape(12, 10) * 500
    for split in ("train", "test"):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            Image.fromarray(values).save(root / split / name / "deep.png")
    images = open_folder(root, tmp_path).train.images
    np.testing.assert_array_equal(images[0, ..., 0], (values >> 8).astype(np.uint8))


_MEMORY = """
import resource, sys
import numpy as np
from tfgraphreg.data.catalog import load_dataset
root, cache, keep = sys.argv[1:4]
dataset = load_dataset("folder:" + root, cache_dir=cache, cache_images=keep == "1")
total = 0
for start in range(0, len(dataset.train), 1000):
    total += int(dataset.train.images[start : start + 1000].sum())
print(len(dataset.train), total, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("cached", ["0", "1"])
def test_a_hundred_thousand_jpegs_take_little_memory(tmp_path, cached):
    root = tmp_path / "set"
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(
            root / name / "first.jpg"
        )
        content = (root / name / "first.jpg").read_bytes()
        for i in range(49_999):
            (root / name / f"{i:06d}.jpg").write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY, str(root), str(tmp_path / "cache"), cached],
        capture_output=True,
        text=True,
        check=True,
    )
    count, _, megabytes = map(int, done.stdout.split())
    print(done.stdout)
    assert count == 80_000
    assert megabytes < 1000  # the images alone are 1.2 GB
