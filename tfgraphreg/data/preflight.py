"""Checks every image of a folder before it is used."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import unicodedata
import warnings

import numpy as np

from tfgraphreg.data.decoding import FORMATS, BadImage, inspect_image, is_image
from tfgraphreg.data.lazy import workers
from tfgraphreg.errors import DataError
from tfgraphreg.progress import Progress, silent
from tfgraphreg.reading import parse_json
from tfgraphreg.storage import UNREADABLE_NPZ, fingerprint, is_sealed, sealed_path

_CHUNK = 1024
# Made by NAS systems, macOS archives and Windows, with thumbnails or deleted files inside.
_SYSTEM_FOLDERS = {
    "__macosx",
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "lost+found",
    "system volume information",
}


@dataclasses.dataclass(frozen=True)
class Checked:
    """The result of checking N image files.

    Attributes:
        names: Usable files, relative to the folder, sorted.
        facts: `[len(names), 3]` int64: height, width, channels.
        bad: `(name, reason)` of the others.
        ignored: Names of files that do not claim to be images, and of folders that file
            servers and file managers make (with a `/` at the end).
        checksum: Changes when a file is added, removed, renamed, resized or touched.
    """

    names: list[str]
    facts: np.ndarray
    bad: list[tuple[str, str]]
    ignored: list[str]
    checksum: str


def check_folder(
    root: pathlib.Path, cache: pathlib.Path | None, *, progress: Progress = silent
) -> Checked:
    """Decodes every image below `root` in parallel threads.

    The result is kept in `cache`, so that an unchanged folder is checked once.

    Args:
        root: The folder.
        cache: A folder for results, or None.
        progress: Called after every chunk.
    """
    root = root.resolve()
    names, bad, ignored = list_images(root)
    stats = [os.stat(root / name) for name in names]
    stamp = [[n, s.st_size, s.st_mtime_ns] for n, s in zip(names, stats)]
    checksum = fingerprint([str(root), stamp, bad])
    kept = cache / f"{checksum}.npz" if cache else None
    if kept is not None and is_sealed(kept):
        try:
            usable, found, bad = _restore(kept, names)
            return Checked(usable, found, bad, ignored, checksum)
        except UNREADABLE_NPZ:
            kept.unlink(missing_ok=True)
    facts = np.zeros((len(names), 3), np.int64)
    reasons: dict[int, str] = {}

    def look(i: int) -> None:
        try:
            seen = inspect_image(root / names[i])
            facts[i] = seen.height, seen.width, seen.channels
        except BadImage as error:
            reasons[i] = str(error)

    with warnings.catch_warnings():
        # Pillow warns about large images and odd tags; what matters is reported by us.
        warnings.simplefilter("ignore")
        for start in range(0, len(names), _CHUNK):
            chunk = range(start, min(start + _CHUNK, len(names)))
            list(workers().map(look, chunk))
            progress("checking images", chunk.stop, len(names))
    bad = bad + [(names[i], reasons[i]) for i in sorted(reasons)]
    good = np.array([i not in reasons for i in range(len(names))], bool)
    if kept is not None:
        with sealed_path(kept) as part, open(part, "wb") as file:
            np.savez(file, facts=facts, good=good, bad=np.array(json.dumps(bad)))
    usable = [name for name, ok in zip(names, good) if ok]
    return Checked(usable, facts[good], bad, ignored, checksum)


def _restore(
    path: pathlib.Path, names: list[str]
) -> tuple[list[str], np.ndarray, list[tuple[str, str]]]:
    with np.load(path, allow_pickle=False) as kept:
        good, facts = kept["good"], kept["facts"]
        bad = [(str(name), str(why)) for name, why in parse_json(str(kept["bad"]))]
    if len(good) != len(names):
        raise ValueError("not of this folder")
    return [name for name, ok in zip(names, good) if ok], facts[good], bad


def list_images(root: pathlib.Path) -> tuple[list[str], list[tuple[str, str]], list[str]]:
    """Names of files below `root`, with `/` between their parts: images, unusable, ignored.

    A file counts as an image by its suffix, or if it has none, by its first bytes. Hidden files
    and folders are passed over. Links to folders are not followed.
    """
    names, bad, ignored = [], [], []

    def unreadable(error: OSError) -> None:
        where = _relative(pathlib.Path(error.filename), root)
        bad.append((where, f"is a folder that cannot be read ({error.strerror})"))

    for folder, folders, files in os.walk(root, onerror=unreadable):
        here = pathlib.Path(folder)
        for name in folders:
            if _is_system_folder(name):
                ignored.append(_relative(here / name, root) + "/")
            elif (here / name).is_symlink():
                bad.append((_relative(here / name, root), "is a link to a folder"))
        folders[:] = sorted(name for name in folders if not passed_over(name))
        for name in files:
            if name.startswith("."):
                continue
            path = here / name
            relative = _relative(path, root)
            if path.suffix.lower() not in FORMATS and (path.suffix or not is_image(path)):
                ignored.append(relative)
                continue
            reason = _bad_name(path, relative, root)
            if reason:
                bad.append((relative, reason))
            else:
                names.append(relative)
    return sorted(names), sorted(bad), sorted(ignored)


def passed_over(folder: str) -> bool:
    """Whether a folder of this name is hidden or the file server's own."""
    return folder.startswith(".") or _is_system_folder(folder)


