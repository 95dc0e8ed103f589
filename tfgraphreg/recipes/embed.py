"""Pictures of a run's embedding: in two or three dimensions, and in TensorBoard's projector."""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import Any

import numpy as np

from tfgraphreg import storage
from tfgraphreg.data.dataset import Dataset, Split
from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.features import extract_features
from tfgraphreg.progress import Progress, silent
from tfgraphreg.runs.folder import FIGURES, RunFolder, finished_metrics, writing_results
from tfgraphreg.runs.outputs import RunOutputs, run_outputs, within_budget
from tfgraphreg.search.ranking import nearest, without_own
from tfgraphreg.visualize import figures, grids
from tfgraphreg.visualize.mde import VARIANTS, Layout, layout, load_pymde
from tfgraphreg.visualize.projector import write_projector
from tfgraphreg.visualize.scatter import scatter
from tfgraphreg.visualize.style import save
from tfgraphreg.visualize.thumbnails import thumbnails

logger = logging.getLogger(__name__)

SOURCES = ("embedding", "graph")
SPLITS = ("test", "train")
_RESULTS = ("embedding.npz", "embedding_3d.npz", "embedding.json")
_NEIGHBORS = 12
_THUMBNAIL = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbedOptions:
    """What to draw.

    Attributes:
        dim: 2 or 3.
        variant: One of `tfgraphreg.visualize.mde.VARIANTS`.
        source: `embedding`, whose neighbors are kept; or `graph`, the run's own training graph.
        split: Whose images are drawn; with `graph` always all training images.
        limit: The largest number of images, drawn at random.
        onto_train: Place the test images among training images that stay where they are.
        seed: Of the choice and of the picture.

    Raises:
        ConfigError: If a value, or a combination, cannot work.
    """

    dim: int = 2
    variant: str = "neighbors"
    source: str = "embedding"
    split: str = "test"
    limit: int = 10_000
    onto_train: bool = False
    seed: int = 0

    def __post_init__(self):
        for name, known in (
            ("dim", (2, 3)),
            ("variant", VARIANTS),
            ("source", SOURCES),
            ("split", SPLITS),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"`{name}` must be one of {', '.join(map(str, known))}.",
                    received=str(getattr(self, name)),
                )
        if self.limit < 10:
            raise ConfigError("`limit` must be at least 10.", received=f"limit={self.limit}")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(
                "`seed` must be from 0 to 4,294,967,295.", received=f"seed={self.seed}"
            )
        if self.onto_train and (self.variant != "neighbors" or self.source != "embedding"):
            raise ConfigError(
                "`onto_train` needs the variant neighbors and the source embedding.",
                received=f"variant={self.variant}, source={self.source}",
            )

    @property
    def name(self) -> str:
        """What the figures are called."""
        words = ["embedding", f"{self.dim}d"]
        words += [self.variant] * (self.variant != "neighbors")
        words += ["graph"] * (self.source == "graph") + ["onto_train"] * self.onto_train
        return "_".join(words)


@dataclasses.dataclass(frozen=True)
class _Items:
    """The images that are drawn: a part of a split, or of both."""

    split: Split
    embedding: np.ndarray
    probabilities: np.ndarray
    indices: np.ndarray
    new: np.ndarray | None = None


def embed_run(run: RunFolder, options: EmbedOptions, *, progress: Progress = silent) -> None:
    """Draws a finished run's embedding beside the raw pixels, and writes what other tools show.

    Into the run folder come figures/embedding_*.png and .svg, figures/distortion_*,
    figures/distorted_pairs_*, embedding.npz (of three dimensions: embedding_3d.npz) for
    report.html, embedding.json with the numbers, and the projector's files in tensorboard/.

    Raises:
        MissingExtraError: If pymde is not installed.
        RunError: If the run is not finished.
        TFGraphRegError: If its data or its model cannot be loaded.
    """
    load_pymde()
    finished_metrics(run)
    seen = run_outputs(run, progress)
    items = _choose(seen, options)
    if len(items.indices) < 10:
        raise DataError("A picture needs at least 10 images.", received=f"{len(items.indices)}")
    layouts = _layouts(seen, items, options, progress)
    colors = _one_class(items.split.labels)
    found = {name: _agreement(each.points, colors) for name, each in layouts.items()}
    for name, share in found.items():
        logger.info(f"{name}: {share:.1%} of the 10 nearest points of a point have its class")
    names = seen.dataset.class_names
    main = list(layouts.values())[-1]
    numbers = {
        **dataclasses.asdict(options),
        "items": len(items.indices),
        "nearest_of_same_class": found,
        "average_distortion": {name: each.average for name, each in layouts.items()},
    }
    # Of two at once, the files must be of the same one.
    with writing_results(run, *_RESULTS):
        _draw(run, seen.dataset, items, layouts, colors, options)
        _write(run, seen, items, main, colors, options)
        storage.write_json(run.path / "embedding.json", numbers)
        write_projector(
            run.path / "tensorboard",
            items.embedding,
            metadata={
                "class": [names[c] if c >= 0 else "-" for c in colors],
                "predicted": [names[c] for c in items.probabilities.argmax(axis=1)],
                "id": items.split.ids,
            },
            images=items.split.images,
        )
    logger.info(f"Figures: {run.path / FIGURES / options.name}.png and .svg")
    logger.info(
        f"Page: tfgraphreg compare {run.path}    Projector: tensorboard --logdir {run.path}"
    )


