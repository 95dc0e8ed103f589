"""What was written and changed since is noticed: made again where it can be, else refused."""

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from tfgraphreg import integrity, storage
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.lazy import StoredImages, store_images, stored_images
from tfgraphreg.errors import DataError, GraphError, RunError, TFGraphRegError
from tfgraphreg.features.registry import cached_rows
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.graph.tsv import read_tsv, write_tsv
from tfgraphreg.runs.folder import continued_after, keep_inputs, open_run, read_run, working_on
from tfgraphreg.visualize import style

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
    dead = tmp_path / ".digits.abcd1234.part", tmp_path / ".digits.v2.abcd1234.part"
    for folder in dead:
        folder.mkdir()
    with storage.atomic_folder(tmp_path / "digits.v2") as longer:
        assert not dead[1].exists()
        dead[1].mkdir()
        storage.remove_leftovers(tmp_path / "digits")
        assert longer.exists() and dead[1].exists() and not dead[0].exists()


@pytest.mark.parametrize("gives", [storage.atomic_folder, storage.atomic_path])
def test_what_a_living_process_writes_is_no_leftover(tmp_path, gives):
    with gives(tmp_path / "model") as part:
        storage.remove_leftovers(tmp_path / "model")
        storage.remove_leftovers_in(tmp_path)
        assert part.exists()
        # Nor is it to a second writer of the same name.
        with gives(tmp_path / "model") as other:
            assert part.exists() and other.exists() and part != other
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


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
    with pytest.raises(KeyError), storage.atomic_folder(tmp_path / "model"):
        raise KeyError
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


@pytest.mark.parametrize("kind", ["pipe", "folder", "endless"])
def test_a_note_that_is_no_ordinary_file_is_refused(tmp_path, kind):
    path, beside = tmp_path / "metrics.json", tmp_path / ".metrics.json.sha256"
    path.write_text("{}")
    if kind == "pipe":
        os.mkfifo(beside)
    elif kind == "folder":
        beside.mkdir()
    else:
        beside.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"\.metrics\.json\.sha256 beside it is no ordinary file"):
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


def test_a_noted_file_may_be_written_in_a_folder_that_appears_whole(tmp_path):
    with storage.atomic_folder(tmp_path / "folder") as part:
        storage.write_noted(part / "noted", "text")
    storage.check_note(tmp_path / "folder/noted")


def test_a_reader_of_a_noted_file_beside_its_writer_sees_no_damage(tmp_path):
    path, wrong = tmp_path / "metrics.json", []
    storage.write_noted(path, "0")
    ended = threading.Event()

    def write():
        try:
            for number in range(300):
                storage.write_noted(path, str(number))
        except Exception as error:
            wrong.append(error)
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while not ended.is_set():
            storage.check_note(path)
    finally:
        writer.join()
    assert not wrong


def test_a_reader_takes_no_writer_for_damage_however_often_it_is_overtaken(tmp_path, monkeypatch):
    path, digest = tmp_path / "metrics.json", integrity.file_digest
    rounds = list(range(20))
    storage.write_noted(path, "begun")

    def overtaken(name):
        if not rounds:
            return digest(name)
        monkeypatch.setattr(integrity, "file_digest", digest)
        number = rounds.pop()
        for half in "ab":  # After one, the earlier content would still be accepted.
            storage.write_noted(path, f"{number} {half}")
        found = digest(name)
        storage.write_noted(path, f"{number} c")
        storage.write_noted(path, f"{number} d")
        monkeypatch.setattr(integrity, "file_digest", overtaken)
        return found

    monkeypatch.setattr(integrity, "file_digest", overtaken)
    storage.check_note(path)
    assert not rounds


