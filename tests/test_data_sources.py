import dataclasses
import gzip
import hashlib
import os
import pathlib
import shutil
import tarfile
import time

import numpy as np
import pytest

from tfgraphreg.data import debian, network, sources, tfds_files
from tfgraphreg.data.catalog import DATASETS, load_dataset
from tfgraphreg.data.known import CIFAR10, FASHION_MNIST, MNIST, RawFile, parse_idx, write_idx
from tfgraphreg.errors import ConfigError, DataError, UnknownNameError
from tfgraphreg.storage import cache_folder


def small_set(known, tmp_path, *, train, test):
    """`known` with random images instead of its own, written to a folder as raw files."""
    rng = np.random.default_rng(1)
    splits = {
        name: (
            rng.integers(0, 256, (count, *known.image_shape), dtype=np.uint8),
            rng.integers(0, 10, count),
        )
        for name, count in (("train", train), ("test", test))
    }
    content = known.unparse(splits)
    files = tuple(
        RawFile(
            f.name, len(content[f.name]), "sha256:" + hashlib.sha256(content[f.name]).hexdigest()
        )
        for f in known.files
    )
    folder = tmp_path / "data"
    folder.mkdir()
    for name, data in content.items():
        (folder / name).write_bytes(data)
    return dataclasses.replace(known, files=files, debian_package=None), splits, folder


@pytest.fixture(autouse=True)
def _no_other_sources(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "no_tfds"))


def find(known, tmp_path, **options):
    return sources.find_files(known, cache_dir=tmp_path / "cache", offline=True, **options)


@pytest.mark.parametrize("known", [MNIST, CIFAR10], ids=lambda known: known.name)
def test_raw_files_give_their_arrays(known, tmp_path):
    known, splits, folder = small_set(known, tmp_path, train=20, test=6)
    files, source = find(known, tmp_path, data_dir=folder)
    assert source == f"files in {folder}"
    parsed = known.parse(files)
    for name, (images, labels) in splits.items():
        np.testing.assert_array_equal(parsed[name][0], images)
        np.testing.assert_array_equal(parsed[name][1], labels)
        assert parsed[name][1].dtype == np.int64


def test_cifar_planes_are_red_green_blue(tmp_path):
    record = bytes([7]) + bytes(range(256)) * 4 + bytes([1]) * 1024 + bytes([2]) * 1024
    files = {f"data_batch_{i}.bin": record for i in range(1, 6)} | {"test_batch.bin": record}
    images, labels = CIFAR10.parse(files)["test"]
    assert images.shape == (1, 32, 32, 3) and labels.tolist() == [7]
    assert images[0, 1, 3].tolist() == [35, 1, 2]


@pytest.mark.parametrize("place", ["", "MNIST/raw", "mnist"])
@pytest.mark.parametrize("zipped", [False, True])
def test_usual_places_and_gz(place, zipped, tmp_path):
    known, splits, folder = small_set(MNIST, tmp_path, train=20, test=6)
    root = tmp_path / "root"
    (root / place).mkdir(parents=True)
    for raw in known.files:
        content = (folder / raw.name).read_bytes()
        name = root / place / raw.name
        if zipped:
            name.with_name(raw.name + ".gz").write_bytes(gzip.compress(content))
        else:
            # Some copies have a dot there.
            name.with_name(raw.name.replace("-idx", ".idx")).write_bytes(content)
    files, _ = find(known, tmp_path, data_dir=root)
    np.testing.assert_array_equal(known.parse(files)["train"][0], splits["train"][0])


def test_keras_npz(tmp_path):
    known, splits, _ = small_set(MNIST, tmp_path, train=20, test=6)
    root = tmp_path / "root"
    root.mkdir()
    arrays = {
        f"{axis}_{name}": value.squeeze()
        for name, pair in splits.items()
        for axis, value in zip("xy", pair)
    }
    np.savez(root / "mnist.npz", **arrays)
    files, _ = find(known, tmp_path, data_dir=root)
    np.testing.assert_array_equal(known.parse(files)["test"][0], splits["test"][0])

    arrays["x_train"] = arrays["x_train"].copy()
    arrays["x_train"][0, 0, 0] ^= 1
    np.savez(root / "mnist.npz", **arrays)
    with pytest.raises(DataError, match=r"mnist\.npz.*is altered"):
        find(known, tmp_path, data_dir=root)
    words = {name: np.full(array.shape, "a") for name, array in arrays.items()}
    for wrong in ({"x_train": np.array([{"a": 1}], dtype=object)}, words):
        np.savez(root / "mnist.npz", **wrong)
        with pytest.raises(DataError, match=r"mnist\.npz is truncated or no archive"):
            find(known, tmp_path, data_dir=root)


def test_cifar_archive(tmp_path):
    known, splits, folder = small_set(CIFAR10, tmp_path, train=20, test=6)
    root = tmp_path / "root"
    root.mkdir()
    path = root / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, "cifar-10-batches-bin")
    files, _ = find(known, tmp_path, data_dir=root)
    np.testing.assert_array_equal(known.parse(files)["train"][0], splits["train"][0])
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz is truncated"):
        find(known, tmp_path, data_dir=root)


