"""Folders as people have them: names of splits, leftovers of file servers, few or no labels."""

import dataclasses
import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from tfgraphreg.data.catalog import load_dataset
from tfgraphreg.data.dataset import UNLABELED
from tfgraphreg.data.layout import split_of
from tfgraphreg.errors import DataError


def write(root, sizes, *, size=(10, 12), suffix=".png"):
    rng = np.random.default_rng(len(sizes))
    for name, count in sizes.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:03}{suffix}")
    return root


def open_folder(root, tmp_path, **options):
    return load_dataset(f"folder:{root}", cache_dir=tmp_path / "cache", **options)


def counts(split, classes):
    return [int((split.labels == number).sum()) for number in [*range(classes), UNLABELED]]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("Train", "Test"),
        ("TRAIN", "TEST"),
        ("Training", "Testing"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("trainset", "test-set"),
        ("archive/training_set", "archive/test_set"),
    ],
)
def test_splits_are_known_by_their_usual_names(tmp_path, train, test):
    root = tmp_path / "set"
    for split, count in ((train, 6), (test, 3)):
        write(root / split, {"a": count, "b": count, "c": count})
    dataset = open_folder(root, tmp_path)
    assert dataset.class_names == ("a", "b", "c")
    assert counts(dataset.train, 3) == [6, 6, 6, 0] and counts(dataset.test, 3) == [3, 3, 3, 0]
    assert dataset.train.ids[0] == f"{train}/a/000"


def test_names_that_are_no_split():
    words = ("plane", "trains", "contest", "val d'isere", "train_2", "", "_", "testtrain")
    assert [split_of(name) for name in words] == [None] * len(words)
    assert [split_of(n) for n in ("VAL", "valid", "Validation")] == ["validation"] * 3


def test_a_class_named_train_is_a_class(tmp_path):
    dataset = open_folder(write(tmp_path / "set", {"train": 6, "plane": 6}), tmp_path)
    assert dataset.class_names == ("plane", "train")


def test_splits_by_unknown_names_are_refused(tmp_path):
    root = tmp_path / "set"
    for split in ("Entrenamiento", "Prueba"):
        write(root / split, {"a": 2, "b": 2})
    with pytest.raises(DataError, match=r"all have the same subfolders.*Entrenamiento, Prueba"):
        open_folder(root, tmp_path)
    write(root / "Prueba", {"c": 2})
    assert open_folder(root, tmp_path).class_names == ("Entrenamiento", "Prueba")


def test_a_class_keeps_a_training_image_whatever_is_taken_away(tmp_path):
    root = write(tmp_path / "set", dict(a=10, b=10, c=10, d=1, e=1, f=1, g=1))
    dataset = open_folder(root, tmp_path)
    assert counts(dataset.train, 7) == [8, 8, 8, 1, 1, 1, 1, 0]
    assert "The test split has no image of d, e, f, g." in dataset.notes
    for options in ({"validation_fraction": 0.5}, {"validation_fraction": 0.99}, {"limit": 7}):
        for seed in range(3):
            dataset = open_folder(root, tmp_path, seed=seed, **options)
            assert min(counts(dataset.train, 7)[:7]) == 1, options
    dataset = open_folder(root, tmp_path, limit=4)
    assert len(dataset.train) == 4
    missing = [n for n, c in zip(dataset.class_names, counts(dataset.train, 7)) if c == 0]
    assert f"3 class(es) have no labeled training image: {', '.join(missing)}." in dataset.notes


@pytest.mark.parametrize("names", [("Ant", "Bee", "Cat"), ("ant", "bee", "cat"), ("a", "a-b", "b")])
def test_a_limit_takes_of_every_class_wherever_the_unlabeled_images_stand(tmp_path, names):
    root = write(tmp_path / "set", {**dict.fromkeys(names, 20), "_unlabeled": 20})
    dataset = open_folder(root, tmp_path, limit=16)
    assert counts(dataset.train, 3) == [4, 4, 4, 4] or counts(dataset.train, 3)[:3] == [3, 4, 4]
    assert min(counts(dataset.train, 3)) >= 3


@pytest.mark.parametrize("unlabeled", ["_unlabeled", "Unlabelled"])
def test_unlabeled_images_are_for_training_alone(tmp_path, unlabeled):
    root = write(tmp_path / "set", {"a": 10, "b": 10, unlabeled: 20})
    dataset = open_folder(root, tmp_path, validation_fraction=0.25)
    assert counts(dataset.train, 2) == [6, 6, 20]
    assert counts(dataset.validation, 2) == counts(dataset.test, 2) == [2, 2, 0]


