"""Datasets whose every byte is known: their files, digests, class names and layout.

Every source (a folder, tensorflow-datasets, a Debian package) must provide the decompressed bytes
of these files, which are checked here before any image is read. So an
image's number, and with it its id, is its place in the original files for every source.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping

import numpy as np

from tfgraphreg.errors import DataError


@dataclasses.dataclass(frozen=True)
class RawFile:
    """A decompressed file of a known dataset.

    Attributes:
        name: Its original name, without `.gz`.
        size: Bytes.
        digest: ``"sha256:..."`` or ``"sha1:..."`` of the decompressed bytes.
    """

    name: str
    size: int
    digest: str

    def check(self, content: bytes | memoryview, where: str, cure: str) -> None:
        """Raises DataError naming `where` unless `content` is this file's bytes."""
        if len(content) != self.size:
            kind = "truncated" if len(content) < self.size else "longer than it should be"
            raise DataError(
                f"The data file {where} is {kind}.",
                received=f"{len(content)} bytes decompressed instead of {self.size}",
                cure=cure,
            )
        algorithm, expected = self.digest.split(":")
        found = hashlib.new(algorithm, content).hexdigest()
        if found != expected:
            raise DataError(
                f"The data file {where} is altered: it is not the original {self.name}.",
                received=f"{algorithm} {found[:16]}... instead of {expected[:16]}...",
                cure=cure,
            )


@dataclasses.dataclass(frozen=True)
class KnownSet:
    """A dataset made of known files.

    Attributes:
        name: As in the registry; also the name in tensorflow-datasets.
        class_names: C names.
        image_shape: `(height, width, channels)`.
        files: All files.
        parse: Files' bytes by name -> ``{"train": (images, labels), "test": ...}``.
        unparse: The inverse of `parse`, for sources that hold arrays.
        url: An address that responds if the download is possible.
        folders: Where inside a user's folder the files are usually found.
        archive: File name of the one archive that holds all files, or None.
        debian_package: `(package, folder in it)`, or None.
    """

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    files: tuple[RawFile, ...]
    parse: Callable[[Mapping[str, bytes]], dict]
    unparse: Callable[[dict], dict[str, bytes]]
    url: str
    folders: tuple[str, ...]
    archive: str | None = None
    debian_package: tuple[str, str] | None = None

    @property
    def checksum(self) -> str:
        """A digest of all the files' digests."""
        return hashlib.sha256(",".join(f.digest for f in self.files).encode()).hexdigest()

    def files_of(self, splits: dict, where: str, cure: str) -> dict[str, bytes]:
        """Turns arrays back into the original files and checks these.

        Raises:
            DataError: If a file made so is not the original; the message names `where`.
        """
        files = self.unparse(splits)
        for raw in self.files:
            raw.check(files[raw.name], f"{where} ({raw.name})", cure)
        return files


