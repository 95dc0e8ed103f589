"""Fetching the files of a Debian package without being root and without installing it."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import tempfile

from tfgraphreg.errors import DataError
from tfgraphreg.progress import Progress, silent

# Seconds: apt gives up on a silent server, and we on a silent apt.
_SERVER_SECONDS = 15
_COMMAND_SECONDS = 600


def fetch_package(
    package: str, folder: str, into: pathlib.Path, *, progress: Progress = silent
) -> dict[str, bytes]:
    """Downloads `package` with apt-get and returns the files of one folder in it.

    Uses the machine's package lists if they know the package; else brings lists of its own into
    a temporary folder, so that a machine on which `apt-get update` never ran, and a user who may
    not run it, can fetch too. Neither changes anything outside `into`.

    Args:
        package: Its name.
        folder: A path inside the package, such as ``"usr/share/datasets/fashion-mnist"``.
        into: An existing folder for temporary files, which are removed.
        progress: Called with what is being done.

    Returns:
        Contents by file name.

    Raises:
        DataError: If there is no apt-get or dpkg-deb, or the package cannot be fetched.
    """
    missing = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    if missing:
        raise DataError(f"This machine has no {' and no '.join(missing)}.")
    with tempfile.TemporaryDirectory(prefix=".debian.", dir=into) as name:
        work = pathlib.Path(name).resolve()  # The commands work in other folders.
        archive = _download(package, work, progress)
        progress(f"unpacking {archive.name}", 0, 0)
        unpacked = work / "unpacked"
        _run(["dpkg-deb", "-x", str(archive), str(unpacked)], work)
        found = unpacked / folder
        if not found.is_dir():
            raise DataError(f"The Debian package {package} has no folder {folder}.")
        return {f.name: f.read_bytes() for f in sorted(found.iterdir()) if f.is_file()}


def _download(package: str, work: pathlib.Path, progress: Progress) -> pathlib.Path:
    for name in ("lists/partial", "cache/archives/partial", "archive"):
        (work / name).mkdir(parents=True)
    options = [
        f"Dir::Cache={work}/cache",
        "Acquire::Retries=1",
        f"Acquire::http::Timeout={_SERVER_SECONDS}",
        f"Acquire::https::Timeout={_SERVER_SECONDS}",
        "Acquire::Languages=none",
        "Dpkg::Use-Pty=0",
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        # apt's own unprivileged user could not write into the temporary folder.
        options.append("APT::Sandbox::User=root")
    own_lists = [*options, f"Dir::State::Lists={work}/lists"]
    progress(f"downloading the Debian package {package}", 0, 0)
    try:
        _apt(["download", package], options, work)
    except DataError:
        progress("fetching Debian's package lists into a temporary folder", 0, 0)
        _apt(["update"], own_lists, work)
        progress(f"downloading the Debian package {package}", 0, 0)
        _apt(["download", package], own_lists, work)
    archives = sorted((work / "archive").glob(f"{package}_*.deb"))
    if not archives:
        raise DataError(f"apt-get did not bring the Debian package {package}.")
    return archives[0]


def _apt(words: list[str], options: list[str], work: pathlib.Path) -> None:
    flags = [part for option in options for part in ("-o", option)]
    _run(["apt-get", "-q", *flags, *words], work / "archive")


def _run(command: list[str], folder: pathlib.Path) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_COMMAND_SECONDS,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(f"{command[0]} did not finish in {_COMMAND_SECONDS} s.") from error
    if done.returncode:
        lines = [
            line.strip()
            for line in done.stdout.splitlines()
            if line.startswith(("E:", "Err", "dpkg"))
        ]
        reason = lines[-1] if lines else f"exit status {done.returncode}"
        raise DataError(f"{command[0]} failed ({reason}).")
