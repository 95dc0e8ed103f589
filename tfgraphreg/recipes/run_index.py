"""The search index beside a run's model: opened, built, and built again without losing images."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import numpy as np

from tfgraphreg import storage
from tfgraphreg.data.dataset import Dataset
from tfgraphreg.errors import DataError
from tfgraphreg.export import Predictor
from tfgraphreg.progress import Progress, silent
from tfgraphreg.recipes.items import Indexed, WholeImages, labels_in_words
from tfgraphreg.runs.folder import RunFolder
from tfgraphreg.runs.outputs import ask, load_data, measured_by
from tfgraphreg.search.saved import FOLDER as FOLDER_OF_INDEX
from tfgraphreg.search.saved import has_limit, saved_ids
from tfgraphreg.search.threshold import MOST_KNOWN, least_known
from tfgraphreg.visualize.search import DISTANCES, Searcher

logger = logging.getLogger(__name__)

_LOCK = ".search.lock"


def open_index(run: RunFolder, predictor: Predictor, *, progress: Progress = silent) -> Searcher:
    """The index beside a run's SavedModel as it is, or one of the training images.

    Raises:
        DataError: If it is damaged or belongs to another model, or the images cannot be loaded.
    """
    found = saved_index(run)
    if found is not None:
        return found
    with alone(run, must=False):
        return writable_index(run, WholeImages(predictor), progress=progress)


@contextlib.contextmanager
def alone(run: RunFolder, *, must: bool) -> Iterator[None]:
    """Keeps others from changing the index meanwhile, so that nothing that they add is lost.

    Where no file can be made, as in a folder that may only be read, an index cannot be changed
    either: an error if it `must` be.
    """
    with contextlib.ExitStack() as stack:
        try:
            index = run.export_path / FOLDER_OF_INDEX
            stack.enter_context(storage.one_writer(run.path / _LOCK, index))
        except DataError:
            if must:
                raise
        yield


def saved_index(run: RunFolder) -> Searcher | None:
    """The index beside a run's SavedModel, or None if there is none.

    Raises:
        DataError: If it is damaged or belongs to another model.
    """
    exists = (run.export_path / FOLDER_OF_INDEX).exists()
    return Searcher.load(run.export_path) if exists else None


def fitting(found: Searcher | None, method: str | None, distance: str | None) -> Searcher | None:
    """The index if it is of the method and distance that are named."""
    if found is None or method not in (None, found.method):
        return None
    return found if distance in (None, found.distance) else None


def writable_index(
    run: RunFolder,
    items: Indexed,
    *,
    method: str | None = None,
    distance: str | None = None,
    rebuild: bool = False,
    must: bool = False,
    progress: Progress = silent,
) -> Searcher:
    """The index as it is, or a new one where there is none that fits; call it in `alone`.

    Args:
        run: The run.
        items: What its model lets search for.
        method: As in `search_run`.
        distance: As in `search_run`.
        rebuild: Whether to build it anew.
        must: Whether it is an error if a new one cannot be written.
        progress: Called while work goes on.

    Raises:
        DataError: As `search_run`.
    """
    before = None
    existed = (run.export_path / FOLDER_OF_INDEX).exists()
    try:
        before = saved_index(run)
    except DataError:
        if not rebuild:
            raise
    if before is not None:
        found = None if rebuild else fitting(before, method, distance)
        if found is not None:
            return found
        logger.info(
            f"The index is {before.method} by {before.distance} distance and is built again."
        )
        method, distance = method or before.method, distance or before.distance
    own = run.config.distance
    distance = distance or (own if own in DISTANCES else DISTANCES[0])
    made = Searcher(items.dim, method=method or "exact", distance=distance)
    training = items.training(run, progress)
    made.add(
        training.ids,
        embeddings=training.embeddings,
        images=training.images,
        labels=training.labels,
    )
    trained = len(made)
    if before is not None:
        _keep_added(made, before)
        if before.calibration is not None and isinstance(items, WholeImages):
            data = measured_by(run.config, load_data(run.config, progress))
            calibrate_by(made, items.predictor, data, before.calibration.share, progress)
    elif existed:
        _tell_lost(made, run)
    kept = f" and {len(made) - trained} added ones" if len(made) > trained else ""
    try:
        where = f"written to {made.save(run.export_path)}"
    except DataError as error:
        if must:
            raise
        where = f"not kept: {error}"
    logger.info(f"Index: {trained} training {items.what}{kept}, {how(made)}, {where}")
    return made


def calibrate_by(
    searcher: Searcher, predictor: Predictor, data: Dataset, share: float, progress: Progress
) -> None:
    """Sets the limit of an index by validation images or, if there are too few, test images.

    Neither was trained on, and the index of training images holds none of them.

    Raises:
        DataError: If there are too few images for this share.
    """
    split, source = data.validation, "validation images"
    if len(split) < least_known(share):
        split, source = data.test, "test images"
    what = f"embedding {source}"
    chosen = np.sort(np.random.default_rng(0).permutation(len(split))[:MOST_KNOWN])
    split = split.take(chosen)
    embedding = ask(predictor, split.images, data.multilabel, what, progress)["embedding"]
    # A class of several an image cannot be left out of the index.
    words = None if data.multilabel else labels_in_words(data, split.labels)
    searcher.calibrate(share, embeddings=embedding, labels=words, source=source)


def how(searcher: Searcher) -> str:
    """In words, how an index searches."""
    words = f"exact search by {searcher.distance} distance"
    if searcher.method != "exact":
        words = (
            f"approximate search ({searcher.method.upper()}) by {searcher.distance} distance, "
            f"recall of the ten nearest {searcher.recall:.4f} as measured"
        )
    limit = searcher.limit
    return words if limit is None else f"{words}, unknown beyond {limit:.4f}"


def _keep_added(made: Searcher, before: Searcher) -> None:
    """Takes over what the index of the same model before held beside the training images."""
    added = np.flatnonzero(~np.isin(before.ids, made.ids))
    if not len(added):
        return
    embeddings = before.embeddings(added)
    if embeddings is None or before.thumbnails is None:
        _say_lost(len(added), "the index before did not keep all that it takes")
        return
    made.add(
        before.ids[added],
        embeddings=embeddings,
        images=before.thumbnails[added],
        labels=before.labels[added],
    )


def _tell_lost(made: Searcher, run: RunFolder) -> None:
    """Says which added images an index that this model cannot use takes with it."""
    if has_limit(run.export_path):
        logger.info("The limit of the index before is lost: set it again with `reject`.")
    try:
        added = np.setdiff1d(saved_ids(run.export_path), made.ids)
    except DataError:
        logger.info(
            "The index before is damaged: images that were added to it are lost; add them again."
        )
        return
    if len(added):
        _say_lost(len(added), "they were embedded by another model, or the index is damaged")


def _say_lost(count: int, why: str) -> None:
    logger.info(f"{count} added image(s) are lost ({why}): add them again with `add`.")