_IDX = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def parse_idx(content: bytes, name: str) -> np.ndarray:
    """The uint8 array of an IDX file (a big-endian header, then the bytes in C order).

    Raises:
        DataError: If the header is not that of unsigned bytes or the length disagrees with it.
    """
    if len(content) < 4 or content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise DataError(f"{name} is not an IDX file of unsigned bytes.")
    shape = np.frombuffer(content, ">i4", count=content[3], offset=4).astype(int)
    start = 4 + 4 * len(shape)
    if len(content) - start != shape.prod():
        raise DataError(
            f"The IDX file {name} does not have the length that its header states.",
            received=f"{len(content) - start} bytes for shape {tuple(shape)}",
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def write_idx(array: np.ndarray) -> bytes:
    """The bytes of an IDX file of a uint8 array."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    return header + np.ascontiguousarray(array, np.uint8).tobytes()


def _parse_mnist(files: Mapping[str, bytes]) -> dict:
    return {
        split: (
            parse_idx(files[images], images)[..., None],
            parse_idx(files[labels], labels).astype(np.int64),
        )
        for split, (images, labels) in _IDX.items()
    }


def _unparse_mnist(splits: dict) -> dict[str, bytes]:
    files = {}
    for split, (images, labels) in _IDX.items():
        files[images] = write_idx(splits[split][0][..., 0])
        files[labels] = write_idx(splits[split][1])
    return files


_CIFAR_TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))


def _parse_cifar(files: Mapping[str, bytes]) -> dict:
    def read(names):
        # One record: the label, then 1024 red, 1024 green and 1024 blue values.
        records = np.concatenate([np.frombuffer(files[n], np.uint8) for n in names])
        records = records.reshape(-1, 3073)
        images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return np.ascontiguousarray(images), records[:, 0].astype(np.int64)

    return {"train": read(_CIFAR_TRAIN), "test": read(["test_batch.bin"])}


def _unparse_cifar(splits: dict) -> dict[str, bytes]:
    files = {}
    for split, names in (("train", _CIFAR_TRAIN), ("test", ("test_batch.bin",))):
        images, labels = splits[split]
        planes = np.asarray(images).transpose(0, 3, 1, 2).reshape(len(images), -1)
        records = np.concatenate([labels.astype(np.uint8)[:, None], planes], axis=1)
        for name, part in zip(names, np.split(records, len(names))):
            files[name] = part.tobytes()
    return files


def _idx_files(
    train_images: str, train_labels: str, test_images: str, test_labels: str
) -> tuple[RawFile, ...]:
    return (
        RawFile("train-images-idx3-ubyte", 47_040_016, "sha256:" + train_images),
        RawFile("train-labels-idx1-ubyte", 60_008, "sha256:" + train_labels),
        RawFile("t10k-images-idx3-ubyte", 7_840_016, "sha256:" + test_images),
        RawFile("t10k-labels-idx1-ubyte", 10_008, "sha256:" + test_labels),
    )


# SHA-256 of the decompressed IDX files, computed from Debian's package. Their MD5
# (f4a8712d..., 9018921c..., 8181f547..., 15d48437...) are those which loaders of the
# publisher's own .gz files check after decompression.
FASHION_MNIST = KnownSet(
    name="fashion_mnist",
    class_names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    image_shape=(28, 28, 1),
    files=_idx_files(
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    parse=_parse_mnist,
    unparse=_unparse_mnist,
    url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/t10k-labels-idx1-ubyte.gz",
    folders=("fashion_mnist", "fashion-mnist", "FashionMNIST/raw", "data/fashion", "fashion"),
    debian_package=("dataset-fashion-mnist", "usr/share/datasets/fashion-mnist"),
)

# SHA-256 of the decompressed IDX files as published by several independent loaders of the
# original files; not computed here.
MNIST = KnownSet(
    name="mnist",
    class_names=tuple("0123456789"),
    image_shape=(28, 28, 1),
    files=_idx_files(
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    parse=_parse_mnist,
    unparse=_unparse_mnist,
    url="https://storage.googleapis.com/cvdf-datasets/mnist/t10k-labels-idx1-ubyte.gz",
    folders=("mnist", "MNIST/raw", "MNIST"),
)

# SHA-1 of the six batches of the binary version as Apache MXNet's loader checks them; not
# computed here. The "python version" of CIFAR-10 consists of pickles, which can run code when
# they are read: it is not accepted.
CIFAR10 = KnownSet(
    name="cifar10",
    class_names=(
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
    image_shape=(32, 32, 3),
    files=tuple(
        RawFile(name, 30_730_000, "sha1:" + digest)
        for name, digest in zip(
            (*_CIFAR_TRAIN, "test_batch.bin"),
            (
                "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
                "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
                "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
                "aab85764eb3584312d3c7f65fd2fd016e36a258e",
                "26e2849e66a845b7f1e4614ae70f4889ae604628",
                "67eb016db431130d61cd03c7ad570b013799c88c",
            ),
        )
    ),
    parse=_parse_cifar,
    unparse=_unparse_cifar,
    url="https://www.cs.toronto.edu/~kriz/cifar.html",
    folders=("cifar10", "cifar-10-batches-bin", "cifar10/cifar-10-batches-bin", "cifar-10"),
    archive="cifar-10-binary.tar.gz",
)

KNOWN = {known.name: known for known in (FASHION_MNIST, MNIST, CIFAR10)}
