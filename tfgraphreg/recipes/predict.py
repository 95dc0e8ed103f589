"""What an exported model says of image files."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from tfgraphreg import storage
from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.evaluation.average_precision import SURE
from tfgraphreg.export import (
    CLASSIFY,
    DETECT,
    PREDICTORS,
    SEGMENT,
    BoxPrediction,
    BoxPredictor,
    MaskPrediction,
    MaskPredictor,
    Prediction,
    Predictor,
    exported_task,
)
from tfgraphreg.progress import Progress, silent
from tfgraphreg.recipes.tasks import check_options

logger = logging.getLogger(__name__)

Predictions = list[Prediction] | list[BoxPrediction] | list[MaskPrediction]

_TOP = 3
_TAKES = {"top": (CLASSIFY,), "least_score": (DETECT,), "out": (DETECT, SEGMENT)}
_ENDINGS = {DETECT: ("boxes",), SEGMENT: ("overlay", "mask")}
# With an ending, the longest name that file systems take.
_LONGEST_NAME = 200


def predict(
    paths: Sequence[str],
    folder: pathlib.Path,
    *,
    top: int | None = None,
    least_score: float | None = None,
    out: str | None = None,
    progress: Progress = silent,
) -> Predictions:
    """Asks a model about image files; a file that is no usable image has its `error` set.

    Args:
        paths: The files.
        folder: The model's folder.
        top: Classes of each image, for a classifier; 3 if None.
        least_score: Of the boxes that are given, for a model of boxes; 0.3 if None.
        out: Folder for a picture of each file, for a model of boxes or masks: NAME_boxes.png, or
            NAME_overlay.png and NAME_mask.png, a gray image of the file's size that holds mask
            values. NAME is the file's without its suffix; a number tells apart files of one name.
        progress: Called after each file.

    Returns:
        A value for each file. Masks are in `out` alone: those of many photographs would not fit in
        memory.

    Raises:
        ConfigError: If an option is out of range or has no effect for the model.
        ModelError: If there is no usable model.
        DataError: If `out` cannot be written, or a picture would replace one of the files.
    """
    _check_ranges(top, least_score)
    task = exported_task(folder)
    check_options(task, {"top": top, "least_score": least_score, "out": out}, _TAKES)
    pictures = None if out is None else _Pictures(out, paths, _ENDINGS[task])
    predictor = PREDICTORS[task](folder)
    logger.info(f"Model: {folder}")
    if isinstance(predictor, Predictor):
        return predictor.predict_files(paths, top=_TOP if top is None else top)
    if pictures is not None:
        pictures.make_folder()
    if isinstance(predictor, BoxPredictor):
        least = SURE if least_score is None else least_score
        logger.info(f"Boxes with a score of {least:g} or more")
        return list(_boxes(predictor, paths, least, pictures, progress))
    return list(_masks(predictor, paths, pictures, progress))


def _check_ranges(top: int | None, least_score: float | None) -> None:
    if top is not None and top < 1:
        raise ConfigError("`top` must be at least 1.", received=f"top={top}")
    if least_score is not None and not 0 <= least_score <= 1:
        raise ConfigError(
            "`least_score` must be from 0 to 1.", received=f"least_score={least_score}"
        )


def _boxes(
    predictor: BoxPredictor,
    paths: Sequence[str],
    least_score: float,
    pictures: _Pictures | None,
    progress: Progress,
) -> Iterator[BoxPrediction]:
    from tfgraphreg.visualize.overlays import box_picture

    found = predictor.predict_files(paths, least_score=least_score)
    for number, each in enumerate(found):
        if pictures is not None and each.error is None:
            count = len(each.detections) or "nothing"
            title = f"{count} found with a score of {least_score:g} or more"
            image = predictor.read_whole(each.name)
            drawn = box_picture(image, each.detections, predictor.class_names, title=title)
            pictures.save(number, "boxes", drawn)
        progress("finding boxes", number + 1, len(paths))
        yield each


def _masks(
    predictor: MaskPredictor, paths: Sequence[str], pictures: _Pictures | None, progress: Progress
) -> Iterator[MaskPrediction]:
    from PIL import Image

    from tfgraphreg.visualize.overlays import mask_picture

    for number, each in enumerate(predictor.predict_files(paths)):
        if pictures is not None and each.mask is not None:
            with storage.atomic_path(pictures.path(number, "mask")) as part:
                Image.fromarray(each.mask).save(part, "PNG")
            drawn = mask_picture(predictor.read_whole(each.name), each.mask, predictor.mask_names)
            pictures.save(number, "overlay", drawn)
        progress("finding masks", number + 1, len(paths))
        yield dataclasses.replace(each, mask=None)


class _Pictures:
    """The files that are written for image files into a folder.

    Raises:
        DataError: If one of them would replace an image file.
    """

    def __init__(self, out: str, paths: Sequence[str], endings: Sequence[str]):
        self._folder = storage.user_path(out)
        self._names = _distinct_names(paths)
        images = {os.path.realpath(path) for path in paths}
        for number in range(len(paths)):
            for ending in endings:
                made = self.path(number, ending)
                if os.path.realpath(made) in images:
                    raise DataError(
                        "A picture would replace one of the image files.",
                        received=str(made),
                        cure="Name another folder with `out`, or leave the file out.",
                    )

    def make_folder(self) -> None:
        """Makes the folder, so that one that cannot be written is found before the model is asked.

        Raises:
            DataError: If it cannot be made.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage.write_error(error, self._folder) from error

    def path(self, number: int, ending: str) -> pathlib.Path:
        """The file for the image file of this number."""
        return self._folder / f"{self._names[number]}_{ending}.png"

    def save(self, number: int, ending: str, made: Any) -> None:
        """Writes a Figure."""
        from tfgraphreg.visualize.style import save_png

        save_png(made, self.path(number, ending))


def _distinct_names(paths: Sequence[str]) -> list[str]:
    """A name for each file: its own without the suffix, and a number where that is taken."""
    names: list[str] = []
    taken: set[str] = set()
    for path in paths:
        stem = pathlib.Path(path).stem or "image"
        while len(os.fsencode(stem)) > _LONGEST_NAME:
            stem = stem[:-1]
        name, count = stem, 1
        # Some file systems do not tell A from a.
        while name.casefold() in taken:
            count += 1
            name = f"{stem}-{count}"
        taken.add(name.casefold())
        names.append(name)
    return names
