"""Files appear whole or not at all."""

import errno
import json

import numpy as np
import pytest

from tfgraphreg import storage
from tfgraphreg.errors import DataError


def test_atomic_path_leaves_the_old_file_when_the_block_fails(tmp_path):
    path = tmp_path / "file"
    storage.write_text(path, "old")
    with pytest.raises(KeyError), storage.atomic_path(path) as part:
        part.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_folder_replaces_a_folder(tmp_path):
    path = tmp_path / "folder"
    for text in ("old", "new"):
        with storage.atomic_folder(path) as part:
            (part / text).write_text(text)
    assert [p.name for p in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "The disk is full"), (errno.EACCES, "cannot be written")]
)
def test_failed_writes_become_sentences(tmp_path, number, words):
    with pytest.raises(DataError, match=words), storage.atomic_path(tmp_path / "file"):
        raise OSError(number, "no")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file_is_refused_in_words(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        storage.write_text(tmp_path / "file" / "below", "text")


def test_fingerprints_tell_values_apart():
    one = storage.fingerprint({"a": 1, "b": np.arange(3)})
    assert one == storage.fingerprint({"b": np.arange(3), "a": 1})
    others = [{"a": 2, "b": np.arange(3)}, {"a": 1, "b": np.arange(4)}, {"a": 1, "b": [0, 1, 2]}]
    assert len({one, *map(storage.fingerprint, others)}) == 4


def test_json_has_no_nan(tmp_path):
    path = tmp_path / "x.json"
    storage.write_json(path, {"a": float("nan"), "b": np.float32(0.5), "c": np.arange(2)})
    assert json.loads(path.read_text()) == {"a": None, "b": 0.5, "c": [0, 1]}


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), OSError("920 requested and 255 written")],
    ids=["from the system", "from NumPy"],
)
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, error):
    with (
        pytest.raises(DataError, match="The disk is full while writing"),
        storage.atomic_path(tmp_path / "x.npy"),
    ):
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_is_told():
    with pytest.raises(DataError, match="cannot be written"):
        storage.write_text("/proc/nope/x.txt", "x")
