"""Few masks of a dataset, completed over a graph of superpixels."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
from typing import Any

import numpy as np

from tfgraphreg.config import TrainConfig
from tfgraphreg.data.dataset import Dataset
from tfgraphreg.data.local import BACKGROUND, IGNORED, LocalSplit, names_of_masks
from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.evaluation.segmentation import segmentation_report
from tfgraphreg.features.superpixels import SUPERPIXEL_SIZE
from tfgraphreg.progress import Progress, silent
from tfgraphreg.propagation import CompletedMasks, complete_masks
from tfgraphreg.runs.outputs import load_data
from tfgraphreg.storage import atomic_path, user_path
from tfgraphreg.visualize.masks import seed_sheet
from tfgraphreg.visualize.style import save

logger = logging.getLogger(__name__)

FILE, FIGURE = "masks.npz", "masks"
_SHOWN, _SHOWN_GIVEN = 5, 3


@dataclasses.dataclass(frozen=True, eq=False)
class MaskLabeling:
    """The completed masks of the training images of a dataset.

    Attributes:
        dataset: With its true masks.
        found: What they became of the pixels that were given.
    """

    dataset: Dataset
    found: CompletedMasks

    @property
    def truth(self) -> np.ndarray:
        """`[N, H, W]` uint8: the true masks of the training images."""
        return np.asarray(_split(self.dataset).masks)

    def summary(self) -> dict[str, Any]:
        """Numbers in words that a table or JSON takes.

        `given` and `unreached` count pixels, `images_given` the images that have a given pixel.
        `measured` counts the pixels whose class is known and was not given; the rest is the
        `segmentation_report` of these (see there), None without any. A pixel without a label
        counts as background.
        """
        found, truth = self.found, self.truth
        given = found.seeds != IGNORED
        counted = ~given & (truth != IGNORED)
        masks = np.where(found.masks == IGNORED, BACKGROUND, found.masks)
        report: dict[str, Any] = dict.fromkeys(("pixel_accuracy", "mean_iou"))
        if counted.any():
            report = segmentation_report(
                truth[counted], masks[counted], names_of_masks(self.dataset)
            )
        return {
            "images": len(truth),
            "images_given": int(given.any(axis=(1, 2)).sum()),
            "given": int(given.sum()),
            "superpixels": found.graph.num_nodes,
            "edges": found.graph.num_edges,
            "unreached": int((found.masks == IGNORED).sum()),
            "measured": int(counted.sum()),
            **report,
        }


def propagate_masks(
    config: TrainConfig,
    *,
    masks: int | None = None,
    pixels_per_class: int | None = None,
    superpixel_size: int = SUPERPIXEL_SIZE,
    method: str = "laplace",
    out: os.PathLike[str] | str | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> MaskLabeling:
    """Hides most pixels of the training masks of the config's dataset, and completes them.

    Args:
        config: Dataset, `graph_neighbors` and seed; nothing else of it has an effect.
        masks: Images that keep their mask, drawn at random; None: all.
        pixels_per_class: Pixels of each class, background included, that a kept mask keeps,
            drawn at random; None: all.
        superpixel_size: See `tfgraphreg.complete_masks`.
        method: See `tfgraphreg.propagation.propagate`.
        out: Folder for masks.npz (arrays `ids`, `names`, `masks`, `confidence`, `seeds`), masks.png
            and masks.svg; None for none.
        progress: Called as ``progress(what, done, total)``.
        **settings: Of the method.

    Raises:
        ConfigError: If a setting cannot be, or every pixel is given.
        TFGraphRegError: If the data or the folder is in the way.
    """
    for name, value in (("masks", masks), ("pixels_per_class", pixels_per_class)):
        if value is not None and value < 1:
            raise ConfigError(f"`{name}` must be at least 1.", received=f"{name}={value}")
    if superpixel_size < 1:
        raise ConfigError(
            "`superpixel_size` must be at least 1.", received=f"superpixel_size={superpixel_size}"
        )
    if masks is None and pixels_per_class is None:
        raise ConfigError(
            "Every pixel of every mask is given: there is nothing to propagate.",
            cure="Give `masks`, `pixels_per_class` or both.",
        )
    folder = None if out is None else user_path(out)
    if folder is not None and folder.exists() and not folder.is_dir():
        raise ConfigError("`out` must name a folder.", received=f"out={out}, which is a file")
    dataset = load_data(config, progress)
    split = _split(dataset)
    seeds = kept_pixels(
        np.asarray(split.masks), masks=masks, pixels_per_class=pixels_per_class, seed=config.seed
    )
    given = seeds != IGNORED
    logger.info(
        f"Data: {dataset.name}, {len(split)} training images; {given.sum():,} pixels of "
        f"{given.any(axis=(1, 2)).sum()} masks are given"
    )
    found = complete_masks(
        split.images,
        seeds,
        len(names_of_masks(dataset)),
        neighbors=config.graph_neighbors,
        superpixel_size=superpixel_size,
        method=method,
        seed=config.seed,
        progress=progress,
        **settings,
    )
    labeling = MaskLabeling(dataset, found)
    if folder is not None:
        _write(labeling, folder, progress)
    return labeling


def kept_pixels(
    truth: np.ndarray, *, masks: int | None, pixels_per_class: int | None, seed: int
) -> np.ndarray:
    """`[N, H, W]` uint8: true masks with 255 in all pixels that are not given.

    Args:
        truth: `[N, H, W]` uint8 true masks, 255 where unknown.
        masks: Images that keep their mask; None: all.
        pixels_per_class: Pixels of each class that a kept mask keeps, all where it has fewer;
            None: all.
        seed: Which ones. Those of an image do not depend on the other images.

    Raises:
        ConfigError: If there are not more than `masks` images with a known pixel.
    """
    known = np.flatnonzero((truth != IGNORED).any(axis=(1, 2)))
    kept = known
    if masks is not None:
        if masks > len(known) or (pixels_per_class is None and masks == len(known)):
            raise ConfigError(
                "`masks` must be smaller than the number of training images with a mask.",
                received=f"masks={masks}, {len(known)} images with a mask",
                cure="Use less, or give `pixels_per_class` instead.",
            )
        kept = np.sort(np.random.default_rng(seed).permutation(known)[:masks])
    seeds = np.full_like(truth, IGNORED)
    for number in kept:
        if pixels_per_class is None:
            seeds[number] = truth[number]
            continue
        rng = np.random.default_rng([seed, int(number)])
        flat, given = truth[number].ravel(), seeds[number].reshape(-1)
        for value in np.unique(flat[flat != IGNORED]):
            places = np.flatnonzero(flat == value)
            given[rng.permutation(places)[:pixels_per_class]] = value
    return seeds


def _split(dataset: Dataset) -> LocalSplit:
    split = dataset.train
    if not isinstance(split, LocalSplit) or split.masks is None:
        raise DataError(
            "The training images of the dataset have no masks.",
            received=f"dataset={dataset.name}",
            cure="Use `dataset=scenes`, or `tfgraphreg.complete_masks` for arrays of your own.",
        )
    return split


def _write(labeling: MaskLabeling, folder: pathlib.Path, progress: Progress) -> None:
    found, names = labeling.found, names_of_masks(labeling.dataset)
    progress("writing", 0, 2)
    with atomic_path(folder / FILE) as part, part.open("wb") as file:
        np.savez_compressed(
            file,
            ids=np.asarray(labeling.dataset.train.ids, str),
            names=np.asarray(names),
            masks=found.masks,
            confidence=found.confidence_maps().astype(np.float16),
            seeds=found.seeds,
        )
    progress("writing", 1, 2)
    given = (found.seeds != IGNORED).any(axis=(1, 2))
    # Some images with given pixels, then those that have none, where there are any.
    some, none = np.flatnonzero(given), np.flatnonzero(~given)
    shown = np.concatenate([some[:_SHOWN_GIVEN], none, some[_SHOWN_GIVEN:]])[:_SHOWN]
    images = np.asarray(labeling.dataset.train.images[shown])
    sheet = seed_sheet(images, found.seeds[shown], found.masks[shown], labeling.truth[shown], names)
    save(sheet, folder / FIGURE)
    progress("writing", 2, 2)
    logger.info(f"Written: {folder}: {FILE}, {FIGURE}.png, {FIGURE}.svg")
