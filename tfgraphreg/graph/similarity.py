"""The value that the graph room hands on: who is similar to whom, and how much.

Shapes: N nodes, E directed edges, K neighbors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfgraphreg.errors import GraphError


@dataclasses.dataclass(frozen=True, eq=False)
class SimilarityGraph:
    """A weighted directed graph in compressed sparse rows.

    The out-neighbors of node i are ``indices[indptr[i]:indptr[i + 1]]``, each one once and never
    i itself.

    Attributes:
        indptr: `[N + 1]` int64.
        indices: `[E]` int32, or int64 beyond 2 billion nodes.
        weights: `[E]` float32, finite, at least 0.
        num_nodes: N.
        about: Plain values that say how the graph was made, such as its metric and recall.

    Raises:
        GraphError: If any of this does not hold.
    """

    indptr: np.ndarray
    indices: np.ndarray
    weights: np.ndarray
    num_nodes: int
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        width = np.int32 if self.num_nodes < 2**31 else np.int64
        set_ = object.__setattr__
        set_(self, "num_nodes", int(self.num_nodes))
        set_(self, "indptr", np.ascontiguousarray(self.indptr, np.int64))
        set_(self, "indices", np.ascontiguousarray(self.indices))
        set_(self, "weights", np.ascontiguousarray(self.weights, np.float32))
        self._check_rows()
        self._check_indices()
        self._check_weights()
        set_(self, "indices", np.ascontiguousarray(self.indices, width))

    def _check_rows(self) -> None:
        if self.indptr.shape != (self.num_nodes + 1,):
            raise GraphError(
                "`indptr` must have one entry more than there are nodes.",
                received=f"shape={self.indptr.shape}, num_nodes={self.num_nodes}",
            )
        if self.indptr[0] != 0 or (np.diff(self.indptr) < 0).any():
            raise GraphError("`indptr` must start at 0 and never decrease.")
        if not self.indices.shape == self.weights.shape == (int(self.indptr[-1]),):
            raise GraphError(
                "`indices` and `weights` must have the length that `indptr` ends with.",
                received=f"{len(self.indices)}, {len(self.weights)} and {int(self.indptr[-1])}",
            )

    def _check_indices(self) -> None:
        if not len(self.indices):
            return
        if self.indices.dtype.kind not in "iu":
            raise GraphError("`indices` must be integers.", received=str(self.indices.dtype))
        low, high = int(self.indices.min()), int(self.indices.max())
        if low < 0 or high >= self.num_nodes:
            raise GraphError(
                "Neighbors must be node numbers from 0 to num_nodes - 1.",
                received=f"{low} to {high}, num_nodes={self.num_nodes}",
            )
        sources = self.sources()
        loops = sources == self.indices
        if loops.any():
            raise GraphError(
                "A node must not be its own neighbor.",
                received=f"{int(loops.sum())} self loops, the first at node "
                f"{int(sources[np.argmax(loops)])}",
            )
        keys = sources * self.num_nodes + self.indices
        if (np.diff(keys) <= 0).any():
            keys.sort()
            same = keys[1:] == keys[:-1]
            if same.any():
                first = int(keys[np.argmax(same)])
                raise GraphError(
                    "An edge may be listed only once.",
                    received=f"{first // self.num_nodes} -> {first % self.num_nodes} twice",
                    cure="Use SimilarityGraph.from_edges, which keeps the larger weight.",
                )

    def _check_weights(self) -> None:
        bad = ~(np.isfinite(self.weights) & (self.weights >= 0))
        if bad.any():
            raise GraphError(
                "Edge weights must be finite and at least 0.",
                received=f"{self.weights[np.argmax(bad)]} at edge {int(np.argmax(bad))}",
            )

    @classmethod
    def from_edges(
        cls,
        sources: np.ndarray,
        targets: np.ndarray,
        weights: np.ndarray,
        num_nodes: int,
        *,
        about: Mapping[str, Any] | None = None,
    ) -> SimilarityGraph:
        """A graph of E edges in any order; of an edge given twice the larger weight is kept."""
        sources, targets = np.asarray(sources, np.int64), np.asarray(targets, np.int64)
        weights = np.asarray(weights, np.float32)
        for name, nodes in (("sources", sources), ("targets", targets)):
            if len(nodes) and not (nodes.min() >= 0 and nodes.max() < num_nodes):
                raise GraphError(
                    f"`{name}` must be node numbers from 0 to num_nodes - 1.",
                    received=f"{nodes.min()} to {nodes.max()}, num_nodes={num_nodes}",
                )
        keys = sources * num_nodes + targets
        order = np.argsort(keys, kind="stable")
        keys, weights = keys[order], weights[order]
        first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])[: len(keys)])
        if len(first) < len(keys):
            weights = np.maximum.reduceat(weights, first)
            keys = keys[first]
        indptr = np.zeros(num_nodes + 1, np.int64)
        np.cumsum(np.bincount(keys // max(num_nodes, 1), minlength=num_nodes), out=indptr[1:])
        return cls(indptr, keys % max(num_nodes, 1), weights, num_nodes, about or {})

    @property
    def num_edges(self) -> int:
        """E, the number of directed edges."""
        return len(self.indices)

    def degrees(self) -> np.ndarray:
        """`[N]` int64: out-neighbors of each node."""
        return np.diff(self.indptr)

    def in_degrees(self) -> np.ndarray:
        """`[N]` int64: how many nodes have this one as a neighbor."""
        return np.bincount(self.indices, minlength=self.num_nodes)

    def sources(self) -> np.ndarray:
        """`[E]` int64: the node each edge leaves."""
        return np.repeat(np.arange(self.num_nodes), self.degrees())

    def neighbors(self, node: int) -> tuple[np.ndarray, np.ndarray]:
        """Out-neighbors of `node` and the weights of these edges, in stored order."""
        if not 0 <= node < self.num_nodes:
            raise GraphError(
                "`node` must be a node number from 0 to num_nodes - 1.",
                received=f"node={node}, num_nodes={self.num_nodes}",
            )
        row = slice(self.indptr[node], self.indptr[node + 1])
        return self.indices[row], self.weights[row]

    def to_scipy(self):
        """The `[N, N]` scipy.sparse.csr_matrix of weights; row i holds the edges out of node i."""
        from scipy import sparse

        arrays = (self.weights, self.indices, self.indptr)
        return sparse.csr_matrix(arrays, shape=(self.num_nodes, self.num_nodes), copy=True)

    def top(self, k: int, ids: Sequence[str] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The `k` heaviest out-neighbors of every node, as `nsl.tools.pack_nbrs` chooses them.

        Args:
            k: At least 1.
            ids: `[N]` strings. Of two edges with equal weight the one to the larger id, compared
                as a string, comes first; without ids the one to the larger node number.

        Returns:
            `[N, k]` int64 node numbers, -1 where a node has fewer neighbors, and `[N, k]` float32
            weights, 0 there; by decreasing weight.
        """
        if k < 1:
            raise GraphError("`k` must be at least 1.", received=f"k={k}")
        if ids is not None and len(ids) != self.num_nodes:
            raise GraphError(
                "There must be one id for every node.",
                received=f"{len(ids)} ids, {self.num_nodes} nodes",
            )
        rank = np.arange(self.num_nodes)
        if ids is not None:
            rank[np.argsort(np.asarray(ids, dtype=str), kind="stable")] = np.arange(self.num_nodes)
        sources = self.sources()
        order = np.lexsort((-rank[self.indices], -self.weights, sources))
        place = np.arange(self.num_edges) - self.indptr[sources]
        kept = place < k
        indices = np.full((self.num_nodes, k), -1, np.int64)
        weights = np.zeros((self.num_nodes, k), np.float32)
        where = (sources[kept], place[kept])
        indices[where] = self.indices[order[kept]]
        weights[where] = self.weights[order[kept]]
        return indices, weights

    def symmetrized(self) -> SimilarityGraph:
        """With every edge in both directions, at the larger of the two weights."""
        sources = self.sources()
        return SimilarityGraph.from_edges(
            np.concatenate([sources, self.indices]),
            np.concatenate([self.indices, sources]),
            np.concatenate([self.weights, self.weights]),
            self.num_nodes,
            about={**self.about, "symmetrized": True},
        )
