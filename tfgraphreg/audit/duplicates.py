"""Images that are there twice, to the byte or nearly.

Shapes: N images, P pairs, E directed edges.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from tfgraphreg.errors import DataError, GraphError
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.progress import Progress, silent
from tfgraphreg.search.measured import as_matrix

_SIDE = 32  # images are compared at most this large
_CHUNK = 512
_PAIRS = 4096
# Chosen on synthetic copies of training images; see docs/audit.md.
_LARGEST = 0.25
_SHARE = 0.4


@dataclasses.dataclass(frozen=True, eq=False)
class Duplicates:
    """Pairs of images that are one and the same.

    Attributes:
        pairs: `[P, 2]` int64 node numbers, the smaller one first; nearest pairs first.
        exact: `[P]` bool: equal to the byte.
        difference: `[P]` float64: length of the difference of two images without their means, over
            the larger of their own lengths; 0 if equal.
        groups: `[N]` int64: the smallest node number among all that a chain of pairs joins to a
            node; -1 where a node has no duplicate.
    """

    pairs: np.ndarray
    exact: np.ndarray
    difference: np.ndarray
    groups: np.ndarray


def find_duplicates(
    graph: SimilarityGraph, images: Any, *, progress: Progress = silent
) -> Duplicates:
    """Finds equal images by their bytes, and nearly equal ones among a node's neighbors.

    Two neighbors are nearly equal if their difference (of images shrunk to 32 pixels a side) is at
    most 0.25, and at most 0.4 times the median difference to the neighbors of each. Copies that
    were saved again as JPEG, made a little brighter or noisy are found. Copies that were moved by
    a pixel, turned or mirrored are not, nor more near copies of one image than half of a node's
    neighbors.

    Args:
        graph: N nodes; only joined nodes are compared, so copies must be neighbors in it.
        images: `[N, H, W, C]` uint8 (or vectors `[N, D]` of numbers, which are compared instead);
            of stored images 512 are read at a time.
        progress: Called as ``progress("comparing images", done, total)``.

    Raises:
        GraphError: If there is not one image for every node.
        DataError: If they are no such array.
    """
    if len(images) != graph.num_nodes:
        raise GraphError(
            "There must be one image for every node.",
            received=f"{len(images)} images, {graph.num_nodes} nodes",
        )
    rows, digests = _read(images, progress)
    equal = _equal_pairs(digests)
    near, difference = _near_pairs(graph, rows)
    pairs = np.concatenate([equal, near])
    keys = pairs[:, 0] * max(graph.num_nodes, 1) + pairs[:, 1]
    _, first = np.unique(keys, return_index=True)
    exact = np.arange(len(pairs)) < len(equal)
    difference = np.concatenate([np.zeros(len(equal)), difference])
    first = first[np.lexsort((keys[first], difference[first], ~exact[first]))]
    return Duplicates(
        pairs[first], exact[first], difference[first], _groups(pairs[first], graph.num_nodes)
    )


def _read(images: Any, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
    """`[N, D]` float32 rows without their mean, and `[N]` digests of the unshrunk images."""
    shape = tuple(getattr(images, "shape", ()))
    if len(shape) == 2:
        rows = as_matrix("images", images)
        digests = np.array([hashlib.sha256(row.tobytes()).digest() for row in rows], "S32")
        return rows, digests
    if len(shape) != 4 or images.dtype != np.uint8:
        raise DataError(
            "`images` must be uint8 of the shape [N, H, W, C], or vectors [N, D].",
            received=f"shape={shape}, dtype={getattr(images, 'dtype', None)}",
        )
    parts: list[np.ndarray] = []
    digests_found: list[bytes] = []
    for start in range(0, len(images), _CHUNK):
        block = np.asarray(images[start : start + _CHUNK])
        digests_found += [hashlib.sha256(image.tobytes()).digest() for image in block]
        parts.append(_shrunk(block))
        progress("comparing images", start + len(block), len(images))
    return np.concatenate(parts), np.array(digests_found, "V32")


def _shrunk(images: np.ndarray) -> np.ndarray:
    """`[B, D]` float32 rows without their means; D at most 32 x 32 x channels."""
    values: np.ndarray = images.astype(np.float32)
    for axis in (1, 2):
        step = -(-values.shape[axis] // _SIDE)
        starts = np.arange(0, values.shape[axis], step)
        widths = np.diff(np.append(starts, values.shape[axis])).astype(np.float32)
        sums = np.add.reduceat(values, starts, axis=axis)
        values = sums / np.expand_dims(widths, tuple({0, 1, 2, 3} - {axis}))
    rows = values.reshape(len(values), -1)
    return rows - rows.mean(axis=1, keepdims=True)


def _equal_pairs(digests: np.ndarray) -> np.ndarray:
    """`[P, 2]`: of each set of equal images, the first one with each of the others."""
    _, place = np.unique(digests, return_inverse=True)
    first = np.full(place.max(initial=-1) + 1, len(place), np.int64)
    np.minimum.at(first, place, np.arange(len(place)))
    others = np.flatnonzero(first[place] != np.arange(len(place)))
    return np.stack([first[place[others]], others], axis=1)


def _near_pairs(graph: SimilarityGraph, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`[P, 2]` pairs of neighbors that nearly agree, and `[P]` their differences."""
    sources, targets = graph.sources(), graph.indices.astype(np.int64)
    lengths = np.linalg.norm(rows, axis=1)
    absolute = np.empty(graph.num_edges)
    for start in range(0, graph.num_edges, _PAIRS):
        part = slice(start, start + _PAIRS)
        absolute[part] = np.linalg.norm(rows[sources[part]] - rows[targets[part]], axis=1)
    largest = np.maximum(lengths[sources], lengths[targets])
    relative = np.divide(absolute, largest, out=np.zeros_like(absolute), where=largest > 0)
    usual = _typical(absolute, graph)
    near = (relative <= _LARGEST) & (
        absolute <= _SHARE * np.minimum(usual[sources], usual[targets])
    )
    ends = np.sort(np.stack([sources[near], targets[near]], axis=1), axis=1)
    return ends, relative[near]


def _typical(absolute: np.ndarray, graph: SimilarityGraph) -> np.ndarray:
    """`[N]` the median difference to a node's neighbors; infinite with fewer than three."""
    found = np.full(graph.num_nodes, np.inf)
    order = np.lexsort((absolute, graph.sources()))
    degrees = graph.degrees()
    known = degrees >= 3
    found[known] = absolute[order][graph.indptr[:-1][known] + degrees[known] // 2]
    return found


def _groups(pairs: np.ndarray, n: int) -> np.ndarray:
    ones = np.ones(len(pairs), np.int8)
    matrix = sparse.csr_matrix((ones, (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    _, part = connected_components(matrix, directed=False)
    first = np.full(part.max(initial=-1) + 1, n, np.int64)
    np.minimum.at(first, part, np.arange(n))
    inside = np.zeros(n, bool)
    inside[pairs.ravel()] = True
    return np.where(inside, first[part], -1)