def test_one_name_in_two_unicode_forms_is_one_class(tmp_path):
    forms = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    root = tmp_path / "set"
    write(root / "train", {forms[0]: 5, "b": 5})
    write(root / "test", {forms[1]: 3, "b": 3})
    dataset = open_folder(root, tmp_path)
    assert dataset.class_names == ("b", forms[0])
    assert counts(dataset.test, 2) == [3, 3, 0]
    both = write(tmp_path / "both", {forms[0]: 1, "b": 5})
    write(both, {forms[1]: 1})
    with pytest.raises(DataError, match="Two files have the id 'café/000'"):
        open_folder(both, tmp_path)


def test_folders_that_file_servers_make_are_no_classes(tmp_path):
    names = ("@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN", "a/@eaDir/x.png")
    root = write(tmp_path / "set", {"a": 6, "b": 6, **dict.fromkeys(names, 2)})
    dataset = open_folder(root, tmp_path)
    assert dataset.class_names == ("a", "b")
    assert len(dataset.train) + len(dataset.test) == 12
    assert any("5 folder(s) that file servers make" in note for note in dataset.notes)


def test_a_folder_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    root = write(tmp_path / "set", {"a": 6, "b": 6, "b/deep": 6})
    real = os.scandir

    def scandir(path):
        # The tests may run as root, whom no permission keeps out.
        if os.fspath(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"'b/deep' is a folder that cannot be read \(Permission"):
        open_folder(root, tmp_path)
    dataset = open_folder(root, tmp_path, on_bad_image="skip")
    assert len(dataset.train) + len(dataset.test) == 12
    assert "'b/deep'" in dataset.notes[0]


def test_two_files_of_one_stem_can_be_skipped(tmp_path):
    root = write(tmp_path / "set", {"a": 6, "b": 6})
    Image.open(root / "a/000.png").save(root / "a/000.bmp")
    with pytest.raises(DataError, match=r"Two files have the id.*on_bad_image=skip"):
        open_folder(root, tmp_path)
    dataset = open_folder(root, tmp_path, on_bad_image="skip")
    assert len(dataset.train) + len(dataset.test) == 12
    assert "'a/000.png' has the id of 'a/000.bmp'" in dataset.notes[0]


@pytest.mark.parametrize(("sides", "chosen"), [((40, 70), 48), ((10, 12), 16), ((300, 500), 128)])
def test_images_of_many_sizes_get_one(tmp_path, sides, chosen):
    root = tmp_path / "set"
    for number, side in enumerate(range(sides[0], sides[1], max(1, (sides[1] - sides[0]) // 5))):
        for name in ("a", "b"):
            write(root / name, {f"{name}{number}": 2}, size=(side, side + 3))
    dataset = open_folder(root, tmp_path)
    assert dataset.image_shape == (chosen, chosen, 3)
    assert any(f"resized to {chosen} x {chosen}. `image_size`" in n for n in dataset.notes)
    assert open_folder(root, tmp_path, image_size=20).image_shape == (20, 20, 3)


def test_few_training_labels_beside_a_labeled_validation_split_are_told(tmp_path):
    root = write(tmp_path / "set", {"a": 20, "b": 20, "_unlabeled": 5})
    options = {"validation_fraction": 0.25, "labels_per_class": 2}
    dataset = open_folder(root, tmp_path, **options)
    assert counts(dataset.train, 2) == [2, 2, 25]
    assert counts(dataset.validation, 2) == [4, 4, 0]
    told = [note for note in dataset.notes if "validation split keeps its 8 labels" in note]
    assert len(told) == 1 and "2 a class" in told[0]


def test_unlabeled_images_of_a_loader_are_not_measured_by(monkeypatch):
    from tfgraphreg.data import catalog

    whole = load_dataset("digits")
    labels = whole.test.labels.copy()
    labels[:7] = UNLABELED
    loader = catalog.DATASETS.get("digits").loader

    def partly_labeled(options):
        found = loader(options)
        return dataclasses.replace(found, test=dataclasses.replace(found.test, labels=labels))

    monkeypatch.setattr(catalog, "find_loader", lambda name: partly_labeled)
    dataset = load_dataset("digits")
    np.testing.assert_array_equal(dataset.test.ids, whole.test.ids[7:])
    assert "7 unlabeled image(s) of the test split are left out." in dataset.notes
