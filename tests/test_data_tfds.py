import tempfile

import numpy as np
import pytest

from tfgraphreg.data.catalog import load_dataset
from tfgraphreg.data.lazy import StoredImages
from tfgraphreg.data.voc import VocReader
from tfgraphreg.errors import DataError, UnknownNameError

tfds = pytest.importorskip("tensorflow_datasets", reason="its mock_data stands for its data")


@pytest.fixture
def mocked(monkeypatch, tmp_path):
    """Generated data of any builder's schema, as if it had been downloaded."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setattr("tfgraphreg.data.network.reachable", lambda url: True)
    with tfds.testing.mock_data(num_examples=9):
        yield tmp_path


@pytest.mark.parametrize(
    "name, classes, shape",
    [
        ("imagenette", 10, (24, 20, 3)),
        ("imagenet2012", 1000, (24, 20, 3)),
        ("imagenet_resized/64x64", 1000, (64, 64, 3)),
        ("tfds:cifar100", 100, (32, 32, 3)),
        ("tfds:oxford_flowers102", 102, (24, 20, 3)),
    ],
)
def test_any_image_dataset_with_class_labels(mocked, name, classes, shape):
    size = None if shape[0] == shape[1] else shape[:2]
    dataset = load_dataset(
        name, image_size=size, data_dir=mocked, limit=5, cache_dir=mocked / "cache"
    )
    assert dataset.name == name
    assert dataset.num_classes == classes
    assert dataset.image_shape == shape and dataset.train.images.dtype == np.uint8
    assert (len(dataset.train), len(dataset.test)) == (5, 9)
    assert dataset.train.labels.dtype == np.int64 and not dataset.multilabel
    assert dataset.train.labels.max() < classes
    assert dataset.train.ids[0].startswith(f"{name}/train/")
    assert str(mocked) in dataset.source


def test_voc_has_several_classes_an_image_difficult_ones_and_boxes(mocked):
    dataset = load_dataset("voc2007", image_size=32, cache_dir=mocked / "cache")
    train = dataset.train
    assert dataset.multilabel and dataset.num_classes == 20
    assert train.labels.shape == (9, 20) and set(np.unique(train.labels)) == {0, 1}
    assert train.extras["boxes"].shape[:2] == train.extras["box_classes"].shape
    assert not (train.extras["difficult"] & (train.labels == 1)).any()
    few = train.take([4, 2])
    np.testing.assert_array_equal(few.extras["difficult"], train.extras["difficult"][[4, 2]])


def test_voc_difficult_as_the_development_kit_has_it():
    reader = VocReader(("cat", "dog", "cow"), "labels_no_difficult")
    # One plain and one difficult cat; only difficult dogs; no cow.
    example = {
        "labels": np.array([0, 1]),
        "labels_no_difficult": np.array([0]),
        "objects": {
            "bbox": np.eye(4, dtype=np.float32)[:3],
            "label": np.array([0, 0, 1]),
            "is_difficult": np.array([False, True, True]),
        },
    }
    nothing = {
        "labels": np.array([], int),
        "labels_no_difficult": np.array([], int),
        "objects": {
            "bbox": np.zeros((0, 4), np.float32),
            "label": np.array([], int),
            "is_difficult": np.array([], bool),
        },
    }
    assert reader.label(example).tolist() == [1, 0, 0]
    extras = reader.stack_extras([reader.extras(example), reader.extras(nothing)])
    assert extras["difficult"].tolist() == [[False, True, False], [False] * 3]
    assert extras["box_classes"].tolist() == [[0, 0, 1], [-1, -1, -1]]
    assert extras["box_difficult"].tolist() == [[False, True, True], [False] * 3]


def write_small_builder(folder, count):
    """A prepared dataset of tensorflow-datasets, really written and really read."""
    from tensorflow_datasets.core import registered

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 6, 5, 3), dtype=np.uint8)
    with registered.skip_registration():

        class Little(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.0.0")

            def _info(self):
                features = {
                    "image": tfds.features.Image(shape=(6, 5, 3)),
                    "label": tfds.features.ClassLabel(names=["a", "b"]),
                    "id": tfds.features.Text(),
                }
                return tfds.core.DatasetInfo(
                    builder=self, features=tfds.features.FeaturesDict(features)
                )

            def _split_generators(self, dl_manager):
                return {"train": self._generate_examples()}

            def _generate_examples(self):
                for i, image in enumerate(images):
                    yield i, {"image": image, "label": i % 2, "id": f"picture {i}"}

    builder = Little(data_dir=str(folder))
    builder.download_and_prepare()
    return builder, images


@pytest.mark.parametrize("bound", [2**20, 0], ids=["memory", "disk"])
def test_real_records_come_back_with_their_names(tmp_path, monkeypatch, bound):
    builder, images = write_small_builder(tmp_path / "tfds", 30)
    monkeypatch.setattr("tfgraphreg.data.tfds_images.IN_MEMORY_BYTES", bound)
    monkeypatch.setattr(
        "tfgraphreg.data.tfds_access.prepared_builder", lambda name, **_: (builder, "here")
    )
    for _ in range(2):  # the second time from the file, if there is one
        dataset = load_dataset("tfds:little", cache_dir=tmp_path / "cache", seed=1)
        for split in (dataset.train, dataset.test):
            assert isinstance(split.images, np.ndarray) == (bound > 0)
            for i, image_id in enumerate(split.ids):
                number = int(image_id.split()[-1])
                assert image_id == f"tfds:little/train/picture {number}"
                np.testing.assert_array_equal(split.images[i], images[number])
                assert split.labels[i] == number % 2
    assert (len(dataset.train), len(dataset.test)) == (24, 6)
    if bound == 0:
        assert isinstance(dataset.train.images, StoredImages)

    record = next((tmp_path / "tfds").rglob("*.tfrecord*"))
    record.write_bytes(record.read_bytes()[:-20])
    with pytest.raises(DataError, match="truncated or altered"):
        load_dataset("tfds:little", cache_dir=tmp_path / "new")


def test_without_a_network_or_archives_it_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr("tfgraphreg.data.network.reachable", lambda url: False)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with pytest.raises(DataError, match=r"No source has the dataset voc/2007.*no answer from"):
        load_dataset("voc2007")
    with pytest.raises(DataError, match=r"not prepared in .*none was asked for.*data_dir"):
        load_dataset("imagenette", offline=True)
    with pytest.raises(DataError, match=r"fetched by hand.*ILSVRC2012_img_train\.tar"):
        load_dataset("imagenet2012")
    with pytest.raises(DataError, match=r"could not prepare imagenet2012"):
        load_dataset("imagenet2012", data_dir=tmp_path)
    with pytest.raises(UnknownNameError, match="Did you mean tfds:cifar100"):
        load_dataset("tfds:cifar1000")
    with pytest.raises(DataError, match=r"cannot make the dataset mnist:9\.9\.9.*version 9\.9\.9"):
        load_dataset("tfds:mnist:9.9.9")
    with pytest.raises(DataError, match=r"cannot make the dataset mnist/foo=1"):
        load_dataset("tfds:mnist/foo=1")
    assert not list(temporary.iterdir())