def _is_system_folder(name: str) -> bool:
    # Synology and QNAP begin theirs with @: @eaDir, @Recycle, @Recently-Snapshot.
    return name.startswith("@") or name.casefold() in _SYSTEM_FOLDERS


def _bad_name(path: pathlib.Path, relative: str, root: pathlib.Path) -> str | None:
    try:
        relative.encode("utf-8")
    except UnicodeEncodeError:
        return "has a name that is not UTF-8"
    if any(unicodedata.category(c) == "Cc" for c in relative):
        return "has a control character in its name"
    if path.is_symlink():
        target = path.resolve()
        if root not in target.parents:
            return "is a link out of the folder"
        if not target.is_file():
            return "is a link to nothing"
    if not path.is_file():
        return "is no ordinary file"
    return None


def _relative(path: pathlib.Path, root: pathlib.Path) -> str:
    return path.relative_to(root).as_posix()


def report_bad(bad: list[tuple[str, str]], root: pathlib.Path, on_bad_image: str) -> list[str]:
    """Refuses or notes unusable files.

    Returns:
        One sentence for the user if files are left out.

    Raises:
        DataError: If there are unusable files and `on_bad_image` is ``"error"``.
    """
    if not bad:
        return []
    shown = "; ".join(f"{name!r} {reason}" for name, reason in bad[:10])
    if len(bad) > 10:
        shown += f"; and {len(bad) - 10} more"
    if on_bad_image == "error":
        raise DataError(
            f"{len(bad)} file(s) in {root} cannot be used.",
            received=shown,
            cure="Mend or remove them, or leave them out with `on_bad_image=skip`.",
        )
    return [f"{len(bad)} file(s) in {root} are left out: {shown}."]


def describe_ignored(ignored: list[str]) -> str | None:
    """A sentence that names what was ignored and why, or None."""
    if not ignored:
        return None
    folders = [name for name in ignored if name.endswith("/")]
    files = [name for name in ignored if not name.endswith("/")]
    said = []
    if files:
        suffixes = sorted({pathlib.PurePosixPath(n).suffix.lower() or "none" for n in files})
        said.append(
            f"{len(files)} file(s) are ignored, because their suffix ({', '.join(suffixes[:5])}) "
            f"is not one of {', '.join(FORMATS)}: {', '.join(map(repr, files[:5]))}"
        )
    if folders:
        said.append(
            f"{len(folders)} folder(s) that file servers make are ignored: "
            f"{', '.join(map(repr, folders[:5]))}"
        )
    return "; ".join(said) + "."
