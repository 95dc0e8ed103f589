"""Two and three dimensions by Minimum-Distortion Embedding, PyMDE (extra `mde`).

Agrawal, Ali and Boyd 2021, "Minimum-Distortion Embedding". Shapes: N items, P pairs, A anchors,
M dimensions of the picture (2 or 3).
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from tfgraphreg.errors import ConfigError, DataError, MissingExtraError
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.search.measured import as_matrix

if TYPE_CHECKING:
    import torch

VARIANTS = ("neighbors", "standardized", "quadratic")


@dataclasses.dataclass(frozen=True)
class Layout:
    """A picture of N items.

    Attributes:
        points: `[N, M]` float32.
        pairs: `[P, 2]` int64: the pairs of items that the picture was asked to keep near.
        distortions: `[P]` float64: how badly it does so, 0 being perfect.
        average: Mean distortion over all pairs, those to be kept apart included: what was
            minimized.
    """

    points: np.ndarray
    pairs: np.ndarray
    distortions: np.ndarray
    average: float

    def worst_pairs(self, count: int = 16) -> tuple[np.ndarray, np.ndarray]:
        """The pairs of highest distortion, `[count, 2]`, and their distortions, worst first."""
        order = np.argsort(-self.distortions, kind="stable")[:count]
        return self.pairs[order], self.distortions[order]


def layout(
    data: np.ndarray | SimilarityGraph,
    *,
    dim: int = 2,
    variant: str = "neighbors",
    neighbors: int | None = None,
    anchors: np.ndarray | None = None,
    anchor_points: np.ndarray | None = None,
    seed: int = 0,
    device: str = "cpu",
    max_iterations: int = 300,
    progress: Callable[[int, int], None] | None = None,
) -> Layout:
    """Places items so that neighbors are near each other and others are not.

    The variants:
      - `neighbors`: PyMDE's preserve_neighbors; attraction grows with the logarithm of the
        distance, sampled pairs that are no neighbors repel each other.
      - `standardized`: the same with mean 0 and covariance 1, so that dimensions are
        uncorrelated and pictures comparable in scale.
      - `quadratic`: squared distances of neighbors only, with mean 0 and covariance 1; from a
        random start (the spectral or Laplacian embedding is its exact solution).

    Args:
        data: `[N, D]` features, whose Euclidean neighbors are computed; or a graph, whose
            edges are used as they are, its weights included. An edge in one direction is
            enough.
        dim: M, 2 or 3.
        variant: One of `VARIANTS`.
        neighbors: Of each item, if `data` are features; PyMDE chooses if None.
        anchors: `[A]` items that stay where they are; only with `neighbors`. To place new
            items among old ones, give both in `data` and the old ones here.
        anchor_points: `[A, M]` where the anchors are.
        seed: Same seed, same picture on a CPU.
        device: Of PyTorch.
        max_iterations: At most so many.
        progress: Called with (iterations done, `max_iterations`), about once an iteration.

    Raises:
        MissingExtraError: If pymde is not installed.
        ConfigError: If an argument, or a combination, is none of these.
        DataError: If there are no pairs to keep, or the anchors do not fit.
    """
    _check(data, dim, variant, neighbors, anchors)
    pymde = load_pymde()
    import torch

    with torch.random.fork_rng(devices=[]), _numpy_seed(seed):
        pymde.seed(seed)
        items, edges, weights = _edges(pymde, data, neighbors)
        constraint = _constraint(pymde, variant, items, dim, anchors, anchor_points)
        problem = _problem(pymde, variant, items, dim, edges, weights, constraint, device, seed)
        start = _start(pymde, problem, variant, constraint, seed)
        with _told(problem.distortion_function, max_iterations, progress):
            points = problem.embed(X=start, max_iter=max_iterations, verbose=False)
        with torch.no_grad():
            distortions = problem.distortions(points).cpu().numpy().astype(np.float64)
            average = float(problem.average_distortion(points))
    # Attracting pairs come first; repelling ones have no meaningful zero.
    kept = int((problem.distortion_function.weights > 0).sum()) if variant != "quadratic" else None
    pairs = problem.edges.cpu().numpy().astype(np.int64)
    return Layout(points.cpu().numpy(), pairs[:kept], distortions[:kept], average)


def load_pymde() -> types.ModuleType:
    """Returns PyMDE.

    Raises:
        MissingExtraError: If it is not installed.
    """
    if importlib.util.find_spec("pymde") is None:
        raise MissingExtraError("pymde", "mde", "A minimum-distortion embedding")
    with _torchvision_or_stand_in():
        import pymde
    return pymde


@contextlib.contextmanager
def _torchvision_or_stand_in() -> Iterator[None]:
    """PyMDE imports torchvision, to download its sample data and for nothing else.

    A torchvision that was built for another PyTorch (a CUDA one beside a CPU one, say) fails
    to load; an empty module then stands in for it during the import.
    """
    if "pymde" in sys.modules:
        yield
        return
    try:
        import torchvision  # noqa: F401

        broken = False
    except (ImportError, OSError, RuntimeError):
        broken = True
        sys.modules["torchvision"] = types.ModuleType("torchvision")
    try:
        yield
    finally:
        if broken:
            del sys.modules["torchvision"]


@contextlib.contextmanager
def _told(function: Any, total: int, progress: Callable[[int, int], None] | None) -> Iterator[None]:
    """Counts how often the distortions are computed, about once an iteration."""
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if progress is not None:
            progress(min(calls, total), total)

    if progress is None:
        yield
        return
    hook = function.register_forward_hook(count)
    try:
        yield
    finally:
        hook.remove()


@contextlib.contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    # PyMDE draws from NumPy's global generator; its state is the caller's.
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)


def _check(
    data: np.ndarray | SimilarityGraph,
    dim: int,
    variant: str,
    neighbors: int | None,
    anchors: np.ndarray | None,
) -> None:
    if dim not in (2, 3):
        raise ConfigError("`dim` must be 2 or 3.", received=f"dim={dim}")
    if variant not in VARIANTS:
        raise ConfigError(f"`variant` must be one of {', '.join(VARIANTS)}.", received=variant)
    if anchors is not None and variant != "neighbors":
        raise ConfigError(
            "Anchors need the variant neighbors: the others fix the covariance of all items.",
            received=f"variant={variant}",
        )
    count = data.num_nodes if isinstance(data, SimilarityGraph) else len(data)
    if count <= dim + 1:
        raise DataError(
            "A picture needs more items than dimensions and one more.",
            received=f"{count} items, dim={dim}",
        )
    if neighbors is not None and not 1 <= neighbors < count:
        raise ConfigError(
            "`neighbors` must be at least 1 and smaller than the number of items.",
            received=f"neighbors={neighbors}, items={count}",
        )


def _edges(
    pymde: ModuleType, data: np.ndarray | SimilarityGraph, neighbors: int | None
) -> tuple[int, Any, Any]:
    """N, `[P, 2]` pairs i < j, and their positive weights, as PyTorch tensors."""
    import torch

    if isinstance(data, SimilarityGraph):
        import scipy.sparse

        items = data.num_nodes
        matrix = scipy.sparse.csr_matrix(
            (data.weights, data.indices, data.indptr), shape=(items, items)
        )
        half = scipy.sparse.triu(matrix.maximum(matrix.T), k=1).tocoo()
        keep = half.data > 0
        pairs = np.stack([half.row[keep], half.col[keep]], axis=1).astype(np.int64)
        edges, weights = torch.from_numpy(pairs), torch.from_numpy(half.data[keep])
    else:
        features = as_matrix("data", data)
        items = len(features)
        if neighbors is None:
            # PyMDE's own choice: about a hundredth of all pairs, 5 to 15 for each item.
            neighbors = min(items - 1, int(max(min(15, (items - 1) * 0.005), 5)))
        graph = pymde.preprocess.k_nearest_neighbors(features, k=neighbors)
        edges, weights = graph.edges, graph.weights
    if not len(edges):
        raise DataError("A picture needs at least one edge of positive weight.")
    return items, edges, weights.float()


def _constraint(
    pymde: ModuleType,
    variant: str,
    items: int,
    dim: int,
    anchors: np.ndarray | None,
    anchor_points: np.ndarray | None,
) -> Any:
    import torch

    if variant != "neighbors":
        return pymde.Standardized()
    if anchors is None:
        return pymde.Centered()
    anchors = np.asarray(anchors, np.int64)
    points = as_matrix("anchor_points", np.asarray(anchor_points))
    inside = not anchors.size or (anchors.min() >= 0 and anchors.max() < items)
    if points.shape != (len(anchors), dim) or not inside or len(set(anchors)) != len(anchors):
        raise DataError(
            "Anchors must be different items with one point each.",
            received=f"{len(anchors)} anchors among {items} items, points {points.shape}",
        )
    return pymde.Anchored(torch.from_numpy(anchors), torch.from_numpy(points))


def _problem(pymde, variant, items, dim, edges, weights, constraint, device, seed):
    """The pairs to keep near come first, then sampled pairs to keep apart."""
    import torch

    if isinstance(constraint, pymde.Anchored):
        free = _free(edges, constraint, items)
        edges, weights = edges[free], weights[free]
        if not len(edges):
            raise DataError("No edge leads to an item that is not an anchor.")
    if variant == "quadratic":
        function = pymde.penalties.Quadratic(weights.to(device))
    else:
        # As many repelling pairs as attracting ones; half as many where the covariance
        # spreads the items already.
        share = 0.5 if variant == "standardized" else 1.0
        possible = items * (items - 1) // 2 - len(edges)
        apart = pymde.preprocess.sample_edges(
            items, min(int(share * len(edges)), possible), exclude=edges, seed=seed
        )
        if isinstance(constraint, pymde.Anchored):
            apart = apart[_free(apart, constraint, items)]
        edges = torch.cat([edges, apart])
        weights = torch.cat([weights, -torch.ones(len(apart))])
        function = pymde.penalties.PushAndPull(
            weights.to(device),
            attractive_penalty=pymde.penalties.Log1p,
            repulsive_penalty=pymde.penalties.Log,
        )
    return pymde.MDE(items, dim, edges.to(device), function, constraint, device=device)


def _free(edges: torch.Tensor, constraint: Any, items: int) -> torch.Tensor:
    """`[P]` bool: which pairs have an item that is no anchor."""
    import torch

    fixed = torch.zeros(items, dtype=torch.bool)
    fixed[constraint.anchors] = True
    return ~(fixed[edges[:, 0]] & fixed[edges[:, 1]])


def _start(
    pymde: ModuleType, problem: Any, variant: str, constraint: Any, seed: int
) -> torch.Tensor | None:
    """Random for `quadratic`, amid the neighbors for new items, else the spectral embedding."""
    import torch

    if variant == "quadratic":
        return None
    weights = problem.distortion_function.weights.cpu()
    near = problem.edges.cpu()[weights > 0]
    shape = (problem.n_items, problem.embedding_dim)
    if isinstance(constraint, pymde.Anchored):
        start = _amid_anchors(near, constraint, shape)
    else:
        start = _spectral(near.numpy(), weights[weights > 0].numpy(), shape, seed)
    # Items at one place have no gradient that could part them.
    start = start + 1e-4 * start.std() * torch.randn(shape)
    if isinstance(constraint, pymde.Anchored):
        start[constraint.anchors] = constraint.values
    elif variant == "standardized":
        start = constraint.project_onto_constraint(start, inplace=False)
    return start.to(problem.device)


def _spectral(pairs: np.ndarray, weights: np.ndarray, shape: tuple[int, int], seed: int) -> Any:
    """`[N, M]` first eigenvectors of the graph's Laplacian, of covariance one.

    PyMDE's own starts from a vector that no seed decides.
    """
    import scipy.sparse.csgraph
    import torch

    items, dim = map(int, shape)
    half = scipy.sparse.csr_matrix((weights.astype(np.float64), pairs.T), shape=(items, items))
    laplacian = scipy.sparse.csgraph.laplacian(half + half.T)
    if items < 100:
        found = np.linalg.eigh(laplacian.toarray())[1][:, 1 : dim + 1]
    else:
        found = _smallest(laplacian, dim, np.random.default_rng(seed))
    basis, _ = np.linalg.qr(found - found.mean(axis=0))
    return torch.from_numpy((basis * items**0.5).astype(np.float32))


def _smallest(laplacian: Any, dim: int, rng: np.random.Generator) -> np.ndarray:
    """`[N, M]` eigenvectors of the smallest eigenvalues, after the constant one."""
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    items = laplacian.shape[0]
    # The constant vector's eigenvalue of zero becomes the largest. ARPACK mostly misses it, so
    # that leaving out the first vector that it finds would leave out one that is wanted.
    largest = 2 * laplacian.diagonal().max()
    deflated = LinearOperator(
        laplacian.shape, matvec=lambda x: laplacian @ x + largest * x.mean(), dtype=np.float64
    )
    options: dict[str, Any] = {"v0": rng.normal(size=items)}
    if "rng" in inspect.signature(eigsh).parameters:
        options["rng"] = rng  # From SciPy 1.17 on it restarts from vectors of its own drawing.
    try:
        values, vectors = eigsh(
            deflated,
            k=dim,
            which="SA",
            ncv=max(2 * dim + 3, int(items**0.5)),
            tol=1e-4,
            maxiter=5 * items,
            **options,
        )
    except ArpackNoConvergence:
        return rng.normal(size=(items, dim))
    return vectors[:, np.argsort(values)]


def _amid_anchors(near, constraint, shape):
    """`[N, M]`: every new item at the mean of the anchors it is joined to, or at that of all."""
    import torch

    points = torch.zeros(shape)
    points[constraint.anchors] = constraint.values
    fixed = torch.zeros(shape[0], 1)
    fixed[constraint.anchors] = 1
    total, count = torch.zeros(shape), torch.zeros(shape[0], 1)
    for here, there in ((0, 1), (1, 0)):
        total.index_add_(0, near[:, here], points[near[:, there]])
        count.index_add_(0, near[:, here], fixed[near[:, there]])
    middle = constraint.values.mean(dim=0, keepdim=True)
    return torch.where(count > 0, total / count.clamp(min=1), middle)