def test_pickled_cifar_is_not_read(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"\x80\x04.")
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz"):
        find(CIFAR10, tmp_path, data_dir=tmp_path)


def test_truncated_altered_and_missing_files_are_named(tmp_path):
    known, _, folder = small_set(MNIST, tmp_path, train=20, test=6)
    path = folder / "train-images-idx3-ubyte"
    content = path.read_bytes()
    path.write_bytes(content[:-5])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte is truncated.*Replace it"):
        find(known, tmp_path, data_dir=folder)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DataError, match="train-images-idx3-ubyte is altered"):
        find(known, tmp_path, data_dir=folder)
    path.unlink()
    zipped = folder / "train-images-idx3-ubyte.gz"
    zipped.write_bytes(gzip.compress(content)[:-300])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz is truncated"):
        find(known, tmp_path, data_dir=folder)
    zipped.write_bytes(gzip.compress(content + bytes(10_000_000)))
    with pytest.raises(DataError, match="longer than it should be"):
        find(known, tmp_path, data_dir=folder)
    zipped.unlink()
    with pytest.raises(DataError, match="Some files of mnist are missing"):
        find(known, tmp_path, data_dir=folder)
    with pytest.raises(DataError, match="data folder does not exist"):
        find(known, tmp_path, data_dir=tmp_path / "nowhere")


def test_prepared_files_are_checked_too(tmp_path):
    known, _, folder = small_set(MNIST, tmp_path, train=20, test=6)
    shutil.copytree(folder, tmp_path / "cache" / "mnist")
    _, source = find(known, tmp_path)
    assert source.startswith("prepared files in")
    (tmp_path / "cache" / "mnist" / "t10k-labels-idx1-ubyte").write_bytes(b"short")
    with pytest.raises(DataError, match=r"t10k-labels.* is truncated.*Delete the folder .*mnist"):
        find(known, tmp_path)


def test_no_source_says_what_was_tried_and_quickly(tmp_path, monkeypatch):
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setattr(sources, "_DEBIAN_ROOT", tmp_path)
    start = time.monotonic()
    with pytest.raises(DataError) as caught:
        load_dataset("mnist", cache_dir=tmp_path / "cache")
    assert time.monotonic() - start < 15
    for part in ("No source has the dataset mnist", "no prepared files", "no answer", "data_dir"):
        assert part in str(caught.value)
    assert not (tmp_path / "cache" / "mnist").exists()
    with pytest.raises(DataError, match=r"none was asked for.*not installed.*apt-get install"):
        load_dataset("fashion_mnist", cache_dir=tmp_path / "cache", offline=True)


def test_a_server_that_never_answers_does_not_hold_us_up():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        start = time.monotonic()
        assert not network.reachable(f"http://127.0.0.1:{server.getsockname()[1]}/", seconds=0.5)
        assert time.monotonic() - start < 5


def test_idx_headers():
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.testing.assert_array_equal(parse_idx(write_idx(array), "a"), array)
    with pytest.raises(DataError, match="not an IDX file"):
        parse_idx(b"\0\0\x0d\x01aaaa", "a")
    with pytest.raises(DataError, match="length that its header states"):
        parse_idx(write_idx(array) + b"x", "a")


def test_tfds_order_is_that_of_its_own_shuffler():
    hashing = pytest.importorskip(
        "tensorflow_datasets.core.hashing", reason="tensorflow-datasets orders by this"
    )
    hasher = hashing.Hasher("train")
    expected = sorted(range(500), key=hasher.hash_key)
    assert tfds_files.original_places("train", 500).tolist() == expected


@pytest.fixture(scope="module")
def fashion():
    try:
        return load_dataset("fashion_mnist", validation_fraction=0.1, seed=5)
    except DataError as error:
        pytest.skip(f"Fashion-MNIST is not to be had here: {error}")


def test_fashion_mnist_is_whole(fashion):
    assert len(fashion.train) == 54_000
    assert np.bincount(fashion.train.labels).tolist() == [5400] * 10
    assert np.bincount(fashion.validation.labels).tolist() == [600] * 10
    assert np.bincount(fashion.test.labels).tolist() == [1000] * 10
    assert fashion.image_shape == (28, 28, 1)
    assert fashion.test.ids[17] == "fashion_mnist/test/00017"
    assert not set(fashion.train.ids) & set(fashion.validation.ids)
    # The first training image is an ankle boot; known first labels of both files.
    everything = load_dataset("fashion_mnist", limit=5)
    assert everything.train.labels.tolist() == [9, 0, 0, 3, 0]
    assert fashion.test.labels[:5].tolist() == [9, 2, 1, 1, 6]
    assert fashion.class_names[9] == "Ankle boot"
    # The published mean and spread of the training pixels.
    pixels = load_dataset("fashion_mnist").train.images / np.float32(255)
    assert pixels.mean() == pytest.approx(0.2860, abs=1e-4)
    assert pixels.std() == pytest.approx(0.3530, abs=1e-4)


