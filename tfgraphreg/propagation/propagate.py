"""Labels for every node of a graph, from a few labeled ones.

Shapes: N nodes, M of them labeled, C classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.sparse.csgraph import reverse_cuthill_mckee

from tfgraphreg.errors import ConfigError, GraphError
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.progress import Progress
from tfgraphreg.propagation.classsizes import size_factors
from tfgraphreg.propagation.methods import METHODS, Method, Problem
from tfgraphreg.propagation.origins import origins
from tfgraphreg.propagation.settings import KNOWN_SIZES
from tfgraphreg.propagation.system import System

Sizes = str | np.ndarray | list | tuple | None


@dataclasses.dataclass(frozen=True, eq=False)
class Propagation:
    """What is known about each node after propagation.

    A labeled node keeps its label: its probabilities are 0 and 1, its certainty is 1 and its
    source is itself. A node without a path to a labeled node stays unlabeled: label
    -1, source -1, certainty 0, scores 0 and probabilities of 1 / C (0.5 for several classes an
    image).

    Attributes:
        scores: `[N, C]` float64, as the method's authors define them, before class sizes and of
            labeled nodes too; 0 in the column of a class without a labeled node.
        probabilities: `[N, C]` float64 from 0 to 1, after class sizes. With one class an image
            each row sums to 1. A class without a labeled node in the component has 0.
        labels: `[N]` int64 class numbers; `[N, C]` int8 with several classes an image.
        certainty: `[N]` float64 from 0 to 1: 1 - entropy / log C of the probabilities; with
            several classes an image, the mean over the classes of 1 - entropy / log 2.
        source: `[N]` int64, the labeled node that a label came from: the nearest one of the same
            class along the edges, where possible through nodes of that class (see `origins`).
            With several classes an image, the nearest labeled node.
        class_sizes: `[C]` the shares of the nodes that the classes were given; None if unknown.
        size_error: The largest difference between a class's share of the labels and its size,
            over the reached nodes; None without class sizes. Mostly below 0.001; larger if the
            graph does not allow the sizes, or if several nodes of a small graph would have to
            change at once.
        method: Its name.
        settings: Of the method, with `tolerance` and `max_iterations`.
    """

    scores: np.ndarray
    probabilities: np.ndarray
    labels: np.ndarray
    certainty: np.ndarray
    source: np.ndarray
    class_sizes: np.ndarray | None
    size_error: float | None
    method: str
    settings: Mapping[str, Any]

    def __repr__(self) -> str:
        nodes, classes = self.probabilities.shape
        reached = int(self.reached.sum())
        return f"Propagation({self.method}: {reached} of {nodes} nodes reached, {classes} classes)"

    @property
    def reached(self) -> np.ndarray:
        """`[N]` bool: the labeled nodes, and the nodes with a path to one."""
        return self.source >= 0


def propagate(
    graph: SimilarityGraph,
    labels: np.ndarray,
    num_classes: int,
    *,
    method: str = "spreading",
    class_sizes: Sizes = None,
    labeled: np.ndarray | None = None,
    tolerance: float = 1e-8,
    max_iterations: int = 5000,
    progress: Progress | None = None,
    **settings: float,
) -> Propagation:
    """Labels every node of `graph` from its labeled ones.

    Edges count in both directions, at the larger of their two weights. Time and memory grow with
    the edges times the classes; no matrix of all pairs is made. The result is the same every
    time: nothing is random.

    Args:
        graph: N nodes. Weights of 0 join nothing.
        labels: `[N]` class numbers, -1 where unlabeled; or for several classes an image `[N, C]`
            rows of 0 and 1, or -1 throughout where unlabeled: each class is then propagated
            against its absence. Column c of the results is class number c.
        num_classes: C, at least 2 (1 with several classes an image).
        method: A name in `METHODS`: ``"laplace"``, ``"spreading"`` (setting `alpha`, in (0, 1)),
            ``"poisson"``, ``"poisson-reweighted"`` or ``"poisson-mbo"`` (settings `rounds`,
            `steps`, `fidelity`; needs `class_sizes`).
        class_sizes: Prior knowledge of how many nodes belong to each class. It must never be taken
            from the labels that are to be predicted. A
            factor for each class is chosen so that the labels have these sizes. None: unknown.
            ``"equal"``: all classes alike. ``"labeled"``: estimated as the shares among the
            labeled nodes, which is right if those were drawn at random, and misleading if each
            class was given as many labels. `[C]` numbers above 0: sizes in proportion to them;
            with several classes an image, the share of nodes in each class, in (0, 1).
        labeled: `[N]` truth values: the nodes whose label may be used; `labels` of all other nodes
            are ignored. By default all that are not -1.
        tolerance: Of the residual of a linear system, relative to its right-hand side.
        max_iterations: Of conjugate gradients for a linear system.
        progress: Called as ``progress(what, done, total)``.
        **settings: Of the method.

    Raises:
        UnknownNameError: If there is no such method.
        ConfigError: If a setting or the class sizes cannot be.
        GraphError: If labels and graph do not fit together, or the tolerance is not reached.
    """
    record = METHODS.get(method)
    settings = _settings(record, settings, tolerance, max_iterations)
    labels, labeled = _checked(graph, labels, num_classes, labeled)
    targets = labels[labeled]
    if targets.ndim == 1:
        targets = np.eye(num_classes)[targets]
    targets = targets.astype(np.float64)
    shares = _shares(class_sizes, targets, several=labels.ndim == 2)
    if record.needs_sizes and shares is None:
        raise ConfigError(
            f"The method {method} needs to know the class sizes.",
            received="class_sizes=None",
            cure='Give class_sizes="equal" or one number a class, or choose another method.',
        )
    system, nodes = _reached(System.of(graph), labeled)
    place = np.full(graph.num_nodes, -1)
    place[nodes] = np.arange(len(nodes))
    problem = Problem(system, place[labeled], targets, shares, tolerance, max_iterations, progress)
    own = {name: settings[name] for name in record.settings}
    work = _several if labels.ndim == 2 else _one
    found = work(problem, record, own)
    return _scattered(
        *found,
        nodes=nodes,
        num_nodes=graph.num_nodes,
        class_sizes=shares,
        method=method,
        settings=settings,
    )


def _settings(
    record: Method, given: dict[str, float], tolerance: float, max_iterations: int
) -> dict[str, Any]:
    record.check_names(given)
    found = {**record.settings, **given, "tolerance": tolerance, "max_iterations": max_iterations}
    for name, value in found.items():
        whole = isinstance(record.settings.get(name), int) or name == "max_iterations"
        low, high = (1, 1_000_000) if whole else _RANGES[name]
        right = isinstance(value, (int, np.integer) if whole else (int, float, np.number))
        if isinstance(value, bool) or not right or not low <= value <= high:
            raise ConfigError(
                f"`{name}` must be {'a whole number ' if whole else ''}from {low} to {high}.",
                received=f"{name}={value!r}",
            )
    return found


_RANGES = {"alpha": (1e-6, 1 - 1e-6), "fidelity": (0.0, 1e6), "tolerance": (1e-12, 0.1)}


def _checked(
    graph: SimilarityGraph, labels: np.ndarray, num_classes: int, labeled: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Labels as an array, and the numbers of the nodes whose label may be used."""
    labels = np.asarray(labels)
    if (
        labels.ndim not in (1, 2)
        or len(labels) != graph.num_nodes
        or labels.dtype.kind not in "iub"
    ):
        raise GraphError(
            "`labels` must be whole numbers of the shape [N] or [N, C], one row for every node.",
            received=f"shape={labels.shape}, dtype={labels.dtype}, {graph.num_nodes} nodes",
        )
    several = labels.ndim == 2
    if num_classes < (1 if several else 2) or (several and labels.shape[1] != num_classes):
        raise ConfigError(
            "`num_classes` must be the number of columns of the labels."
            if several
            else "`num_classes` must be at least 2.",
            received=f"num_classes={num_classes}, labels of the shape {labels.shape}",
        )
    if labeled is None:
        known = (labels != -1).all(axis=1) if several else labels != -1
    else:
        known = np.asarray(labeled)
        if known.shape != (graph.num_nodes,) or known.dtype != bool:
            raise GraphError(
                "`labeled` must hold one truth value for every node.",
                received=f"shape={known.shape}, dtype={known.dtype}",
            )
    used, highest = labels[known], 1 if several else num_classes - 1
    if not len(used):
        raise GraphError(
            "No node is labeled: there is nothing to propagate.",
            received=f"{graph.num_nodes} nodes",
        )
    if used.min() < 0 or used.max() > highest:
        raise GraphError(
            f"The labels of labeled nodes must be from 0 to {highest}.",
            received=f"{used.min()} to {used.max()}",
        )
    return labels, np.flatnonzero(known)


