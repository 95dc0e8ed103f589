"""What was written and changed since is noticed: made again where it can be, else refused."""

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from tfgraphreg import storage
from tfgraphreg.data.lazy import StoredImages, store_images, stored_images
from tfgraphreg.errors import DataError
from tfgraphreg.features.registry import cached_rows

IMAGES = np.random.default_rng(1).integers(0, 256, (6, 4, 5, 3), np.uint8)


def flip(path, offset, bit=0):
    content = bytearray(path.read_bytes())
    content[offset] ^= 1 << bit
    path.write_bytes(content)


def store(path):
    store_images(path, IMAGES.shape, [IMAGES[:4], IMAGES[4:]])
    return path


def test_every_byte_of_cached_features_counts(tmp_path):
    rows = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    path, made = tmp_path / "features.npy", []

    def compute():
        made.append(1)
        return rows

    np.testing.assert_array_equal(cached_rows(path, 4, compute), rows)
    np.testing.assert_array_equal(cached_rows(path, 4, compute), rows)
    assert len(made) == 1
    for offset in range(path.stat().st_size):
        flip(path, offset, offset % 8)
        np.testing.assert_array_equal(cached_rows(path, 4, compute), rows)
        assert len(made) == offset + 2


def test_a_cache_file_in_the_place_of_another_is_noticed(tmp_path):
    for name in ("a.npy", "b.npy"):
        with storage.sealed_path(tmp_path / name) as part, open(part, "wb") as file:
            np.save(file, np.arange(len(name)))
        assert storage.is_sealed(tmp_path / name)
    os.replace(tmp_path / "a.npy", tmp_path / "b.npy")
    assert not storage.is_sealed(tmp_path / "b.npy")
    assert not storage.is_sealed(tmp_path / "a.npy")


def test_an_npz_with_a_seal_is_still_an_npz(tmp_path):
    with storage.sealed_path(tmp_path / "a.npz") as part, open(part, "wb") as file:
        np.savez(file, one=np.arange(3))
    with np.load(tmp_path / "a.npz") as arrays:
        np.testing.assert_array_equal(arrays["one"], np.arange(3))


def test_every_byte_of_stored_images_counts(tmp_path):
    path = store(tmp_path / "x.images.npy")
    np.testing.assert_array_equal(np.asarray(StoredImages(path)), IMAGES)
    whole = path.read_bytes()
    # The rest of the header is spaces, which a reader may pass over.
    header = whole[:128].rstrip(b" \n")
    for offset in [*range(len(header)), *range(128, len(whole))]:
        path.write_bytes(whole)
        flip(path, offset, offset % 8)
        stored = stored_images(path, IMAGES.shape)
        if stored is not None:
            with pytest.raises(DataError, match=r"is not as it was written\. Delete it"):
                np.asarray(stored)
    for length in (0, 60, 128, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert stored_images(path, IMAGES.shape) is None
    path.write_bytes(whole)
    os.replace(path, tmp_path / "y.images.npy")
    with pytest.raises(DataError, match="is not as it was written"):
        StoredImages(tmp_path / "y.images.npy")[0]


READER = """
import os, sys
target, reads, missing, mixed = sys.argv[1], 0, 0, 0
print("ready", flush=True)
while not os.path.exists(target + ".stop"):
    try:
        handle = os.open(target, os.O_RDONLY)
    except FileNotFoundError:
        missing += 1
        continue
    try:
        found = [open(f"/proc/self/fd/{handle}/{name}").read() for name in "ab"]
        reads, mixed = reads + 1, mixed + (found[0] != found[1])
    except FileNotFoundError:
        pass  # The folder was replaced while it was open, and is being removed.
    finally:
        os.close(handle)
print(reads, missing, mixed)
"""


def test_a_reader_beside_300_replacements_never_finds_a_folder_missing_or_mixed(tmp_path):
    target = tmp_path / "model"

    def write(number):
        with storage.atomic_folder(target) as part:
            for name in ("a", "b"):
                (part / name).write_text(str(number))

    write(0)
    with subprocess.Popen(
        [sys.executable, "-c", READER, str(target)], stdout=subprocess.PIPE, text=True
    ) as reader:
        reader.stdout.readline()
        try:
            for number in range(300):
                write(number)
        finally:
            (tmp_path / "model.stop").touch()
        reads, missing, mixed = map(int, reader.communicate()[0].split())
    assert reads and (missing, mixed) == (0, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model.stop"]


def test_a_folder_is_replaced_where_names_cannot_be_exchanged(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "_exchange", lambda one, other: False)
    for text in ("old", "new"):
        with storage.atomic_folder(tmp_path / "folder") as part:
            (part / text).write_text(text)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_leftovers_of_one_name_are_not_those_of_a_longer_one(tmp_path):
    with (
        storage.atomic_folder(tmp_path / "digits.v2") as longer,
        storage.atomic_folder(tmp_path / "digits") as own,
    ):
        (longer / "x").write_text("x")
        storage.remove_leftovers(tmp_path / "digits")
        assert longer.exists() and not own.exists()
        own.mkdir()
    assert (tmp_path / "digits.v2" / "x").read_text() == "x"


def test_a_killed_writer_leaves_the_old_folder_and_a_leftover_that_is_cleared(tmp_path):
    program = f"""
import os, signal
from tfgraphreg import storage
with storage.atomic_folder({str(tmp_path / "model")!r}) as part:
    (part / "new").write_text("new")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    with storage.atomic_folder(tmp_path / "model") as part:
        (part / "old").write_text("old")
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["old"]
    assert len(list(tmp_path.iterdir())) == 2
    storage.remove_leftovers(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_noted_file_that_was_changed_is_refused(tmp_path):
    path = tmp_path / "metrics.json"
    for value in (1, 2):
        storage.write_json(path, {"accuracy": value}, noted=True)
        storage.check_note(path)
    path.write_text(path.read_text().replace("2", "3"))
    with pytest.raises(ValueError, match=r"if it was changed on purpose, delete \.metrics"):
        storage.check_note(path)
    (tmp_path / ".metrics.json.sha256").unlink()
    storage.check_note(path)


def test_two_writers_at_once_leave_one_of_both(tmp_path):
    wrong = []

    def write(name):
        for number in range(40):
            storage.write_noted(tmp_path / "noted", f"{name} {number}")
            with storage.atomic_folder(tmp_path / "folder") as part:
                (part / "a").write_text(name)
                (part / "b").write_text(name)

    def work(name):
        try:
            write(name)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "two", "three")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    storage.check_note(tmp_path / "noted")
    assert (tmp_path / "folder/a").read_text() == (tmp_path / "folder/b").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".noted.sha256", "folder", "noted"]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_folder_may_take_the_place_of_a_file_or_a_link(tmp_path, kind):
    (tmp_path / "elsewhere").mkdir()
    if kind == "file":
        (tmp_path / "model").write_text("file")
    else:
        (tmp_path / "model").symlink_to("elsewhere")
    with storage.atomic_folder(tmp_path / "model") as part:
        (part / "new").write_text("new")
    assert (tmp_path / "model/new").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "model"]
