"""A finished run in other formats, held against what its model answers."""

from __future__ import annotations

import logging
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfgraphreg import formats, storage
from tfgraphreg.data.dataset import Dataset
from tfgraphreg.errors import ModelError, first_line
from tfgraphreg.export import Predictor
from tfgraphreg.formats.catalog import FORMATS, SAVED_MODEL
from tfgraphreg.progress import Progress, silent
from tfgraphreg.recipes.saved_model import allowed_gap, full_float32
from tfgraphreg.runs.folder import METRICS, RunFolder, finished_metrics, writing_results
from tfgraphreg.runs.outputs import load_data

logger = logging.getLogger(__name__)

EXPORTS = "exports"
EXACT_WITHIN = 1e-3
_ASKED = 200
_TIMED = 20


def export_run(
    run: RunFolder,
    names: Sequence[str],
    *,
    dataset: Dataset | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Writes formats of a finished run's model beside its SavedModel, and compares the answers.

    Each file appears when its answers to at most 200 test images were compared with the
    SavedModel's, whose own were compared with the trained network. What was measured goes under
    `exports` into the run's metrics.json: `bytes`, `milliseconds` for one image (median),
    `largest_difference` of a probability and `same_class`, the share of images whose likeliest
    class is the same.

    Args:
        run: The run.
        names: Of `tfgraphreg.formats.FORMATS`.
        dataset: The run's data, if it is loaded already.
        progress: Called while work goes on.

    Returns:
        The run's metrics.

    Raises:
        MissingExtraError: If a package is not installed.
        RunError: If the run is not finished.
        ModelError: If the SavedModel cannot be used, a network has an operation that a format
            lacks, or a format with weights as they were differs by more than 1e-3.
    """
    formats.check_formats(names)
    finished_metrics(run)
    predictor = Predictor(run.export_path)
    data = load_data(run.config, progress) if dataset is None else dataset
    images = np.asarray(data.test.images[:_ASKED])
    with full_float32():  # the formats that are compared with it run on the CPU
        expected = predictor(images)["probabilities"]
    limit = allowed_gap(run, EXACT_WITHIN)
    files = [run.export_path / FORMATS[name].file for name in names]
    # The run folder's lock guards these files too, wherever the SavedModel lies.
    with writing_results(run, METRICS, *(str(path.absolute()) for path in files)):
        metrics = finished_metrics(run)
        found = {
            SAVED_MODEL: {
                "bytes": size_of(run.export_path),
                "milliseconds": milliseconds(predictor, images),
            },
            **_noted(metrics),
        }
        for number, (name, path) in enumerate(zip(names, files)):
            progress(f"converting to {name}", number, len(names))
            content, found[name] = converted(predictor, name, limit, images, expected)
            with storage.atomic_path(path) as part:
                part.write_bytes(content)
            logger.info(_in_words(name, found[name]))
            metrics[EXPORTS] = found
            storage.write_json(run.path / METRICS, metrics, noted=True)
        progress("converting", len(names), len(names))
    return metrics


def missing_formats(run: RunFolder, metrics: dict[str, Any]) -> tuple[str, ...]:
    """The formats that a run's config asks for and that it does not have yet."""
    wanted = formats.parse_formats(run.config.export_format)
    there = _noted(metrics)
    return tuple(
        name
        for name in wanted
        if name not in there or not (run.export_path / FORMATS[name].file).is_file()
    )


def _noted(metrics: dict[str, Any]) -> dict[str, Any]:
    """What was measured of earlier exports; nothing where a person's hand left no table."""
    found = metrics.get(EXPORTS)
    return found if isinstance(found, dict) else {}


def converted(
    predictor: Predictor, name: str, limit: float, images: np.ndarray, expected: np.ndarray
) -> tuple[bytes, dict[str, Any]]:
    """The content of a format's file, and what its answers are worth."""
    content = formats.convert(predictor, name)
    ask = formats.load(name, content)
    try:
        given = ask(images)["probabilities"]
    # LiteRT says of some networks only now that it cannot run them; ONNX Runtime's errors have no
    # common base but Exception.
    except Exception as error:
        raise ModelError(
            f"This network was converted to {name} and cannot be run there ({first_line(error)}).",
            cure="Use the SavedModel, try another format, or train another backbone.",
        ) from error
    gap = float(np.abs(given - expected).max())
    if not np.isfinite(gap) or (FORMATS[name].exact and gap > limit):
        raise ModelError(
            f"The model as {name} differs from the SavedModel by {gap:.2g}, more than {limit:g}, "
            "and is not kept.",
            cure="Use the SavedModel, or another format.",
        )
    return content, {
        "file": FORMATS[name].file,
        "bytes": len(content),
        "milliseconds": milliseconds(ask, images),
        "images": len(images),
        "largest_difference": gap,
        "same_class": float((given.argmax(-1) == expected.argmax(-1)).mean()),
    }


def milliseconds(ask: Callable[[np.ndarray], Any], images: np.ndarray) -> float:
    """The median time of an answer to one image."""
    times = []
    for number in range(_TIMED + 3):
        place = number % len(images)
        started = time.perf_counter()
        ask(images[place : place + 1])
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times[3:])


def size_of(folder: pathlib.Path) -> int:
    """Bytes of a SavedModel, without what lies beside it."""
    files = [folder / "saved_model.pb", *(folder / "variables").glob("*")]
    return sum(path.stat().st_size for path in files)


def _in_words(name: str, row: dict[str, Any]) -> str:
    return (
        f"Exported: {row['file']} ({name}), {row['bytes'] / 1e6:.2f} MB, "
        f"{row['milliseconds']:.2f} ms an image; probabilities agree to "
        f"{row['largest_difference']:.1e}, classes of {row['same_class']:.1%} of "
        f"{row['images']} test images"
    )
