"""Versions of the packages that decide a result."""

from __future__ import annotations

from tfgraphreg import __version__


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