def _shares(sizes: Sizes, targets: np.ndarray, *, several: bool) -> np.ndarray | None:
    """`[C]` shares of the classes, from what `propagate` was given."""
    if sizes is None:
        return None
    count = targets.shape[1]
    if isinstance(sizes, str):
        if sizes not in KNOWN_SIZES or (several and sizes == "equal"):
            names = [repr(name) for name in KNOWN_SIZES if not several or name != "equal"]
            raise ConfigError(
                f"`class_sizes` must be None, {' or '.join(names)}, or one number a class.",
                received=repr(sizes),
            )
        shares = targets.mean(axis=0) if sizes == "labeled" else np.full(count, 1.0 / count)
    else:
        shares = np.asarray(sizes, np.float64)
    if shares.shape != (count,) or not np.isfinite(shares).all() or (shares <= 0).any():
        raise ConfigError(
            f"`class_sizes` must be {count} numbers above 0, one a class.",
            received=str(shares.tolist())[:200],
            cure="Leave out classes without images, or leave the class sizes unknown.",
        )
    missing = np.flatnonzero(targets.sum(axis=0) == 0)
    if len(missing):
        raise ConfigError(
            "Class sizes need a labeled image of every class.",
            received=f"none of class number {', '.join(map(str, missing[:10]))}",
            cure="Label one, or leave the class sizes unknown.",
        )
    if several:
        if (shares >= 1).any():
            raise ConfigError(
                "With several classes an image `class_sizes` are shares of the nodes, below 1.",
                received=f"a largest one of {shares.max():g}",
            )
        return shares
    return shares / shares.sum()


