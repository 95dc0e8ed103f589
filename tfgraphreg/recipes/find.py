"""Search by picture beside a run's model."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tfgraphreg import storage
from tfgraphreg.errors import ConfigError, DataError, TFGraphRegError
from tfgraphreg.export import DETECT, PREDICTORS, BoxPredictor, Detection, Predictor
from tfgraphreg.progress import Progress, silent
from tfgraphreg.recipes.items import Indexed, Query, Regions, WholeImages
from tfgraphreg.recipes.tasks import CLASSIFY, check_options
from tfgraphreg.runs.folder import FIGURES, RunFolder, writing_results
from tfgraphreg.search.saved import FOLDER as FOLDER_OF_INDEX
from tfgraphreg.search.saved import saved_ids
from tfgraphreg.visualize.grids import retrieval_grid
from tfgraphreg.visualize.search import DISTANCES, Searcher
from tfgraphreg.visualize.style import save

logger = logging.getLogger(__name__)

# Rows and columns of one figure.
_MOST_DRAWN = 12
_MOST_NEAR = 20
_LOCK = ".search.lock"


@dataclasses.dataclass(frozen=True)
class Answer:
    """What was found for one query.

    Attributes:
        path: The file that was asked about.
        guess: The class that the model sees in it; empty for a file that cannot be read.
        nearest: Distance, id and label (may be empty) of each image found, the nearest first.
        error: What is wrong with the file, or None.
        region: The part of the file that was searched for, by a detector; None for all of it.
    """

    path: str
    guess: str = ""
    nearest: list[tuple[float, str, str]] = dataclasses.field(default_factory=list)
    error: str | None = None
    region: Detection | None = None


def search_run(
    run: RunFolder,
    queries: Sequence[str],
    *,
    k: int = 5,
    method: str | None = None,
    distance: str | None = None,
    add: Sequence[str] = (),
    rebuild: bool = False,
    region: int | None = None,
    progress: Progress = silent,
) -> list[Answer]:
    """Finds the images that a run's model holds nearest to image files, and draws them.

    By a detector, it is regions that are found, of training images and of what was added; of a
    query that with the highest score is searched for.

    The index lies beside the run's SavedModel. It is built from the training images if there
    is none yet, if `rebuild` is set, or if it is of another method or distance than named.
    Images that were added to the one before are kept; where that cannot be, it says how many
    are lost.

    Args:
        run: The run.
        queries: Image files.
        k: Images for each query.
        method: ``"exact"``, ``"ivf"`` or ``"hnsw"``; that of the index, else exact, if None.
        distance: ``"cosine"`` or ``"euclidean"``; that of the index, else that of the run where
            it is one of these and else cosine, if None.
        add: Image files to add to the index under their names.
        rebuild: Whether to build the index anew.
        region: Of a detector: the region of a query that is meant, from 1 on, the best first.
        progress: Called while work goes on.

    Returns:
        An answer for each query; the `error` of one that is no usable image is set, and the
        others are searched all the same.

    Raises:
        ConfigError: If there is nothing to do, an argument is wrong or has no effect for the task
            of the run, or the run is one of masks.
        ModelError: If the run has no usable SavedModel.
        DataError: If the index is damaged or belongs to another model, or an image to add is
            unusable or known already.
    """
    if k < 1:
        raise ConfigError("`k` must be at least 1.", received=f"k={k}")
    if not (queries or add or rebuild):
        raise ConfigError("There is nothing to search.", cure="Name image files.")
    # Refuses a method or a distance that there is not, before anything is loaded.
    Searcher(1, method=method or "exact", distance=distance or "cosine")
    items = _items(run, region)
    searcher = None if add or rebuild else _fitting(_saved(run), method, distance)
    if searcher is None:
        with _alone(run, must=bool(add or rebuild)):
            searcher = _writable(run, items, method, distance, rebuild, bool(add), progress)
            if add:
                added = _add(searcher, items, add)
                searcher.save(run.export_path)
                logger.info(f"Added {added} {items.what}; the index holds {len(searcher)}.")
    else:
        where = f"beside {run.export_path}"
        logger.info(f"Index: {len(searcher)} {items.what}, {_how(searcher)}, {where}")
    return _answer(run, items, searcher, queries, k) if queries else []


def _items(run: RunFolder, region: int | None) -> Indexed:
    """What the model of a run lets search for."""
    task = run.config.task
    if task not in (CLASSIFY, DETECT):
        raise ConfigError(
            "Only runs of classifiers and of boxes can be searched.",
            received=f"{run.path}, of the task {task}",
        )
    check_options(task, {"region": region}, {"region": (DETECT,)})
    predictor = PREDICTORS[task](run.export_path)
    if isinstance(predictor, BoxPredictor):
        return Regions(predictor, 1 if region is None else region)
    assert isinstance(predictor, Predictor)
    return WholeImages(predictor)


def open_index(run: RunFolder, predictor: Predictor, *, progress: Progress = silent) -> Searcher:
    """The index beside a run's SavedModel as it is, or one of the training images.

    Raises:
        DataError: If it is damaged or belongs to another model, or the images cannot be loaded.
    """
    found = _saved(run)
    if found is not None:
        return found
    with _alone(run, must=False):
        return _writable(run, WholeImages(predictor), None, None, False, False, progress)


@contextlib.contextmanager
def _alone(run: RunFolder, *, must: bool) -> Iterator[None]:
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


def _saved(run: RunFolder) -> Searcher | None:
    exists = (run.export_path / FOLDER_OF_INDEX).exists()
    return Searcher.load(run.export_path) if exists else None


def _fitting(found: Searcher | None, method: str | None, distance: str | None) -> Searcher | None:
    if found is None or method not in (None, found.method):
        return None
    return found if distance in (None, found.distance) else None


def _writable(
    run: RunFolder,
    items: Indexed,
    method: str | None,
    distance: str | None,
    rebuild: bool,
    add: bool,
    progress: Progress,
) -> Searcher:
    """The index as it is, or a new one where there is none that fits; call it in `_alone`."""
    before = None
    existed = (run.export_path / FOLDER_OF_INDEX).exists()
    try:
        before = _saved(run)
    except DataError:
        if not rebuild:
            raise
    if before is not None:
        fitting = None if rebuild else _fitting(before, method, distance)
        if fitting is not None:
            return fitting
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
    elif existed:
        _tell_lost(made, run)
    kept = f" and {len(made) - trained} added ones" if len(made) > trained else ""
    try:
        where = f"written to {made.save(run.export_path)}"
    except DataError as error:
        if rebuild or add:
            raise
        where = f"not kept: {error}"
    logger.info(f"Index: {trained} training {items.what}{kept}, {_how(made)}, {where}")
    return made


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


def _how(searcher: Searcher) -> str:
    if searcher.method == "exact":
        return f"exact search by {searcher.distance} distance"
    return (
        f"approximate search ({searcher.method.upper()}) by {searcher.distance} distance, "
        f"recall of the ten nearest {searcher.recall:.4f} as measured"
    )


def _add(searcher: Searcher, items: Indexed, paths: Sequence[str]) -> int:
    """Adds image files, and gives the number of items that they are."""
    new = items.of_files(paths)
    images = None if searcher.thumbnails is None else new.images
    searcher.add(new.ids, embeddings=new.embeddings, images=images)
    return len(new.ids)


def _answer(
    run: RunFolder, items: Indexed, searcher: Searcher, queries: Sequence[str], k: int
) -> list[Answer]:
    answers: list[Answer] = []
    good: dict[int, Query] = {}
    for place, path in enumerate(queries):
        try:
            asked = items.query(path)
        except TFGraphRegError as error:
            answers.append(Answer(path, error=str(error)))
            continue
        answers.append(Answer(path, asked.guess, region=asked.region))
        good[place] = asked
    if not good:
        return answers
    found = searcher.search(np.stack([asked.embedding for asked in good.values()]), k=k)
    for row, place in enumerate(good):
        rows = zip(found.distances[row].tolist(), found.ids[row], found.labels[row])
        nearest = [(distance, str(name), str(label)) for distance, name, label in rows if name]
        answers[place] = dataclasses.replace(answers[place], nearest=nearest)
    small = searcher.thumbnails
    if small is not None:
        picture = _picture(small, list(good.values()), items.what, found)
        try:
            with writing_results(run):
                logger.info(f"Picture: {save(picture, run.path / FIGURES / 'search')[0]}")
        except DataError as error:
            # The answer needs no picture: the run may lie where nobody may write.
            logger.warning(f"No picture: {error}")
    return answers


def _picture(
    small: np.ndarray,
    asked: Sequence[Query],
    what: str,
    found: Any,
) -> Any:
    """The queries with what was found; right is what has the class that the model sees."""
    drawn = np.stack([each.image for each in asked[:_MOST_DRAWN]])
    guesses = [each.guess for each in asked]
    names = list(dict.fromkeys([*guesses, *found.labels.ravel().tolist()]))
    # Of an image that was added nobody knows the class.
    number = {name: place if name else -1 for place, name in enumerate(names)}
    near = found.positions[: len(drawn), :_MOST_NEAR]
    near = near[:, (near >= 0).all(axis=0)]
    used, places = np.unique(near, return_inverse=True)
    labels = found.labels[: len(drawn), : near.shape[1]].ravel()
    by_position = dict(zip(near.ravel().tolist(), labels.tolist()))
    return retrieval_grid(
        drawn,
        np.array([number[guess] for guess in guesses[: len(drawn)]]),
        small[used],
        np.array([number[by_position[position]] for position in used.tolist()], np.int64),
        places.reshape(near.shape),
        names,
        title=f"Queries with the class that the model sees, and the nearest {what}",
    )
