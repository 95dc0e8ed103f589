"""Images in TFRecord files, against the arrays that they were made of."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from tfgraphreg import cli
from tfgraphreg.compat import tf
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.catalog import load_dataset
from tfgraphreg.data.dataset import UNLABELED
from tfgraphreg.data.lazy import StoredImages
from tfgraphreg.data.record_files import RecordImages
from tfgraphreg.errors import DataError
from tfgraphreg.recipes.build_graph import build_graph
from tfgraphreg.shards.engine import InProcess

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 255, (40, 12, 10, 3), dtype=np.uint8)
LABELS = np.arange(40) % 2


def png(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def example(**features):
    made = tf.train.Example()
    for name, value in features.items():
        values = value if isinstance(value, list) else [value]
        feature = made.features.feature[name.replace("__", "/")]
        if isinstance(values[0], bytes):
            feature.bytes_list.value.extend(values)
        elif isinstance(values[0], float):
            feature.float_list.value.extend(values)
        else:
            feature.int64_list.value.extend(values)
    return made.SerializeToString()


def write(path, records):
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as out:
        for record in records:
            out.write(record)


def plain(rows):
    return [example(image=png(PIXELS[i]), label=int(LABELS[i])) for i in rows]


@pytest.fixture
def folder(tmp_path):
    """Two training shards of 15 images each and a test file of 10."""
    root = tmp_path / "set"
    write(root / "train-00000-of-00002.tfrecord", plain(range(15)))
    write(root / "train-00001-of-00002.tfrecord", plain(range(15, 30)))
    write(root / "test.tfrecord", plain(range(30, 40)))
    return root


def load(root, tmp_path, **options):
    return load_dataset(f"tfrecord:{root}", cache_dir=tmp_path / "cache", **options)


def test_pixels_labels_and_ids_are_those_that_were_written(folder, tmp_path):
    for _ in range(2):  # the second time from the note in the cache
        data = load(folder, tmp_path)
        np.testing.assert_array_equal(data.train.images, PIXELS[:30])
        np.testing.assert_array_equal(data.test.images, PIXELS[30:])
        assert data.train.labels.tolist() == LABELS[:30].tolist()
        assert data.class_names == ("0", "1")
        assert data.train.ids[[0, 29]].tolist() == ["train/00000", "train/00029"]
        assert data.test.ids[0] == "test/00000"


def test_large_sets_stay_in_their_files_and_give_the_same_pixels(folder, tmp_path, monkeypatch):
    in_memory = load(folder, tmp_path, image_size=8)
    monkeypatch.setattr("tfgraphreg.data.folder.IN_MEMORY_BYTES", 0)
    lazy = load(folder, tmp_path, image_size=8)
    stored = load(folder, tmp_path, image_size=8, cache_images=True)
    assert isinstance(lazy.train.images, RecordImages)
    assert isinstance(stored.train.images, StoredImages)
    some = np.array([5, 29, 7, 3, 3, 16])
    for images in (lazy.train.images, stored.train.images):
        np.testing.assert_array_equal(images[some], in_memory.train.images[some])
        np.testing.assert_array_equal(
            images.take_rows(some)[1:3], in_memory.train.images[some[1:3]]
        )
        np.testing.assert_array_equal(np.asarray(images), in_memory.train.images)


def test_the_names_of_tensorflows_scripts_are_known(tmp_path):
    names = ["fish", "owl"]
    records = [
        example(
            image__encoded=png(PIXELS[i]),
            image__class__label=int(LABELS[i]),
            image__class__text=names[LABELS[i]].encode(),
            image__filename=f"{i}.png".encode(),
        )
        for i in range(30)
    ]
    write(tmp_path / "set" / "train-00000-of-00001", records[:20])
    write(tmp_path / "set" / "validation-00000-of-00001", records[20:])
    data = load(tmp_path / "set", tmp_path)
    assert data.class_names == ("fish", "owl")
    assert data.train.ids[0] == "train/0.png" or data.test.ids[0] == "train/0.png"
    assert len(data.validation) == 10 and len(data.train) + len(data.test) == 20


def test_classes_by_name_and_images_without_a_label(tmp_path):
    names = ["owl", "fish"]
    records = [example(image=png(PIXELS[i]), label=names[LABELS[i]].encode()) for i in range(20)]
    records += [example(image=png(PIXELS[20])), example(image=png(PIXELS[21]), label=-1)]
    write(tmp_path / "set" / "train.tfrecord", records)
    write(tmp_path / "set" / "test.tfrecord", records[:4])
    data = load(tmp_path / "set", tmp_path)
    assert data.class_names == ("fish", "owl")
    assert data.train.labels.tolist() == [1, 0] * 10 + [UNLABELED] * 2


def test_a_file_of_names_names_the_classes(folder, tmp_path):
    (folder / "labels.txt").write_text("cat\ndog\nemu\n")
    assert load(folder, tmp_path).class_names == ("cat", "dog", "emu")
    (folder / "labels.txt").write_text("cat\n")
    with pytest.raises(DataError, match="label 1, 1 names"):
        load(folder, tmp_path)
    (folder / "labels.txt").write_text("cat\ncat\n")
    with pytest.raises(DataError, match="each once"):
        load(folder, tmp_path)


def test_files_without_a_split_are_divided(tmp_path):
    write(tmp_path / "set" / "images.tfrecord", plain(range(40)))
    data = load(tmp_path / "set", tmp_path)
    assert (len(data.train), len(data.test)) == (32, 8)
    assert np.bincount(data.test.labels).tolist() == [4, 4]


@pytest.mark.parametrize("cut", [1, 4, 13, 200])
def test_a_truncated_file_is_named(folder, tmp_path, cut):
    path = folder / "train-00001-of-00002.tfrecord"
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match=r"00001-of-00002.tfrecord is no TFRecord file"):
        load(folder, tmp_path)


def test_a_length_beyond_the_file_is_not_believed(folder, tmp_path):
    path = folder / "test.tfrecord"
    path.write_bytes(struct.pack("<Q", 1 << 60) + path.read_bytes()[8:])
    with pytest.raises(DataError, match="goes beyond them"):
        load(folder, tmp_path)


def test_a_flipped_byte_is_seen(folder, tmp_path):
    path = folder / "test.tfrecord"
    content = bytearray(path.read_bytes())
    content[300] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"test.tfrecord is damaged: record 0"):
        load(folder, tmp_path)


def test_a_file_that_changes_after_the_check_is_named(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("tfgraphreg.data.folder.IN_MEMORY_BYTES", 0)
    images = load(folder, tmp_path).train.images
    (folder / "train-00000-of-00002.tfrecord").write_bytes(b"gone")
    with pytest.raises(DataError, match="changed since the check"):
        images[[0]]


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ({"label": 0}, "has no image file"),
        ({"image": b"no image", "label": 0}, "is no image"),
        ({"image": png(PIXELS[0]), "label": [0, 1]}, "has 2 labels"),
        ({"image": png(PIXELS[0]), "label": 1 << 40}, "not in"),
        ({"image": png(PIXELS[0]), "label": 1.5}, "no whole number"),
        ({"image": png(PIXELS[0]), "label": b"\xff"}, "not UTF-8"),
        ({"image": png(PIXELS[0]), "label": b"a\x1b[31m"}, "control characters"),
        ({"image": png(PIXELS[0]), "label": 0, "filename": b"x" * 600}, "a name of 600"),
        ({"image": [png(PIXELS[0])] * 2, "label": 0}, "has 2 images"),
    ],
)
def test_a_record_that_cannot_be_used_is_named_or_skipped(folder, tmp_path, features, words):
    write(folder / "train-00000-of-00002.tfrecord", [*plain(range(3)), example(**features)])
    with pytest.raises(DataError, match=r"of-00002.tfrecord record 3") as error:
        load(folder, tmp_path)
    assert words in str(error.value)
    data = load(folder, tmp_path, on_bad_image="skip")
    assert len(data.train) == 18
    np.testing.assert_array_equal(data.train.images, PIXELS[[*range(3), *range(15, 30)]])
    assert any(words in note for note in data.notes)


def test_bytes_that_are_no_example_are_named(folder, tmp_path):
    write(folder / "train-00000-of-00002.tfrecord", [b"\xff\xff\xff"])
    with pytest.raises(DataError, match=r"is no tf\.train\.Example"):
        load(folder, tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: (root / "train-00001-of-00002.tfrecord").unlink(), "no train-00001-of-00002"),
        (lambda root: (root / "more.tfrecord").write_bytes(b""), "since others do"),
        (lambda root: (root / "train.tfrecord.gz").write_bytes(b""), "Unpack"),
        (lambda root: (root / "train_test.tfrecord").write_bytes(b""), "names test and train"),
        (lambda root: [p.unlink() for p in root.glob("train*")], "for training"),
        (lambda root: [p.unlink() for p in root.glob("*")], "holds no TFRecord file"),
    ],
)
def test_folders_that_are_not_whole_are_refused(folder, tmp_path, change, words):
    change(folder)
    with pytest.raises(DataError, match=words):
        load(folder, tmp_path)


def test_two_names_of_one_class_are_refused(tmp_path):
    records = [
        example(image=png(PIXELS[i]), image__class__label=i % 2, image__class__text=name)
        for i, name in enumerate([b"cat", b"dog", b"emu"])
    ]
    write(tmp_path / "set" / "train.tfrecord", records)
    with pytest.raises(DataError, match=r"two names for one class.*0: cat, emu"):
        load(tmp_path / "set", tmp_path)


@pytest.mark.usefixtures("workplace")
def test_an_engine_builds_the_graph_of_memory_from_records(folder, monkeypatch):
    config = TrainConfig(dataset=f"tfrecord:{folder}", graph_neighbors=3, graph_features="color")
    build_graph(config, "memory")
    monkeypatch.setattr("tfgraphreg.data.folder.IN_MEMORY_BYTES", 0)
    build_graph(config, "engine", engine=InProcess())
    from tfgraphreg.graph.npz import read_npz

    one, two = (read_npz(f"{name}/graph.npz")[0] for name in ("memory", "engine"))
    np.testing.assert_array_equal(one.indices, two.indices)
    np.testing.assert_allclose(one.weights, two.weights, rtol=1e-6)


@pytest.mark.usefixtures("workplace")
def test_train_takes_them_and_a_missing_folder_is_one_line(folder, capsys):
    words = ["--dataset", f"tfrecord:{folder}", "--epochs", "1", "--run-dir", "run"]
    assert cli.run_command("train", [*words, "--backbone", "cnn", "--batch-size", "8"]) == 0
    capsys.readouterr()
    assert cli.run_command("train", ["--dataset", "tfrecord:nowhere"]) == 2
    said = capsys.readouterr()
    assert "nowhere" in said.err and said.err.strip().count("\n") == 0


def test_what_tensorflow_datasets_prepared_is_read_as_it_is(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets", reason="it prepares the files")

    class Pets(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = tmp_path

        def _info(self):
            label = tfds.features.ClassLabel(names=["fish", "owl"])
            image = tfds.features.Image(shape=(12, 10, 3))
            features = tfds.features.FeaturesDict({"image": image, "label": label})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {
                "train": self._generate_examples(0, 30),
                "test": self._generate_examples(30, 40),
            }

        def _generate_examples(self, first, last):
            for i in range(first, last):
                yield i, {"image": PIXELS[i], "label": int(LABELS[i])}

    builder = Pets(data_dir=tmp_path)
    builder.download_and_prepare()
    data = load(builder.data_path, tmp_path)
    assert data.class_names == ("fish", "owl")
    expected = {pixels.tobytes(): label for pixels, label in zip(PIXELS[:30], LABELS)}
    found = {p.tobytes(): label for p, label in zip(data.train.images, data.train.labels)}
    assert found == expected and len(data.test) == 10
