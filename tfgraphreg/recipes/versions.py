"""Versions of the packages that decide a result."""

from __future__ import annotations

from typing import Any

from tfgraphreg import __version__
from tfgraphreg.data.dataset import Dataset


def versions() -> dict[str, str]:
    """Versions of what decides a result."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"tfgraphreg": __version__, "python": platform.python_version()}
    for name in (
        "tensorflow",
        "tf-keras",
        "keras",
        "neural-structured-learning",
        "keras-cv",
        "numpy",
        "faiss-cpu",
    ):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def packing_key(dataset: Dataset) -> dict[str, Any]:
    """What packed examples depend on besides labels, ids and edges, which are added to it."""
    return {"data": dataset.checksum, "nsl": "1.4.0", "packer": __version__}