def test_checksum_follows_the_choices(fashion):
    again = load_dataset("fashion_mnist", validation_fraction=0.1, seed=5)
    assert again.checksum == fashion.checksum
    others = [dict(seed=6, validation_fraction=0.1), dict(limit=100), dict(validation_fraction=0)]
    found = {load_dataset("fashion_mnist", **{"seed": 5, **other}).checksum for other in others}
    assert len(found | {fashion.checksum}) == 4
    # It names the images and how they are divided; whatever depends on labels adds them.
    assert load_dataset("fashion_mnist", seed=7, labels_per_class=3).checksum in found


@pytest.mark.slow
def test_the_debian_package_is_fetched_without_installing_it(tmp_path, monkeypatch):
    if shutil.which("apt-get") is None:
        pytest.skip("no apt-get here")
    said = []
    monkeypatch.chdir(tmp_path.parent)
    _, source = sources.find_files(
        FASHION_MNIST,
        cache_dir=pathlib.Path(tmp_path.name),  # relative, as TFGRAPHREG_CACHE may be
        progress=lambda what, done, total: said.append(what),
    )
    assert source
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fashion_mnist"]


def test_a_package_that_does_not_exist(tmp_path, monkeypatch):
    if shutil.which("apt-get") is None:
        pytest.skip("no apt-get here")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(DataError, match="apt-get failed"):
        debian.fetch_package("no-such-package-here", "usr", tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="no apt-get and no dpkg-deb"):
        debian.fetch_package("any", "usr", tmp_path)


@pytest.mark.slow
def test_tfds_prepared_fashion_mnist_gives_the_original_files(fashion, tmp_path, monkeypatch):
    del fashion
    files = cache_folder() / "datasets" / "fashion_mnist"
    if not files.is_dir():
        pytest.skip("Fashion-MNIST came from elsewhere than the cache")
    tfds = pytest.importorskip("tensorflow_datasets", reason="prepares the data")
    keys = {"train_data": 0, "train_labels": 1, "test_data": 2, "test_labels": 3}
    paths = {k: str(files / FASHION_MNIST.files[i].name) for k, i in keys.items()}
    monkeypatch.setattr(
        tfds.download.DownloadManager, "download_and_extract", lambda self, urls: paths
    )
    tfds.builder("fashion_mnist", data_dir=str(tmp_path)).download_and_prepare()
    found, source = find(FASHION_MNIST, tmp_path, data_dir=tmp_path)
    assert source == f"tensorflow-datasets, prepared in {tmp_path}"
    for raw in FASHION_MNIST.files:
        assert found[raw.name] == (files / raw.name).read_bytes()

    record = next(pathlib.Path(tmp_path, "fashion_mnist").rglob("*test.tfrecord*"))
    record.write_bytes(record.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"cannot be read: its files are truncated.*Delete"):
        find(FASHION_MNIST, tmp_path, data_dir=tmp_path)


def test_digits_need_nothing():
    dataset = load_dataset("digits", offline=True)
    assert dataset.train.images.dtype == np.uint8
    assert (dataset.train.images.min(), dataset.train.images.max()) == (0, 255)
    assert len(dataset.train) + len(dataset.test) == 1797
    shares = np.bincount(dataset.test.labels) / np.bincount(
        np.concatenate([dataset.train.labels, dataset.test.labels])
    )
    assert np.abs(shares - 0.2).max() < 0.01
    assert load_dataset("digits", image_size=16).image_shape == (16, 16, 1)


def test_names_and_settings():
    with pytest.raises(UnknownNameError, match="Did you mean fashion_mnist"):
        load_dataset("fashion-mnist")
    with pytest.raises(ConfigError, match="`limit` must be at least 1"):
        load_dataset("digits", limit=0)
    with pytest.raises(ConfigError, match="`validation_fraction`"):
        load_dataset("digits", validation_fraction=1.0)
    with pytest.raises(ConfigError, match="`labels_per_class` must not exceed"):
        load_dataset("digits", labels_per_class=1000)
    # Every class keeps an image to train on.
    assert sorted(load_dataset("digits", validation_fraction=0.999, limit=300).train.labels) == [
        *range(10)
    ]
    assert "limit is 5000" in load_dataset("digits", limit=5000).notes[0]
    for name in DATASETS:
        record = DATASETS.get(name)
        assert record.name == name and record.num_classes >= 10 and record.description


def test_unwritable_cache(tmp_path):
    if os.geteuid() == 0:
        blocked = tmp_path / "file"
        blocked.write_bytes(b"")
    else:
        blocked = tmp_path / "folder"
        blocked.mkdir(mode=0o500)
    with pytest.raises(DataError, match="cannot be written"):
        sources._fetch_package(FASHION_MNIST, blocked, False, [], lambda *_: None)
