"""Search by picture beside a run's model."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfgraphreg.errors import ConfigError, DataError, TFGraphRegError, did_you_mean
from tfgraphreg.export import DETECT, PREDICTORS, BoxPredictor, Detection, Predictor
from tfgraphreg.progress import Progress, silent
from tfgraphreg.recipes.added import check_labels, files_below, images_to_add
from tfgraphreg.recipes.items import Indexed, Query, Regions, WholeImages
from tfgraphreg.recipes.reject import check_reject, measure_limit, set_limit, share_of
from tfgraphreg.recipes.run_index import alone, fitting, how, saved_index, writable_index
from tfgraphreg.recipes.tasks import CLASSIFY, check_options
from tfgraphreg.runs.folder import FIGURES, RunFolder, writing_results
from tfgraphreg.visualize.grids import retrieval_grid
from tfgraphreg.visualize.search import Found, Searcher
from tfgraphreg.visualize.style import save

logger = logging.getLogger(__name__)

# Rows and columns of one figure.
_MOST_DRAWN = 12
_MOST_NEAR = 20


@dataclasses.dataclass(frozen=True)
class Answer:
    """What was found for one query.

    Attributes:
        path: The file that was asked about.
        guess: The class that the model sees in it; empty for a file that cannot be read.
        nearest: Distance, id and label (may be empty) of each image found, the nearest first.
        error: What is wrong with the file, or None.
        voted: The label that weighs most among the nearest (see `tfgraphreg.search.vote`); empty
            if none of them has one, or images have several classes.
        share: Its share of all weights, in [0, 1].
        unknown: Whether every image of the index is farther than its limit; None if it has none.
        limit: The limit, or None.
        region: The part of the file that was searched for, by a detector; None for all of it.
    """

    path: str
    guess: str = ""
    nearest: list[tuple[float, str, str]] = dataclasses.field(default_factory=list)
    error: str | None = None
    voted: str = ""
    share: float = 0.0
    unknown: bool | None = None
    limit: float | None = None
    region: Detection | None = None


def search_run(
    run: RunFolder,
    queries: Sequence[str],
    *,
    k: int = 5,
    method: str | None = None,
    distance: str | None = None,
    add: Sequence[str] = (),
    label: str | None = None,
    labels: str | None = None,
    rebuild: bool = False,
    reject: float | None = None,
    unknown: Sequence[str] = (),
    region: int | None = None,
    progress: Progress = silent,
) -> list[Answer]:
    """Finds the images that a run's model holds nearest to image files, and draws them.

    By a detector, it is regions that are found, of training images and of what was added; of a
    query that with the highest score is searched for.

    The index lies beside the run's SavedModel. It is built from the training images if there
    is none yet, if `rebuild` is set, or if it is of another method or distance than named.
    Images that were added to the one before are kept, as is its limit beyond which a query is
    unknown; where that cannot be, it says how many are lost.

    Args:
        run: The run.
        queries: Image files.
        k: Images for each query.
        method: ``"exact"``, ``"ivf"`` or ``"hnsw"``; that of the index, else exact, if None.
        distance: ``"cosine"`` or ``"euclidean"``; that of the index, else that of the run where
            it is one of these and else cosine, if None.
        add: Image files to add to the index under their names, and folders of them with a
            subfolder for each class.
        label: The class of what is added.
        labels: CSV file (id, label) with the classes of what is added.
        rebuild: Whether to build the index anew.
        reject: Share of images of known classes that is accepted, in (0, 1]: sets the limit
            beyond which a query is unknown, by validation or test images; 1 takes it away. The
            index keeps it, and sets it anew when it changes.
        unknown: Image files of no known class, and folders of them, to measure the limit by.
        region: Of a detector: the region of a query that is meant, from 1 on, the best first.
        progress: Called while work goes on.

    Returns:
        An answer for each query; the `error` of one that is no usable image is set, and the
        others are searched all the same.

    Raises:
        ConfigError: If there is nothing to do, an argument is wrong or has no effect for the task
            of the run, or the run is one of masks.
        ModelError: If the run has no usable SavedModel.
        DataError: If the index is damaged or belongs to another model, an image to add is
            unusable or known already, or there are too few images to set a limit by.
    """
    if k < 1:
        raise ConfigError("`k` must be at least 1.", received=f"k={k}")
    check_labels(add, label, labels)
    if not (queries or add or rebuild or unknown or reject is not None):
        raise ConfigError("There is nothing to search.", cure="Name image files.")
    check_reject(run, reject, unknown)
    # Refuses a method or a distance that there is not, before anything is loaded.
    Searcher(1, method=method or "exact", distance=distance or "cosine")
    options = {"label": label, "labels": labels, "reject": reject, "unknown": list(unknown) or None}
    items = _items(run, region, options)
    if isinstance(items, WholeImages):
        files, words = images_to_add(add, label=label, labels=labels)
    else:
        files, words = [file for path in add for file in files_below(path)], None
    searcher = None if add or rebuild else fitting(saved_index(run), method, distance)
    changed = searcher is None or reject not in (None, share_of(searcher))
    if searcher is None or changed:
        must = bool(add or rebuild or reject is not None)
        with alone(run, must=must):
            searcher = writable_index(
                run,
                items,
                method=method,
                distance=distance,
                rebuild=rebuild,
                must=must,
                progress=progress,
            )
            if add:
                _add(searcher, items, files, words)
            limited = False
            if reject is not None and isinstance(items, WholeImages):
                limited = set_limit(run, items.predictor, searcher, reject, progress)
            if add or limited:
                searcher.save(run.export_path)
    else:
        where = f"beside {run.export_path}"
        logger.info(f"Index: {len(searcher)} {items.what}, {how(searcher)}, {where}")
    measured = unknown or (changed and searcher.limit is not None)
    if measured and isinstance(items, WholeImages):
        measure_limit(run, items.predictor, searcher, unknown, progress)
    return _answer(run, items, searcher, queries, k) if queries else []


def _items(run: RunFolder, region: int | None, of_images: Mapping[str, Any]) -> Indexed:
    """What the model of a run lets search for; refuses options that have no effect for it."""
    task = run.config.task
    if task not in (CLASSIFY, DETECT):
        raise ConfigError(
            "Only runs of classifiers and of boxes can be searched.",
            received=f"{run.path}, of the task {task}",
        )
    takes: dict[str, tuple[str, ...]] = {
        "region": (DETECT,),
        **dict.fromkeys(of_images, (CLASSIFY,)),
    }
    check_options(task, {"region": region, **of_images}, takes)
    predictor = PREDICTORS[task](run.export_path)
    if isinstance(predictor, BoxPredictor):
        return Regions(predictor, 1 if region is None else region)
    assert isinstance(predictor, Predictor)
    return WholeImages(predictor)


def _add(
    searcher: Searcher, items: Indexed, paths: Sequence[str], labels: Sequence[str] | None
) -> None:
    before = {*searcher.labels.tolist(), ""}
    made = items.of_files(paths)
    searcher.add(
        made.ids,
        embeddings=made.embeddings,
        images=None if searcher.thumbnails is None else made.images,
        labels=labels,
    )
    logger.info(f"Added {len(made.ids)} {items.what}; the index holds {len(searcher)}.")
    new = sorted({*(labels or ())} - before)
    if new:
        # A misspelled class would be another one.
        hints = [hint for name in new if (hint := did_you_mean(name, before))]
        words = ", ".join(new[:20])
        logger.info(" ".join([f"Labels new to the index: {words}.", *hints[:3]]))


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
    voted, shares = found.vote()
    for row, place in enumerate(good):
        rows = zip(found.distances[row].tolist(), found.ids[row], found.labels[row])
        answers[place] = dataclasses.replace(
            answers[place],
            nearest=[(distance, str(name), str(label)) for distance, name, label in rows if name],
            voted=str(voted[row]) if items.votes else "",
            share=float(shares[row]) if items.votes else 0.0,
            unknown=None if found.unknown is None else bool(found.unknown[row]),
            limit=searcher.limit,
        )
    small = searcher.thumbnails
    if small is not None:
        shown = [_shown(answers[place], items.class_names) for place in good]
        picture = _picture(small, list(good.values()), shown, items.what, found)
        try:
            with writing_results(run):
                logger.info(f"Picture: {save(picture, run.path / FIGURES / 'search')[0]}")
        except DataError as error:
            # The answer needs no picture: the run may lie where nobody may write.
            logger.warning(f"No picture: {error}")
    return answers


def _shown(answer: Answer, known: Sequence[str]) -> str | None:
    """The class of a query in the picture; None if it is unknown.

    The model cannot see a class that was added to the index alone.
    """
    if answer.unknown:
        return None
    return answer.voted if answer.voted and answer.voted not in known else answer.guess


def _picture(
    small: np.ndarray,
    asked: Sequence[Query],
    shown: Sequence[str | None],
    what: str,
    found: Found,
) -> Any:
    """The queries with what was found; right is what has the class of the query."""
    drawn = np.stack([each.image for each in asked[:_MOST_DRAWN]])
    classes = [name for name in shown if name is not None]
    names = [name for name in dict.fromkeys([*classes, *found.labels.ravel().tolist()]) if name]
    number: dict[str | None, int] = {name: place for place, name in enumerate(names)}
    near = found.positions[: len(drawn), :_MOST_NEAR]
    near = near[:, (near >= 0).all(axis=0)]
    used, places = np.unique(near, return_inverse=True)
    labels = found.labels[: len(drawn), : near.shape[1]].ravel()
    by_position = dict(zip(near.ravel().tolist(), labels.tolist()))
    return retrieval_grid(
        drawn,
        np.array([number.get(name, -1) for name in shown[: len(drawn)]]),
        small[used],
        np.array([number.get(by_position[position], -1) for position in used.tolist()], np.int64),
        places.reshape(near.shape),
        names,
        query_words=[name or "unknown" for name in shown[: len(drawn)]],
        title=f"Queries with their class, and the nearest {what}",
    )
