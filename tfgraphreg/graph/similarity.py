"""The value that all users of graphs share: which nodes are similar, and how much.

Shapes: N nodes, E directed edges, K neighbors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfgraphreg.errors import GraphError
from tfgraphreg.graph import convert

if TYPE_CHECKING:
    import networkx
    import pyarrow
    from scipy import sparse


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
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
        weights = convert.edge_weights_of(self.weights, np.size(self.weights))
        set_(self, "weights", np.ascontiguousarray(weights))
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
                cure="Leave them out: edges[edges[:, 0] != edges[:, 1]], or matrix.setdiag(0).",
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
        """A graph of E edges in any order; of an edge given twice the larger weight is kept.

        Args:
            sources: `[E]` node numbers, the node each edge leaves.
            targets: `[E]` node numbers.
            weights: `[E]` finite numbers, at least 0.
            num_nodes: N.
            about: How the graph was made, if that is known.

        Raises:
            GraphError: If a node number, a weight or a length is wrong.
        """
        sources = convert.node_numbers("sources", sources, num_nodes)
        targets = convert.node_numbers("targets", targets, num_nodes)
        weights = convert.edge_weights_of(weights, len(sources))
        if len(targets) != len(sources):
            raise GraphError(
                "Every edge needs a source and a target.",
                received=f"{len(sources)} sources, {len(targets)} targets",
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

    @classmethod
    def from_pairs(
        cls, edges: np.ndarray, weights: np.ndarray | None = None, *, num_nodes: int | None = None
    ) -> SimilarityGraph:
        """A graph of an array of edges and one of weights.

        >>> SimilarityGraph.from_pairs([[0, 1], [1, 2]], [0.5, 1.0], num_nodes=4)
        SimilarityGraph(4 nodes, 2 edges)

        Args:
            edges: `[E, 2]` node numbers; a row is (source, target). Of an edge given twice the
                larger weight is kept.
            weights: `[E]` finite numbers, at least 0; all 1 if not given.
            num_nodes: N; the largest node number plus one if not given.

        Raises:
            GraphError: If a shape, a node number or a weight is wrong, or an edge is a self loop.
        """
        return cls.from_edges(*convert.from_pairs(edges, weights, num_nodes))

    @classmethod
    def from_scipy(cls, matrix: sparse.spmatrix | sparse.sparray) -> SimilarityGraph:
        """A graph of a sparse `[N, N]` matrix of weights; row i holds the edges out of node i.

        A stored zero is an edge of weight 0; on the diagonal it is ignored.

        Raises:
            GraphError: If the matrix is not sparse and square, holds a self loop, or a weight is
                negative or not finite.
        """
        return cls.from_edges(*convert.from_matrix(matrix))

    @classmethod
    def from_table(
        cls,
        table: Any,
        *,
        ids: convert.Ids | None = None,
        num_nodes: int | None = None,
        source: str = "source",
        target: str = "target",
        weight: str | None = "weight",
    ) -> SimilarityGraph:
        """A graph of a table with one edge in a row.

        >>> table = {"source": ["cat", "dog"], "target": ["dog", "emu"], "weight": [0.5, 1.0]}
        >>> SimilarityGraph.from_table(table, ids=["cat", "dog", "emu"])
        SimilarityGraph(3 nodes, 2 edges)

        Args:
            table: A pandas or polars data frame, a pyarrow table, or a dictionary of columns.
            ids: `[N]` what the table calls the nodes; node i is ``ids[i]``. If not given, the
                table holds node numbers.
            num_nodes: N, where `ids` is not given; else the largest node number plus one.
            source: Column of the node that an edge leaves.
            target: Column of the node that it points to.
            weight: Column of its weight; None: all edges weigh 1.

        Raises:
            GraphError: If a column is missing or wrong, a node is unknown, or an edge is a self
                loop.
        """
        names = (source, target, weight)
        return cls.from_edges(*convert.from_columns(table, ids, num_nodes, names))

    @classmethod
    def from_networkx(
        cls,
        graph: networkx.Graph,
        *,
        ids: Sequence[Any] | None = None,
        weight: str | None = "weight",
    ) -> SimilarityGraph:
        """A graph of a networkx graph; each edge of an undirected one goes in both directions.

        Args:
            graph: Its edges without the attribute `weight` weigh 1, as networkx has it. Of
                parallel edges the largest weight is kept.
            ids: `[N]` its nodes in the order of their numbers here; ``list(graph.nodes)`` if not
                given. Ids that it lacks become nodes without edges.
            weight: Attribute with the weight; None: all edges weigh 1.

        Raises:
            GraphError: If a node is not among `ids`, or an edge is wrong.
        """
        return cls.from_edges(*convert.from_networkx_graph(graph, ids, weight))

    def __repr__(self) -> str:
        """N, E, and how the graph was made, in a line."""
        words = [f"{self.num_nodes:,} nodes", f"{self.num_edges:,} edges"]
        words += [
            str(self.about[name]) if name == "kind" else f"{name}={self.about[name]}"
            for name in ("kind", "k", "metric")
            if name in self.about
        ]
        return f"SimilarityGraph({', '.join(words)})"

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

    def to_scipy(self) -> sparse.csr_matrix:
        """The `[N, N]` scipy.sparse.csr_matrix of weights; row i holds the edges out of node i."""
        from scipy import sparse

        arrays = (self.weights, self.indices, self.indptr)
        return sparse.csr_matrix(arrays, shape=(self.num_nodes, self.num_nodes), copy=True)

    def to_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """`[E, 2]` int64 rows of (source, target), and `[E]` float32 weights."""
        return np.stack([self.sources(), self.indices.astype(np.int64)], axis=1), self.weights

    def to_table(self, ids: convert.Ids | None = None) -> pyarrow.Table:
        """A pyarrow table with the columns source, target and weight; `.to_pandas()` is on it.

        Args:
            ids: `[N]` what to call the nodes; their numbers if not given.

        Raises:
            GraphError: If there is not one id for every node.
        """
        import pyarrow

        names = convert.names_of(ids, self.num_nodes)
        columns = {"source": names[self.sources()], "target": names[self.indices]}
        return pyarrow.table({**columns, "weight": self.weights})

    def to_networkx(self, ids: convert.Ids | None = None) -> networkx.DiGraph:
        """A directed networkx graph with the edge attribute weight.

        Args:
            ids: `[N]` what to call the nodes; their numbers if not given.

        Raises:
            GraphError: If there is not one id for every node.
        """
        import networkx

        names = convert.names_of(ids, self.num_nodes).tolist()
        made = networkx.DiGraph()
        made.add_nodes_from(names)
        edges, weights = self.to_pairs()
        ends = ((names[i], names[j]) for i, j in edges.tolist())
        made.add_weighted_edges_from((i, j, w) for (i, j), w in zip(ends, weights.tolist()))
        return made

    def top(self, k: int, ids: convert.Ids | None = None) -> tuple[np.ndarray, np.ndarray]:
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
        if ids is not None:
            convert.names_of(ids, self.num_nodes)
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