def _reached(system: System, labeled: np.ndarray) -> tuple[System, np.ndarray]:
    """The components with a labeled node as a system of their own, and its node numbers.

    Nodes are renumbered so that neighbors have close numbers (reverse Cuthill-McKee): a product
    with the matrix then reads from a core's cache, which makes it three times as fast.
    """
    parts = np.zeros(system.num_components, bool)
    parts[system.component[labeled]] = True
    order = reverse_cuthill_mckee(system.weights, symmetric_mode=True)
    nodes = order[parts[system.component[order]]]
    return System.of_weights(system.weights[nodes][:, nodes]), nodes


def _one(problem: Problem, record: Method, settings: dict[str, Any]) -> tuple:
    """Scores, probabilities, labels, certainty, source and size error, one class an image."""
    present = np.any(problem.targets, axis=0)
    scores = np.zeros((problem.system.num_nodes, len(present)))
    evidence = np.zeros_like(scores)
    inner = dataclasses.replace(problem, targets=problem.targets[:, present])
    scores[:, present], evidence[:, present] = record.solve(inner, **settings)
    probabilities, error = _probabilities(problem, record, evidence)
    labels = probabilities.argmax(axis=1)
    certainty = 1 - entropy(probabilities) / np.log(len(present))
    source = origins(problem.system, problem.labeled, labels)
    return scores, probabilities, labels, certainty, source, error


def _several(problem: Problem, record: Method, settings: dict[str, Any]) -> tuple:
    """The same with several classes an image: each class against its absence."""
    count, sizes = problem.targets.shape[1], problem.shares
    both = np.stack([problem.targets, 1 - problem.targets], axis=2)  # [M, C, 2]
    pairs = [
        dataclasses.replace(
            problem,
            targets=both[:, c],
            shares=None if sizes is None else np.array([sizes[c], 1 - sizes[c]]),
        )
        for c in range(count)
    ]
    scores, probabilities, errors = [], [], []
    for pair in pairs:
        solved, evidence = record.solve(pair, **settings)
        chances, error = _probabilities(pair, record, evidence)
        scores.append(solved[:, 0])
        probabilities.append(chances)
        errors.append(error)
    chances = np.stack(probabilities, axis=1)  # [N, C, 2]
    labels = (chances[..., 0] > 0.5).astype(np.int8)
    certainty = 1 - entropy(chances).mean(axis=1) / np.log(2)
    source = origins(problem.system, problem.labeled, None)
    error = max((e for e in errors if e is not None), default=None)
    return np.stack(scores, axis=1), chances[..., 0], labels, certainty, source, error


def _probabilities(
    problem: Problem, record: Method, evidence: np.ndarray
) -> tuple[np.ndarray, float | None]:
    """Evidence as probabilities: labels that are given, components, class sizes."""
    system = problem.system
    there = np.zeros((system.num_components, evidence.shape[1]))
    np.add.at(there, system.component[problem.labeled], problem.targets)
    there = there[system.component] > 0
    evidence = np.where(there, evidence, 0)
    # If all evidence underflowed (far from every label), all classes of the component are equal.
    evidence = np.where(evidence.any(axis=1, keepdims=True), evidence, there)
    evidence = evidence / evidence.sum(axis=1, keepdims=True)
    evidence[problem.labeled] = problem.targets
    error = None
    if problem.shares is not None:
        if not record.needs_sizes:
            evidence *= size_factors(evidence, problem.shares)[0]
            evidence /= evidence.sum(axis=1, keepdims=True)
        counts = np.bincount(evidence.argmax(axis=1), minlength=evidence.shape[1])
        error = float(np.abs(counts / len(evidence) - problem.shares).max())
    return evidence, error


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """`[N]` entropies, in nats, of rows of probabilities."""
    logs = np.log(probabilities, where=probabilities > 0, out=np.zeros_like(probabilities))
    return np.maximum(-(probabilities * logs).sum(axis=-1), 0)


def _scattered(
    scores: np.ndarray,
    probabilities: np.ndarray,
    labels: np.ndarray,
    certainty: np.ndarray,
    source: np.ndarray,
    size_error: float | None,
    *,
    nodes: np.ndarray,
    num_nodes: int,
    **about: Any,
) -> Propagation:
    """Puts the results of the reached `nodes` into arrays for all nodes."""

    def among(values: np.ndarray, missing: float) -> np.ndarray:
        full = np.full((num_nodes, *values.shape[1:]), missing, values.dtype)
        full[nodes] = values
        return full

    unknown = 0.5 if labels.ndim == 2 else 1.0 / scores.shape[1]
    return Propagation(
        scores=among(scores, 0),
        probabilities=among(probabilities, unknown),
        labels=among(labels, -1),
        certainty=among(np.clip(certainty, 0, 1), 0),
        source=among(nodes[source].astype(np.int64), -1),
        size_error=size_error,
        **about,
    )
