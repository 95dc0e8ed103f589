"""Nearest neighbors among rows in shards.

A part of the work is a range of queries; it reads all rows, one chunk after the other, so that a
worker holds two chunks at a time. FAISS proposes candidates in each chunk; their distances are
computed pair by pair in float64, as `search.others` does, so the result does not depend on how rows
are divided. Shapes: Q queries, D width, K neighbors.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np

from tfgraphreg import storage
from tfgraphreg.distances import DISTANCES, Distance
from tfgraphreg.errors import GraphError
from tfgraphreg.search.index import LISTED_DISTANCES, build_index, empty_lists
from tfgraphreg.search.measured import Measured, unit_rows
from tfgraphreg.search.spaces import exact_space
from tfgraphreg.shards.store import RowShards

QUERIES = 8192
"""Queries of one part."""
_CHUNK_ROWS, _CHUNK_BYTES = 16_384, 32 << 20
_SPARE = 4  # candidates beyond k and the item itself
# By which a squared distance by FAISS in float32 may be wrong, at most: this share of it, and the
# third power of this of the squared length of a row.
_ROUNDING = 1e-4


@dataclasses.dataclass(frozen=True)
class Found:
    """The nearest rows of Q queries so far.

    Attributes:
        indices: `[Q, K]` int64 row numbers, nearest first, ties by number; -1 where there is none.
        distances: `[Q, K]` float64, infinite there.
        cosines: `[Q, K]` float64 cosine distances, which a weight may need.
    """

    indices: np.ndarray
    distances: np.ndarray
    cosines: np.ndarray

    @classmethod
    def nothing(cls, queries: int, k: int) -> Found:
        """No neighbor of any query."""
        far = np.full((queries, k), np.inf)
        return cls(np.full((queries, k), -1, np.int64), far, far.copy())

    def joined(self, other: Found, k: int) -> Found:
        """The k nearest of both."""
        pairs = [
            np.concatenate([getattr(self, f.name), getattr(other, f.name)], axis=1)
            for f in dataclasses.fields(self)
        ]
        order = np.lexsort((pairs[0], pairs[1]))[:, :k]
        return Found(*(np.take_along_axis(values, order, 1) for values in pairs))


Spans = tuple[tuple[int, int], ...]


def spans(count: int, size: int) -> Spans:
    """First row and last row + 1 of each part of at most `size` rows."""
    return tuple((first, min(first + size, count)) for first in range(0, count, size))


def chunk_rows(width: int) -> int:
    """Rows of width D that are searched at a time: 16,384, or 32 MiB of them if that is more."""
    return max(_CHUNK_ROWS, _CHUNK_BYTES // (4 * width))


def search_exactly(
    rows: RowShards, first: int, last: int, chunks: Spans, k: int, distance: Distance
) -> Found:
    """The k nearest others of a range of rows."""
    numbers = np.arange(first, last)
    return _exactly(rows, rows[numbers], numbers, chunks, k, distance)


def _exactly(
    rows: RowShards,
    queries: np.ndarray,
    numbers: np.ndarray,
    chunks: Spans,
    k: int,
    distance: Distance,
) -> Found:
    found = Found.nothing(len(numbers), k)
    for start, end in chunks:
        here = nearest_in_chunk(rows, start, end, queries, numbers, k, distance)
        found = found.joined(here, k)
    return found


def nearest_in_chunk(
    rows: RowShards,
    start: int,
    end: int,
    queries: np.ndarray,
    numbers: np.ndarray,
    k: int,
    distance: Distance,
) -> Found:
    """The k nearest of one chunk, exactly.

    Args:
        rows: `[N, D]` float32.
        start: First row of the chunk.
        end: Last row + 1.
        queries: `[Q, D]`.
        numbers: `[Q]` the queries' own row numbers, which are not found.
        k: K.
        distance: By which; see `check_distance`.
    """
    pair = _pair(queries, rows.range(start, end), distance)
    space = exact_space(pair)
    assert space is not None, "`check_distance` refuses others"
    index = build_index("exact", space.base[len(queries) :], space.metric)
    _, near = index.search(space.queries[: len(queries)], min(k + 1 + _SPARE, end - start))
    return _ranked(pair, numbers, near, start, k)


def check_distance(distance: Distance, *, listed: bool) -> None:
    """Refuses a distance by which parts cannot be searched alone.

    Args:
        distance: The record.
        listed: Whether inverted lists are wanted.

    Raises:
        GraphError: If the distance looks at all rows, FAISS does not know it, or it has no lists.
    """
    tiny = Measured(distance, np.full((2, 2), 0.5, np.float32))
    if distance.fit is not None or distance.linear is not None or exact_space(tiny) is None:
        raise GraphError(
            f"The distance {distance.name} cannot be searched part by part.",
            cure="Use cosine, euclidean, manhattan, histogram_intersection or kl, or the engine "
            "local.",
        )
    if listed and distance.name not in LISTED_DISTANCES:
        raise GraphError(
            f"There are no inverted lists for the distance {distance.name} on an engine.",
            cure="Use `graph_search=exact`, or the engine local.",
        )


@dataclasses.dataclass(frozen=True)
class _Assigned:
    """Q queries and the lists that each reads.

    Attributes:
        queries: `[Q, D]`.
        places: `[Q, D]` float32, see `Lists`.
        lists: `[Q, reach]` int64 numbers of lists, nearest first.
        distances: `[Q, reach]` float32 to their centers.
        spare: `[Q, 1]` by which squared distances of FAISS may differ where they are near zero.
    """

    queries: np.ndarray
    places: np.ndarray
    lists: np.ndarray
    distances: np.ndarray
    spare: np.ndarray


@dataclasses.dataclass(frozen=True)
class Lists:
    """Inverted lists over all rows, one FAISS file a chunk, with the same centers in each.

    Attributes:
        folder: Where the files lie.
        distance: cosine, euclidean or sqeuclidean, by name.
        center: `[D]` float32, subtracted from rows of Euclidean distances.
        chunks: Those of all rows.
    """

    folder: pathlib.Path
    distance: str
    center: np.ndarray
    chunks: Spans

    def train(self, sample: np.ndarray, count: int, *, seed: int) -> None:
        """Learns the centers of `count` lists from `[S, D]` rows, and writes them."""
        import faiss

        places = self._places(sample)
        width = places.shape[1]
        flat = faiss.IndexFlat(width, faiss.METRIC_L2)
        index = empty_lists(flat, width, count, faiss.METRIC_L2, seed=seed)
        index.train(places)
        self._write(index, "centers")

    def fill(self, rows: RowShards, start: int, end: int) -> None:
        """Assigns one chunk of rows to the lists."""
        index = self._read("centers")
        index.add_with_ids(self._places(rows.range(start, end)), np.arange(start, end))
        self._write(index, f"{start:012d}")

    def nearest_in_chunk(
        self,
        rows: RowShards,
        start: int,
        end: int,
        queries: np.ndarray,
        numbers: np.ndarray,
        k: int,
        reach: int,
    ) -> Found:
        """As the function of this name, reading `reach` lists for each query."""
        return self._in_chunk(rows, start, end, self._assigned(queries, reach), numbers, k)

    def search(self, rows: RowShards, first: int, last: int, k: int, reach: int) -> Found:
        """The k nearest others of a range of rows; exactly for whom the lists held too few."""
        numbers = np.arange(first, last)
        queries, found = rows[numbers], Found.nothing(len(numbers), k)
        # The lists to read are the same in every chunk.
        assigned = self._assigned(queries, reach)
        best = np.full((len(numbers), k + 1), np.inf, np.float32)
        for start, end in self.chunks:
            here = self._in_chunk(rows, start, end, assigned, numbers, k, best)
            found = found.joined(here, k)
        short = np.flatnonzero(found.indices[:, -1] < 0)
        if len(short):
            exact = _exactly(
                rows, queries[short], numbers[short], self.chunks, k, DISTANCES.get(self.distance)
            )
            for field in dataclasses.fields(found):
                getattr(found, field.name)[short] = getattr(exact, field.name)
        return found

    def _assigned(self, queries: np.ndarray, reach: int) -> _Assigned:
        places = self._places(queries)
        index = self._read("centers")  # Kept: its quantizer goes with it.
        distances, lists = index.quantizer.search(places, reach)
        spare = _ROUNDING**3 * (places**2).sum(1, keepdims=True)
        return _Assigned(queries, places, lists, distances, spare)

    def _in_chunk(
        self,
        rows: RowShards,
        start: int,
        end: int,
        asked: _Assigned,
        numbers: np.ndarray,
        k: int,
        best: np.ndarray | None = None,
    ) -> Found:
        """The k nearest of one chunk.

        Args:
            rows: `[N, D]`.
            start: First row of the chunk.
            end: Last row + 1.
            asked: The queries.
            numbers: `[Q]` their own row numbers.
            k: K.
            best: `[Q, K + 1]` smallest distances by FAISS in earlier chunks, the query's own among
                them; brought up to date. What is farther than these is left out.
        """
        index = self._read(f"{start:012d}")
        index.nprobe = asked.lists.shape[1]
        far, near = index.search_preassigned(
            asked.places, min(k + 1 + _SPARE, end - start), asked.lists, asked.distances
        )
        near = np.where(near < 0, -1, near - start)
        if best is not None:
            best[:] = np.sort(np.concatenate([best, far], axis=1), axis=1)[:, : k + 1]
            near[(far - asked.spare) / (1 + _ROUNDING) > best[:, -1:]] = -1
        pair = _pair(asked.queries, rows.range(start, end), DISTANCES.get(self.distance))
        return _ranked(pair, numbers, near, start, k)

    def _places(self, rows: np.ndarray) -> np.ndarray:
        """Vectors whose Euclidean order is that of the distance."""
        if self.distance == "cosine":
            return unit_rows(rows)
        return np.ascontiguousarray(rows - self.center, np.float32)

    def _write(self, index: Any, name: str) -> None:
        import faiss

        with storage.atomic_path(self.folder / f"lists-{name}.faiss") as part:
            part.write_bytes(faiss.serialize_index(index).tobytes())

    def _read(self, name: str) -> Any:
        import faiss

        content = (self.folder / f"lists-{name}.faiss").read_bytes()
        return faiss.deserialize_index(np.frombuffer(content, np.uint8))


def _pair(queries: np.ndarray, rows: np.ndarray, distance: Distance) -> Measured:
    """Queries and rows below each other, made ready for the distance."""
    return Measured.of(np.concatenate([queries, rows]), distance)


def _ranked(pair: Measured, numbers: np.ndarray, near: np.ndarray, start: int, k: int) -> Found:
    """The k best candidates of a chunk by exact distance, then by number, without the query.

    Args:
        pair: Of `_pair`.
        numbers: `[Q]` row numbers of the queries.
        near: `[Q, C]` candidates, counted from the chunk's first row; -1 for none.
        start: The chunk's first row.
        k: K.
    """
    others = (near >= 0) & (near + start != numbers[:, None])
    exact = np.full(near.shape, np.inf)
    exact[others] = pair.between(np.nonzero(others)[0], len(numbers) + near[others])
    order = np.lexsort((near, exact))[:, :k]
    distances = np.take_along_axis(exact, order, 1)
    indices = np.where(np.isfinite(distances), np.take_along_axis(near, order, 1) + start, -1)
    if pair.distance.name == "cosine" and not pair.distance.own:
        cosines = distances
    else:
        cosine = Measured(DISTANCES.get("cosine"), pair.features)
        owners = np.repeat(np.arange(len(numbers)), order.shape[1])
        targets = len(numbers) + np.maximum(indices - start, 0).ravel()
        cosines = cosine.between(owners, targets).reshape(indices.shape)
    return Found(indices, distances, np.where(indices < 0, np.inf, cosines))
