"""Few masks: labels of some pixels become masks, over a graph of superpixels.

Shapes: N images, S superpixels, C classes with the background, E edges.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tfgraphreg.data.local import IGNORED
from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.features.superpixels import (
    SUPERPIXEL_SIZE,
    Superpixels,
    averaged,
    superpixels,
)
from tfgraphreg.graph.build import union
from tfgraphreg.graph.knn import knn_graph
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.graph.weights import SMALLEST
from tfgraphreg.progress import Progress, silent
from tfgraphreg.propagation.methods import METHODS
from tfgraphreg.propagation.propagate import Propagation, propagate

# Chosen on training scenes; docs/local.md says how.
_NEIGHBOR_WEIGHT = 0.05
# Of the scores: far finer than what tells classes apart, and reached over edges of any weight.
_TOLERANCE = 1e-5
_COLOR_SCALE = 8.0  # distance in CIELAB at which an edge between touching superpixels weighs 0.6


@dataclasses.dataclass(frozen=True, eq=False)
class CompletedMasks:
    """Masks of which every pixel is labeled.

    Attributes:
        masks: `[N, H, W]` uint8 from 0 to C - 1. Seed pixels keep their label. 255 where no path
            of edges leads to a seed.
        segments: `[N, H, W]` int32: the superpixel of each pixel.
        confidence: `[S]` float64 from 0 to 1: `certainty` of the propagation; of a superpixel
            with seeds, the share of them that has its class.
        seeds: `[N, H, W]` uint8, as given.
        graph: Over the S superpixels, with E edges.
        found: What was propagated over it.
    """

    masks: np.ndarray
    segments: np.ndarray
    confidence: np.ndarray
    seeds: np.ndarray
    graph: SimilarityGraph
    found: Propagation

    def __repr__(self) -> str:
        given = int((self.seeds != IGNORED).sum())
        return (
            f"CompletedMasks({len(self.masks)} images, {self.graph.num_nodes} superpixels, "
            f"{given} seed pixels, {self.found.method})"
        )

    def confidence_maps(self) -> np.ndarray:
        """`[N, H, W]` float32: `confidence` of each pixel's superpixel; 1 at seeds."""
        maps = self.confidence.astype(np.float32)[self.segments]
        maps[self.seeds != IGNORED] = 1
        return maps


def complete_masks(
    images: np.ndarray,
    seeds: np.ndarray,
    num_classes: int,
    *,
    features: np.ndarray | None = None,
    neighbors: int = 10,
    superpixel_size: int = SUPERPIXEL_SIZE,
    method: str = "laplace",
    seed: int = 0,
    progress: Progress = silent,
    **settings: Any,
) -> CompletedMasks:
    """Labels every pixel of all images from a few labeled ones.

    The images are divided into superpixels. One with seeds has the class of most of them, the
    smaller number of several. An edge joins two superpixels that touch: it weighs
    exp(-d^2 / 128), where d is the distance of their mean colors in CIELAB. Other edges lead from
    each superpixel to those of all images whose vectors are nearest, with local Gaussian weights
    times 0.05. Labels spread over both, and a pixel gets the label of its superpixel.

    Memory grows with the pixels, and with the superpixels times the classes; there is no matrix
    of all pairs. The result is the same every time.

    Args:
        images: `[N, H, W, 1 or 3]` uint8.
        seeds: `[N, H, W]` uint8: 0 background, 1 to C - 1 classes, 255 not labeled. An image may
            have none.
        num_classes: C, at least 2 and at most 255.
        features: `[N, h, w, D]` vectors to find neighbors by, such as the map of a network, of
            any resolution. By default mean and standard deviation of the colors and the strength
            of edges, each divided by its standard deviation over all superpixels.
        neighbors: Nearest others of each superpixel, at most S - 1; 0 for touching ones alone.
        superpixel_size: Pixels that a superpixel has at least.
        method: See `propagate`; one that needs no class sizes.
        seed: Of the sample by which an approximate search of neighbors is measured.
        progress: Called as ``progress(what, done, total)``.
        **settings: Of the method; also `tolerance` (default: 1e-5) and `max_iterations`.

    Raises:
        DataError: If images, seeds or features have another form, or no pixel is labeled.
        ConfigError: If another argument is out of range.
        GraphError: If features are not finite, or the tolerance is not reached.
    """
    seeds = np.asarray(seeds)
    _check(images, seeds, num_classes, neighbors, method)
    found = superpixels(images, smallest=superpixel_size, progress=progress)
    graph = superpixel_graph(
        found, features=features, neighbors=neighbors, seed=seed, progress=progress
    )
    labels, agreement = _majority(found, seeds, num_classes)
    spread = propagate(
        graph,
        labels,
        num_classes,
        method=method,
        progress=progress,
        **{"tolerance": _TOLERANCE, **settings},
    )
    values = np.where(spread.reached, spread.labels, IGNORED).astype(np.uint8)
    masks = np.where(seeds == IGNORED, values[found.segments], seeds)
    return CompletedMasks(masks, found.segments, spread.certainty * agreement, seeds, graph, spread)