def _choose(seen: RunOutputs, options: EmbedOptions) -> _Items:
    data = seen.dataset
    if options.source == "graph":
        return _part(data.train, seen.train, np.arange(len(data.train)))
    parts = {"train": (data.train, seen.train), "test": (data.test, seen.test)}
    if not options.onto_train:
        split, outputs = parts[options.split]
        return _part(split, outputs, _drawn(len(split), options.limit, options.seed))
    half = max(options.limit // 2, 5)
    old, new = (
        _part(split, outputs, _drawn(len(split), half, options.seed))
        for split, outputs in (parts["train"], parts["test"])
    )
    both = Split(
        np.concatenate([old.split.images, new.split.images]),
        np.concatenate([old.split.labels, new.split.labels]),
        np.concatenate([old.split.ids, new.split.ids]),
    )
    return _Items(
        both,
        np.concatenate([old.embedding, new.embedding]),
        np.concatenate([old.probabilities, new.probabilities]),
        np.concatenate([old.indices, new.indices]),
        new=np.arange(len(both)) >= len(old.indices),
    )


def _drawn(count: int, limit: int, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).permutation(count)[:limit])


def _part(split: Split, outputs: dict[str, np.ndarray], chosen: np.ndarray) -> _Items:
    part = split.take(chosen)
    return _Items(part, outputs["embedding"][chosen], outputs["probabilities"][chosen], chosen)


def _layouts(
    seen: RunOutputs, items: _Items, options: EmbedOptions, progress: Progress
) -> dict[str, Layout]:
    """The pictures by title; the last is the one of the embedding or the graph."""

    def place(title: str, data: Any, **more: Any) -> Layout:
        started = time.perf_counter()
        made = layout(
            data,
            dim=options.dim,
            variant=options.variant,
            seed=options.seed,
            **more,
            progress=lambda done, total: progress(f"placing by {title}", done, total),
        )
        logger.info(
            f"Placed {len(made.points)} images by {title}, {time.perf_counter() - started:.0f} s"
        )
        return made

    if options.source == "graph":
        from tfgraphreg.recipes.graphs import training_graph

        graph = training_graph(
            seen.run.config, within_budget(seen.run.config, seen.dataset), progress
        )
        return {"training graph": place("training graph", graph)}
    if items.new is not None:
        old = ~items.new
        first = place("learned embedding", items.embedding[old])
        second = place(
            "learned embedding, test onto training",
            items.embedding,
            anchors=np.flatnonzero(old),
            anchor_points=first.points,
        )
        return {"learned embedding, test onto training": second}
    pixels = extract_features("pixels", thumbnails(items.split.images, most=_THUMBNAIL))
    return {
        "raw pixels": place("raw pixels", pixels),
        "learned embedding": place("learned embedding", items.embedding),
    }


def _draw(
    run: RunFolder,
    dataset: Dataset,
    items: _Items,
    layouts: dict[str, Layout],
    colors: np.ndarray,
    options: EmbedOptions,
) -> None:
    folder, names = run.path / FIGURES, dataset.class_names
    panels = {name: each.points for name, each in layouts.items()}
    save(scatter(panels, colors, names, new=items.new), folder / options.name)
    tail = options.name.removeprefix("embedding_")
    cdf = figures.distortion_cdf({name: each.distortions for name, each in layouts.items()})
    save(cdf, folder / f"distortion_{tail}")
    pairs, distortions = list(layouts.values())[-1].worst_pairs(16)
    words = [names[c] if c >= 0 else "-" for c in colors]
    captions = [f"{words[a]} | {words[b]}\n{d:.2f}" for (a, b), d in zip(pairs, distortions)]
    used, places = np.unique(pairs, return_inverse=True)
    picture = grids.image_pairs(items.split.images[used], places.reshape(pairs.shape), captions)
    save(picture, folder / f"distorted_pairs_{tail}")


def _write(
    run: RunFolder,
    seen: RunOutputs,
    items: _Items,
    main: Layout,
    colors: np.ndarray,
    options: EmbedOptions,
) -> None:
    found = nearest(
        items.embedding,
        items.embedding,
        min(_NEIGHBORS, len(items.indices) - 1) + 1,
        distance=seen.run.config.distance,
    )
    own = np.arange(len(items.indices))
    neighbors = np.concatenate([without_own(rows, own[part]) for part, rows, _ in found])
    name = "embedding.npz" if options.dim == 2 else "embedding_3d.npz"
    with storage.noted_path(run.path / name) as part, open(part, "wb") as file:
        np.savez_compressed(
            file,
            points=main.points,
            labels=colors,
            indices=items.indices,
            ids=np.asarray(items.split.ids, dtype=str),
            split=np.array("train" if options.source == "graph" else options.split),
            class_names=np.array(seen.dataset.class_names, dtype=str),
            thumbnails=thumbnails(items.split.images, most=_THUMBNAIL),
            neighbors=neighbors.astype(np.int32),
            title=np.array(options.name.replace("_", " ")),
        )


def _one_class(labels: np.ndarray) -> np.ndarray:
    """`[N]` class numbers; of several classes an image the first, -1 where there is none."""
    if labels.ndim == 1:
        return labels
    positive = labels > 0
    return np.where(positive.any(axis=1), positive.argmax(axis=1), -1)


def _agreement(points: np.ndarray, labels: np.ndarray) -> float:
    """Mean share of the ten nearest points of a labeled point that have its class."""
    known = labels >= 0
    points, labels = points[known], labels[known]
    k = min(10, len(points) - 1)
    if k < 1:
        return float("nan")
    own = np.arange(len(points))
    same = [
        labels[without_own(rows, own[part])] == labels[part, None]
        for part, rows, _ in nearest(points, points, k + 1, distance="euclidean")
    ]
    return float(np.concatenate(same).mean())