@pytest.mark.parametrize("noted", [True, False])
def test_killed_between_note_and_file_the_earlier_content_stays_valid(tmp_path, monkeypatch, noted):
    path = tmp_path / "metrics.json"
    storage.write_json(path, {"accuracy": 1}, noted=noted)
    before = path.read_bytes()

    def killed(beside, text):
        storage.write_text(beside, text)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(integrity, "write_text", killed)
        storage.write_noted(path, "new")
    assert path.read_bytes() == before
    storage.check_note(path)
    path.write_bytes(before.replace(b"1", b"2"))
    with pytest.raises(ValueError, match="not as it was written"):
        storage.check_note(path)


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


def test_a_setting_of_a_run_that_flipped_is_refused(workplace):
    run = open_run(TrainConfig(dataset="digits", run_dir="r", seed=1))
    with working_on(run):
        keep_inputs(run, graph_file=None)
    assert read_run("r").config.seed == 1
    longer = open_run(TrainConfig(dataset="digits", run_dir="r", seed=1, epochs=50, resume=True))
    with working_on(longer):
        assert continued_after(run.path) == [run.config.epochs]
    for name, before, after in (
        ("config.json", '"seed": 1', '"seed": 9'),
        ("inputs.json", str(run.config.epochs), "1"),
    ):
        path = run.path / name
        whole = path.read_text()
        path.write_text(whole.replace(before, after))
        assert path.read_text() != whole
        with pytest.raises(TFGraphRegError, match=rf"delete \.{name}\.sha256"):
            read_run("r")
            continued_after(run.path)
        path.write_text(whole)


def test_of_two_that_begin_a_run_at_once_the_second_leaves_it_alone(workplace):
    first, second = (
        open_run(TrainConfig(dataset="digits", run_dir="r", seed=seed)) for seed in (1, 2)
    )
    with working_on(first):
        with pytest.raises(RunError, match="Another process is at work"), working_on(second):
            pass
        assert read_run("r").config.seed == 1
    with pytest.raises(RunError, match="exists already"), working_on(second):
        pass
    assert read_run("r").config.seed == 1


def test_a_weight_of_a_written_graph_that_flipped_is_refused(tmp_path):
    graph = SimilarityGraph.from_edges([0, 1], [1, 0], [0.25, 0.5], 2)
    path = tmp_path / "graph.tsv"
    write_tsv(graph, ["a", "b"], path)
    assert read_tsv(path, ["a", "b"]).weights.tolist() == [0.25, 0.5]
    path.write_text(path.read_text().replace("0.25", "0.21"))
    with pytest.raises(GraphError, match=r"delete \.graph\.tsv\.sha256"):
        read_tsv(path, ["a", "b"])
    (tmp_path / ".graph.tsv.sha256").unlink()
    assert read_tsv(path, ["a", "b"]).weights.tolist() == pytest.approx([0.21, 0.5])


def test_a_picture_that_was_damaged_or_exchanged_is_refused(tmp_path):
    for name in ("one", "two"):
        with style.figure(height=0.2) as made:
            made.text(0, 0, name)
            style.save(made, tmp_path / name)
    path = tmp_path / "one.png"
    whole = path.read_bytes()
    assert style.read_picture(path) == whole
    for offset in np.random.default_rng(0).choice(len(whole), 60, replace=False):
        path.write_bytes(whole)
        flip(path, int(offset), int(offset) % 8)
        with pytest.raises(DataError, match=r"one\.png is damaged"):
            style.read_picture(path)
    for content in (b"", whole[:-1], (tmp_path / "two.png").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"one\.png is damaged"):
            style.read_picture(path)


def test_leftovers_of_a_note_and_of_a_whole_folder_are_cleared(tmp_path):
    for name in (".a.json.abcd1234.part", "..a.json.sha256.abcd1234.part", ".b.abcd1234.part"):
        (tmp_path / name).touch()
    storage.write_json(tmp_path / "a.json", {}, noted=True)
    storage.remove_leftovers(tmp_path / "a.json")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"a.json", ".a.json.sha256", ".b.abcd1234.part"}
    storage.remove_leftovers_in(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", ".a.json.sha256"}