def superpixel_graph(
    found: Superpixels,
    *,
    features: np.ndarray | None = None,
    neighbors: int = 10,
    seed: int = 0,
    progress: Progress | None = None,
) -> SimilarityGraph:
    """The graph of `complete_masks`, whose arguments these are."""
    if features is not None and not neighbors:
        raise ConfigError(
            "`features` have an effect only with neighbors.",
            received="neighbors=0",
            cure="Leave them out, or give `neighbors`.",
        )
    first, second = found.borders.T
    distances = np.linalg.norm(found.colors[first] - found.colors[second], axis=1)
    weights = np.exp(-(distances**2) / (2 * _COLOR_SCALE**2))
    touching = SimilarityGraph.from_edges(
        first, second, np.maximum(weights, SMALLEST), len(found), about={"kind": "touching"}
    )
    neighbors = min(neighbors, len(found) - 1)
    if not neighbors:
        return touching
    vectors = _standardized(found.statistics) if features is None else averaged(features, found)
    near = knn_graph(
        vectors,
        k=neighbors,
        distance="euclidean",
        weighting="local_gaussian",
        seed=seed,
        progress=progress,
    )
    weak = dataclasses.replace(near, weights=near.weights * np.float32(_NEIGHBOR_WEIGHT))
    return union([touching, weak])


def _standardized(statistics: np.ndarray) -> np.ndarray:
    spread = statistics.std(axis=0)
    return (statistics - statistics.mean(axis=0)) / np.where(spread > 0, spread, 1)


def _majority(
    found: Superpixels, seeds: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """`[S]` the class of most seeds, -1 without any, and the share of them that has it, or 1."""
    given = seeds != IGNORED
    keys = found.segments[given].astype(np.int64) * num_classes + seeds[given]
    counts = np.bincount(keys, minlength=len(found) * num_classes)
    counts = counts.reshape(len(found), num_classes)
    totals = counts.sum(axis=1)
    labels = np.where(totals > 0, counts.argmax(axis=1), -1)
    agreement = np.divide(counts.max(axis=1), totals, out=np.ones(len(found)), where=totals > 0)
    return labels, agreement


def _check(
    images: np.ndarray, seeds: np.ndarray, num_classes: int, neighbors: int, method: str
) -> None:
    if METHODS.get(method).needs_sizes:
        raise ConfigError(
            f"The method {method} needs to know the class sizes, which masks do not have.",
            received=f"method={method}",
            cure="Use laplace or spreading.",
        )
    if not 2 <= num_classes <= IGNORED:
        raise ConfigError(
            f"`num_classes` must be from 2 to {IGNORED}, the background among them.",
            received=f"num_classes={num_classes}",
        )
    if neighbors < 0:
        raise ConfigError("`neighbors` must be at least 0.", received=f"neighbors={neighbors}")
    if np.shape(seeds) != np.shape(images)[:3] or seeds.dtype != np.uint8:
        raise DataError(
            f"Seeds must be uint8 of the size of the images, {list(np.shape(images)[:3])}.",
            received=f"{seeds.dtype} of shape {list(np.shape(seeds))}",
        )
    given = seeds[seeds != IGNORED]
    if not given.size:
        raise DataError(
            "No pixel is labeled: there is nothing to propagate.",
            received=f"{IGNORED} in every pixel of {len(seeds)} masks",
        )
    if given.max() >= num_classes:
        raise DataError(
            f"Seeds must be from 0 to {num_classes - 1}, or {IGNORED} where not labeled.",
            received=f"{given.max()}",
        )
