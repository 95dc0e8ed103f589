"""The one user of FAISS: exact search, inverted lists and HNSW, with measured recall.

Shapes: N rows, Q queries, D width, K results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tfgraphreg.distances import DISTANCES
from tfgraphreg.errors import ConfigError
from tfgraphreg.search.measured import unit_rows

if TYPE_CHECKING:
    import faiss

METHODS = ("exact", "ivf", "hnsw")
LISTED = ("METRIC_L2", "METRIC_INNER_PRODUCT")
"""FAISS metrics that inverted lists can keep."""
GOAL = 0.995
"""Share of the true neighbors, measured on a sample, at which inverted lists reach far enough."""
SAMPLE = 500
LISTED_DISTANCES = ("cosine", "euclidean", "sqeuclidean")
"""Distances whose neighbors inverted lists of Euclidean centers find."""

_ADDED = 65_536
_FIRST_LISTS = 8
TRAINING_ROWS = 64
"""Rows for each inverted list from which its center is learned, at most."""
_TRAINING_ROUNDS = 4
_DEPTH = 10  # at which an `Index` measures its recall
_METRICS = {
    "cosine": "METRIC_L2",
    "euclidean": "METRIC_L2",
    "sqeuclidean": "METRIC_L2",
    "manhattan": "METRIC_L1",
}


def build_index(
    method: str,
    rows: np.ndarray,
    metric: str,
    *,
    depth: int = _DEPTH,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> faiss.Index:
    """A FAISS index of `[N, D]` rows.

    Args:
        method: ``"exact"``; ``"ivf"``: about 2 sqrt(N) lists of rows around cluster centers, of
            which a search reads the nearest ones (Sivic and Zisserman, Video Google, ICCV 2003);
            ``"hnsw"`` (Malkov and Yashunin, 2018, arXiv:1603.09320).
        rows: `[N, D]` float32.
        metric: Name of a FAISS metric; inverted lists know those of `LISTED`.
        depth: Results that a search will ask for, at most.
        seed: Of the cluster centers.
        progress: Called with rows added and N.
    """
    import faiss

    (n, width), kind = rows.shape, getattr(faiss, metric)
    index: faiss.Index = faiss.IndexFlat(width, kind)
    if method == "hnsw":
        links = faiss.IndexHNSWFlat(width, 32, kind)
        links.hnsw.efConstruction = 80
        links.hnsw.efSearch = max(96, 3 * depth)
        index = links
    elif method == "ivf":
        count = list_count(n)
        lists = empty_lists(index, width, count, kind, seed=seed)
        if n:
            lists.train(rows)
        index = lists
    # Rows of an exact index are only copied, and copied again where it grows.
    step = max(n, 1) if method == "exact" else _ADDED
    for start in range(0, n, step):
        index.add(rows[start : start + step])
        if progress:
            progress(min(start + step, n), n)
    return index


def list_count(n: int) -> int:
    """The number of inverted lists for N rows: the power of two nearest to 2 sqrt(N)."""
    return 2 ** max(0, round(np.log2(2 * np.sqrt(max(n, 1)))))


def empty_lists(
    quantizer: faiss.Index, width: int, count: int, kind: int, *, seed: int
) -> faiss.IndexIVF:
    """Inverted lists of a width and FAISS metric, yet to be trained on 64 rows a list."""
    import faiss

    lists = faiss.IndexIVFFlat(quantizer, width, count, kind)
    lists.cp.niter = _TRAINING_ROUNDS
    lists.cp.max_points_per_centroid = TRAINING_ROWS
    lists.cp.min_points_per_centroid = 1
    lists.cp.seed = seed + 1
    return lists


def widen(index: faiss.IndexIVF, recall: Callable[[], float], *, limit: float = 1.0) -> bool:
    """Raises the number of lists that a search reads until `recall()` reaches `GOAL`.

    Args:
        index: Of the method ``"ivf"``.
        recall: Measures the recall of the index with its current settings.
        limit: Largest share of the lists that may be read.

    Returns:
        Whether it was reached.
    """
    most = max(min(_FIRST_LISTS, index.nlist), int(index.nlist * limit))
    index.nprobe = min(_FIRST_LISTS, most)
    while recall() < GOAL:
        if index.nprobe >= most:
            return False
        index.nprobe = min(index.nprobe * 3 // 2, most)
    return True


def found_share(mine: np.ndarray, truth: np.ndarray) -> float:
    """Share of true neighbors found, by distance; an item at the same distance counts as found.

    Args:
        mine: `[S, K]` float64 distances of what was found.
        truth: `[S, K]` float64 distances of the true neighbors, the farthest last.
    """
    return float(np.mean(mine <= truth[:, -1:] * (1 + 1e-9)))


class Index:
    """Rows that grow and can be searched by a distance that FAISS knows.

    Args:
        dim: D.
        method: See `build_index`. The lists of ``"ivf"`` are made of the rows added first.
        distance: One of ``Index.DISTANCES``.

    Attributes:
        recall: Share of the true ten nearest that a search finds: 1 if exact, else measured with
            a sample of the rows as queries.

    Raises:
        ConfigError: If an argument is none of these.
    """

    DISTANCES = tuple(_METRICS)

    def __init__(self, dim: int, *, method: str = "exact", distance: str = "cosine"):
        for name, value, known in (
            ("method", method, METHODS),
            ("distance", distance, self.DISTANCES),
        ):
            if value not in known:
                raise ConfigError(
                    f"`{name}` must be one of {', '.join(known)}.", received=repr(value)
                )
        if dim < 1:
            raise ConfigError("`dim` must be at least 1.", received=f"dim={dim}")
        if method == "ivf" and _METRICS[distance] not in LISTED:
            raise ConfigError(
                f"There are no inverted lists for the distance {distance}.",
                cure='Use method="hnsw" or "exact".',
            )
        self.dim, self.method, self.distance, self.recall = dim, method, distance, 1.0
        self._index = build_index(method, np.empty((0, self._width), np.float32), self._metric)

    def __len__(self) -> int:
        return self._index.ntotal

    @property
    def _metric(self) -> str:
        return _METRICS[self.distance]

    @property
    def _width(self) -> int:
        # Rows of cosine have a column more, see `unit_rows`.
        return self.dim + (self.distance == "cosine")

    def _rows(self, vectors: np.ndarray) -> np.ndarray:
        # Cosine is searched by L2 between unit rows (twice the cosine distance): FAISS breaks ties
        # of L2 by position, but those of inner products arbitrarily.
        return unit_rows(vectors) if self.distance == "cosine" else vectors

    def add(self, vectors: np.ndarray) -> None:
        """Adds `[N, D]` float32 vectors, and measures the recall anew."""
        import faiss

        rows = self._rows(vectors)
        if len(self) or self.method == "exact":
            self._index.add(rows)
        elif len(rows):
            self._index = index = build_index(self.method, rows, self._metric)
            if isinstance(index, faiss.IndexIVF):
                index.make_direct_map()
                widen(index, lambda: self._measured(seed=1))
        if self.method != "exact" and len(self):
            self.recall = self._measured(seed=0)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The `k` nearest rows of each query.

        Args:
            queries: `[Q, D]` float32.
            k: At least 1.

        Returns:
            `[Q, K]` float32 distances, nearest first, infinite where there is no row; and `[Q, K]`
            int64 positions, -1 there. Equal distances go by position.
        """
        values, positions = self._index.search(self._rows(queries), k)
        if self.distance == "cosine":
            values = np.maximum(values / 2, 0)
        elif self.distance == "euclidean":
            values = np.sqrt(np.maximum(values, 0))
        values = np.where(positions < 0, np.float32(np.inf), values)
        order = np.lexsort((positions, values))
        return np.take_along_axis(values, order, 1), np.take_along_axis(positions, order, 1)

    def vectors(self, positions: np.ndarray) -> np.ndarray:
        """`[K, D]` vectors at K positions; by cosine distance only their directions."""
        return np.asarray(self._index.reconstruct_batch(np.asarray(positions, np.int64)))[
            :, : self.dim
        ]

    def to_bytes(self) -> bytes:
        """The index as FAISS writes it."""
        import faiss

        return faiss.serialize_index(self._index).tobytes()

    def read_bytes(self, content: bytes) -> None:
        """Restores what `to_bytes` of an index with the same arguments returned.

        Raises:
            ValueError: If it is none of these.
        """
        import faiss

        try:
            index = faiss.deserialize_index(np.frombuffer(content, np.uint8))
        except RuntimeError as error:
            raise ValueError("FAISS cannot read it") from error
        kinds = {"exact": "IndexFlat", "ivf": "IndexIVFFlat", "hnsw": "IndexHNSWFlat"}
        fits = isinstance(index, getattr(faiss, kinds[self.method]))
        if not fits or (index.d, index.metric_type) != (self._index.d, self._index.metric_type):
            raise ValueError("it is another index")
        if isinstance(index, faiss.IndexIVF):
            index.make_direct_map()
        self._index = index

    def _measured(self, *, seed: int) -> float:
        k = min(_DEPTH, len(self))
        rows = np.asarray(self._index.reconstruct_n(0, len(self)))
        sample = np.random.default_rng(seed).permutation(len(self))[:SAMPLE]
        exact = build_index("exact", rows, self._metric)
        # Between rows of length one, Euclid's order is the order of cosine distance.
        distance = DISTANCES.get("manhattan" if self._metric == "METRIC_L1" else "sqeuclidean")

        def far(index: faiss.Index) -> np.ndarray:
            _, found = index.search(rows[sample], k)
            values = distance.array(rows[np.repeat(sample, k)], rows[found.ravel()])
            # Rows that an approximate search did not find.
            return np.sort(np.where(found < 0, np.inf, values.reshape(found.shape)), axis=1)

        return found_share(far(self._index), far(exact))
