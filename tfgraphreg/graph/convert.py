"""Edges out of other libraries' graphs and tables, as three arrays.

Shapes: N nodes, E directed edges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from tfgraphreg.errors import GraphError, did_you_mean

if TYPE_CHECKING:
    import networkx
    from scipy import sparse


Ids: TypeAlias = "Sequence[str] | np.ndarray"
"""`[N]` strings, each once."""

_MOST_GUESSED = 10_000_000  # nodes; more need one edge end for every 100 nodes


class Edges(NamedTuple):
    """E edges and the number of nodes that they join.

    Attributes:
        sources: `[E]` int64 node numbers.
        targets: `[E]` int64 node numbers.
        weights: `[E]` float32.
        num_nodes: N.
    """

    sources: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    num_nodes: int


def node_numbers(name: str, values: Any, num_nodes: int) -> np.ndarray:
    """`values` as `[E]` int64 node numbers.

    Raises:
        GraphError: If they are not whole numbers from 0 to `num_nodes` - 1.
    """
    values = np.asarray(values)
    if not values.size:
        return np.zeros(0, np.int64)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise GraphError(
            f"`{name}` must be one array of whole node numbers.",
            received=f"shape={values.shape}, dtype={values.dtype}",
            cure="Give `ids` if the nodes have names." if values.dtype.kind in "OSUT" else None,
        )
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= num_nodes:
        raise GraphError(
            f"`{name}` must be node numbers from 0 to num_nodes - 1.",
            received=f"{low} to {high}, num_nodes={num_nodes}",
        )
    return values.astype(np.int64)


def edge_weights_of(values: Any, count: int) -> np.ndarray:
    """`values` as `[E]` float32 weights; None gives ones.

    Raises:
        GraphError: If there is not one number for each of `count` edges.
    """
    if values is None:
        return np.ones(count, np.float32)
    values = np.asarray(values)
    if values.size == count == 0:
        return np.zeros(0, np.float32)
    if values.shape != (count,) or values.dtype.kind not in "iuf":
        raise GraphError(
            "`weights` must be one number for each edge.",
            received=f"shape={values.shape}, dtype={values.dtype}, {count} edges",
        )
    # A weight beyond float32 becomes infinite here, and the graph refuses it by name.
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def from_pairs(edges: Any, weights: Any, num_nodes: int | None) -> Edges:
    """Edges of an `[E, 2]` array of (source, target) and `[E]` weights."""
    edges = np.asarray(edges)
    if not edges.size:
        edges = np.zeros((0, 2), np.int64)
    if edges.ndim != 2 or edges.shape[1] != 2:
        raise GraphError(
            "`edges` must have the shape [E, 2]: a row is (source, target).",
            received=f"shape={edges.shape}",
            cure="Use edges.T." if edges.ndim == 2 and len(edges) == 2 else None,
        )
    if num_nodes is None:
        num_nodes = _largest([edges])
    return Edges(
        node_numbers("edges[:, 0]", edges[:, 0], num_nodes),
        node_numbers("edges[:, 1]", edges[:, 1], num_nodes),
        edge_weights_of(weights, len(edges)),
        num_nodes,
    )


def from_matrix(matrix: sparse.spmatrix | sparse.sparray | np.ndarray) -> Edges:
    """Edges of an `[N, N]` matrix; what it stores is an edge, except for zeros on the diagonal."""
    from scipy import sparse

    if not sparse.issparse(matrix):
        raise GraphError(
            "`matrix` must be a scipy.sparse matrix or array.",
            received=type(matrix).__name__,
            cure="Wrap a dense one: scipy.sparse.csr_array(matrix).",
        )
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise GraphError("`matrix` must be square.", received=f"shape={matrix.shape}")
    # Duplicate entries are added up, as in SciPy.
    rows = sparse.csr_matrix(matrix, copy=True)
    rows.sum_duplicates()
    count = rows.shape[0]
    found = rows.tocoo()
    sources, targets, weights = found.row, found.col, found.data
    if weights.dtype.kind == "b":
        weights = weights.astype(np.float32)
    kept = (sources != targets) | (weights != 0)
    return Edges(
        sources[kept].astype(np.int64),
        targets[kept].astype(np.int64),
        edge_weights_of(weights[kept], int(kept.sum())),
        count,
    )


def from_columns(
    table: Any,
    ids: Ids | None,
    num_nodes: int | None,
    names: tuple[str, str, str | None],
) -> Edges:
    """Edges of the columns `names` (source, target, weight) of a table."""
    source, target = (_column(table, name) for name in names[:2])
    weights = None if names[2] is None else _column(table, names[2])
    if ids is not None:
        if num_nodes not in (None, len(ids)):
            raise GraphError(
                "`num_nodes` must be the number of `ids`.",
                received=f"num_nodes={num_nodes}, {len(ids)} ids",
            )
        number = numbers_of(ids)
        source, target = (_by_id(values, number) for values in (source, target))
        num_nodes = len(ids)
    if num_nodes is None:
        num_nodes = _largest([source, target])
    return Edges(
        node_numbers(names[0], source, num_nodes),
        node_numbers(names[1], target, num_nodes),
        edge_weights_of(weights, len(source)),
        num_nodes,
    )


def from_networkx_graph(
    graph: networkx.Graph, ids: Sequence[Any] | None, weight: str | None
) -> Edges:
    """Edges of a networkx graph, an undirected one in both directions."""
    number = numbers_of(list(graph.nodes) if ids is None else ids)
    missing = [node for node in graph.nodes if node not in number]
    if missing:
        raise _unknown(missing[0], number)
    found = list(graph.edges(data=weight, default=1.0) if weight else graph.edges())
    sources = np.array([number[edge[0]] for edge in found], np.int64)
    targets = np.array([number[edge[1]] for edge in found], np.int64)
    weights = np.array([edge[2] for edge in found]) if weight else None
    values = edge_weights_of(weights, len(found))
    if not graph.is_directed():
        sources, targets = np.append(sources, targets), np.append(targets, sources)
        values = np.append(values, values)
    return Edges(sources, targets, values, len(number))


def numbers_of(ids: Sequence[Any] | np.ndarray) -> dict[Any, int]:
    """The node number of each id.

    Raises:
        GraphError: If an id occurs twice.
    """
    names = ids.tolist() if isinstance(ids, np.ndarray) else ids
    number = {name: i for i, name in enumerate(names)}
    if len(number) != len(names):
        raise GraphError(
            "Every item needs an id of its own.",
            received=f"{len(names)} items with {len(number)} different ids",
        )
    return number


def names_of(ids: Ids | None, num_nodes: int) -> np.ndarray:
    """`[N]` what each node is called: its id, or its number where `ids` is None.

    Raises:
        GraphError: If there is not one id for every node.
    """
    if ids is None:
        return np.arange(num_nodes)
    if len(ids) != num_nodes:
        raise GraphError(
            "There must be one id for every node.",
            received=f"{len(ids)} ids, {num_nodes} nodes",
        )
    return np.asarray(ids)


def _column(table: Any, name: str) -> np.ndarray:
    if isinstance(table, Mapping):
        known = list(table)
    else:
        known = list(getattr(table, "column_names", getattr(table, "columns", [])))
    if name not in known:
        raise GraphError(
            f"The table has no column {name!r}.",
            received=f"columns {', '.join(map(str, known))}" if known else type(table).__name__,
            cure=did_you_mean(name, [str(column) for column in known])
            or "Name the columns by source=, target= and weight= (weight=None: all edges weigh 1).",
        )
    column = table[name]
    values = column.to_numpy() if hasattr(column, "to_numpy") else np.asarray(column)
    return np.asarray(values)


def _by_id(values: np.ndarray, number: Mapping[Any, int]) -> np.ndarray:
    found = [number.get(name, -1) for name in values.tolist()]
    if -1 in found:
        raise _unknown(values.tolist()[found.index(-1)], number)
    return np.array(found, np.int64)


def _unknown(name: Any, number: Mapping[Any, int]) -> GraphError:
    return GraphError(
        "An edge names a node that is not among the ids.",
        received=repr(name)[:120],
        cure=did_you_mean(str(name)[:120], [str(known) for known in number]),
    )


def _largest(ends: Sequence[np.ndarray]) -> int:
    """The largest node number plus one."""
    numbers = [v for v in ends if v.size and v.dtype.kind in "iu"]
    count = max((int(v.max()) for v in numbers), default=-1) + 1
    if count > _MOST_GUESSED and count > 100 * sum(v.size for v in numbers):
        raise GraphError(
            "These node numbers would make a graph of almost nothing but isolated nodes.",
            received=f"a largest node number of {count - 1}",
            cure="Give `num_nodes`, or `ids` if these are names.",
        )
    return count
