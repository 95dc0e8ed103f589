"""The linear systems of label propagation: a symmetric sparse graph and conjugate gradients.

Shapes: N nodes, K columns that are solved together.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from tfgraphreg.errors import GraphError
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.progress import Progress


@dataclasses.dataclass(frozen=True, eq=False)
class System:
    """A graph as propagation needs it.

    Attributes:
        weights: `[N, N]` symmetric CSR of float64, without a diagonal and without zeros.
        degrees: `[N]` float64: the sum of each row of `weights`.
        component: `[N]` integers: which connected component a node is in.
        num_components: How many there are.
    """

    weights: sparse.csr_matrix
    degrees: np.ndarray
    component: np.ndarray
    num_components: int

    @classmethod
    def of(cls, graph: SimilarityGraph) -> System:
        """Every edge of `graph` in both directions, at the larger of its two weights."""
        directed = graph.to_scipy().astype(np.float64)
        return cls.of_weights(directed.maximum(directed.T).tocsr())

    @classmethod
    def of_weights(cls, weights: sparse.csr_matrix) -> System:
        """The system of a symmetric `[N, N]` matrix."""
        weights.eliminate_zeros()
        weights.sort_indices()
        count, component = connected_components(weights, directed=False)
        return cls(weights, np.asarray(weights.sum(axis=1)).ravel(), component, count)

    @property
    def num_nodes(self) -> int:
        """N."""
        return len(self.degrees)

    def laplacian(self) -> sparse.csr_matrix:
        """D - W, `[N, N]`."""
        return (sparse.diags(self.degrees) - self.weights).tocsr()

    def normalized(self) -> tuple[sparse.csr_matrix, np.ndarray]:
        """S = D^-1/2 W D^-1/2 `[N, N]`, and the diagonal of D^-1/2 `[N]` (0 at isolated nodes)."""
        root = np.zeros(self.num_nodes)
        np.power(self.degrees, -0.5, where=self.degrees > 0, out=root)
        scale = sparse.diags(root)
        return (scale @ self.weights @ scale).tocsr(), root

    def balanced(self, columns: np.ndarray, share: np.ndarray | None = None) -> np.ndarray:
        """`columns` `[N, K]` less a multiple of `share` `[N]`, so that each component sums to 0.

        L x = b has a solution only if b sums to 0 over every component. By default every node has
        the same share.
        """
        share = np.ones(self.num_nodes) if share is None else share
        totals = np.zeros((self.num_components, columns.shape[1]))
        np.add.at(totals, self.component, columns)
        whole = np.bincount(self.component, share, self.num_components)
        ratio = np.divide(share, whole[self.component], out=np.zeros(len(share)), where=share > 0)
        return columns - ratio[:, None] * totals[self.component]


def solve(
    matrix: sparse.csr_matrix,
    right: np.ndarray,
    *,
    tolerance: float,
    max_iterations: int,
    progress: Progress | None = None,
) -> np.ndarray:
    """Solves `matrix` @ x = `right` by conjugate gradients, preconditioned by the diagonal.

    Each product with the matrix covers all columns; each column has its own step lengths.

    Args:
        matrix: `[N, N]` symmetric, positive definite or positive semidefinite with `right` in its
            range.
        right: `[N, K]` float64.
        tolerance: A column is solved when the length of its residual is at most this times that
            of its right-hand side, both in the preconditioned norm.
        max_iterations: Products with the matrix.
        progress: Called as ``progress(what, iterations done, max_iterations)``.

    Returns:
        `[N, K]` x.

    Raises:
        GraphError: If a column did not reach the tolerance.
    """
    diagonal = matrix.diagonal()
    inverse = np.divide(1.0, diagonal, out=np.zeros_like(diagonal), where=diagonal > 0)[:, None]
    x, residual = np.zeros_like(right), right.copy()
    scaled = inverse * residual
    direction = scaled.copy()
    size = np.einsum("ij,ij->j", residual, scaled)
    goal = tolerance**2 * size
    for done in range(max_iterations):
        if (size <= goal).all():
            return x
        product = matrix @ direction
        curvature = np.einsum("ij,ij->j", direction, product)
        # A solved column no longer changes.
        moving = (size > goal) & (curvature > 0)
        step = np.divide(size, curvature, out=np.zeros_like(size), where=moving)
        x += step * direction
        residual -= step * product
        np.multiply(inverse, residual, out=scaled)
        before, size = size, np.einsum("ij,ij->j", residual, scaled)
        direction *= np.divide(size, before, out=np.zeros_like(size), where=before > 0)
        direction += scaled
        if progress and done % 10 == 0:
            progress("solving", done, max_iterations)
    if (size <= goal).all():
        return x
    reached = float(np.sqrt((size / np.where(goal > 0, goal / tolerance**2, 1)).max()))
    raise GraphError(
        "The labels could not be propagated to the tolerance asked for.",
        received=f"a residual of {reached:.1e} after {max_iterations} iterations, "
        f"tolerance={tolerance:g}",
        cure="Raise `max_iterations` or `tolerance`, or use a graph with less uneven weights.",
    )
