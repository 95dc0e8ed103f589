"""Methods that carry labels along the edges of a graph.

Each takes a `Problem` and returns scores, as the method's authors define them, and evidence:
numbers >= 0 that say how well a node fits each column, relative to the others.

Shapes: N nodes, M of them labeled, K columns: the classes; for multi-label images two columns for
each class, presence and absence.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from scipy import sparse

from tfgraphreg.errors import ConfigError
from tfgraphreg.progress import Progress
from tfgraphreg.propagation.classsizes import stepped
from tfgraphreg.propagation.system import System, solve
from tfgraphreg.registry import Registry

_FLOOR = 1e-5  # of Poisson weights, as in graphlearning: no edge vanishes
_SHARPNESS = 3.0  # of the softmax of Poisson scores, in standard deviations of a node's scores

Solution = tuple[np.ndarray, np.ndarray]
"""Scores and evidence, `[N, K]` float64 each."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """What a method is given: a graph in which every component has a labeled node.

    Attributes:
        system: The graph.
        labeled: `[M]` node numbers.
        targets: `[M, K]` float64: 1 where a labeled node belongs to the column, else 0.
        shares: `[K]` the share of nodes in each column, summing to 1; None where unknown.
        tolerance: Relative, of every linear system; see `solve`.
        max_iterations: Of every linear system.
        progress: Called as ``progress(what, done, total)``; None for silence.
    """

    system: System
    labeled: np.ndarray
    targets: np.ndarray
    shares: np.ndarray | None
    tolerance: float
    max_iterations: int
    progress: Progress | None

    def solve(self, matrix: sparse.csr_matrix, right: np.ndarray) -> np.ndarray:
        """The solution of a linear system, to this problem's tolerance."""
        return solve(
            matrix,
            right,
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
            progress=self.progress,
        )

    def at_labeled(self, values: np.ndarray) -> np.ndarray:
        """`[N, K]`: `values` `[M, K]` at the labeled nodes, 0 elsewhere."""
        columns = np.zeros((self.system.num_nodes, values.shape[1]))
        columns[self.labeled] = values
        return columns


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to propagate labels.

    Attributes:
        name: Its registered name.
        solve: Function of a `Problem` and of the settings by name.
        settings: Names and defaults of the settings.
        needs_sizes: Whether the method itself uses class sizes and requires them.
        summary: One line for lists.
    """

    name: str
    solve: Callable[..., Solution]
    settings: Mapping[str, float] = dataclasses.field(default_factory=dict)
    needs_sizes: bool = False
    summary: str = ""

    def check_names(self, given: Mapping[str, float]) -> None:
        """Refuses settings by their names, among which those of every solver may be.

        Raises:
            ConfigError: If the method has no such setting.
        """
        for name in given:
            if name not in (*self.settings, *SOLVER_SETTINGS):
                raise ConfigError(
                    f"The method {self.name} has no setting {name!r}.",
                    received=f"{name}={given[name]!r}",
                    cure=f"Its settings: {', '.join(self.settings) or 'none'}.",
                )


SOLVER_SETTINGS = ("tolerance", "max_iterations")
METHODS: Registry[Method] = Registry("propagation method")


def laplace(problem: Problem) -> Solution:
    """Laplace learning (Zhu, Ghahramani and Lafferty, ICML 2003).

    A labeled node keeps its target; every other node has the mean of its neighbors, weighted by
    the edges. A node's score is the chance that a random walk from it first meets a labeled node
    of the class. As `graphlearning.ssl.laplace`.
    """
    return _harmonic(problem, problem.system)


def poisson_reweighted(problem: Problem) -> Solution:
    """Laplace learning with edges that weigh more near labeled nodes (Calder et al., ICML 2020).

    The weight of an edge is multiplied by g(u) g(v). g solves the Poisson equation with a source
    of 1 at each labeled node less the mean, shifted so that its smallest value on each component
    is 1e-5. As `graphlearning.ssl.laplace(reweighting="poisson")`.
    """
    system = problem.system
    source = system.balanced(problem.at_labeled(np.ones((len(problem.labeled), 1))))
    near = problem.solve(system.laplacian(), source)[:, 0]
    lowest = np.full(system.num_components, np.inf)
    np.minimum.at(lowest, system.component, near)
    scale = sparse.diags(near - lowest[system.component] + _FLOOR)
    return _harmonic(problem, System.of_weights((scale @ system.weights @ scale).tocsr()))


def _harmonic(problem: Problem, system: System) -> Solution:
    free = np.ones(system.num_nodes, bool)
    free[problem.labeled] = False
    rows = system.laplacian()[free]
    scores = problem.at_labeled(problem.targets)
    right = -(rows[:, problem.labeled] @ problem.targets)
    scores[free] = problem.solve(rows[:, free].tocsr(), right)
    return scores, np.maximum(scores, 0)


def spreading(problem: Problem, *, alpha: float) -> Solution:
    """Label spreading (Zhou, Bousquet, Lal, Weston and Schölkopf, NIPS 2003).

    Solves (I - alpha S) x = targets with S = D^-1/2 W D^-1/2: the limit of the authors'
    iteration, divided by 1 - alpha. As `graphlearning.ssl.randomwalk`.
    """
    matrix, _ = problem.system.normalized()
    right = problem.at_labeled(problem.targets)
    scores = problem.solve((sparse.identity(len(right)) - alpha * matrix).tocsr(), right)
    return scores, np.maximum(scores, 0)


def poisson(problem: Problem) -> Solution:
    """Poisson learning (Calder, Cook, Thorpe and Slepčev, ICML 2020).

    Solves (D - W) x = targets less their mean at labeled nodes, 0 elsewhere; of all solutions the
    one whose sum, weighted by degree, is 0 on each component. As `graphlearning.ssl.poisson`.
    Scores have no scale of their own: evidence is exp(3 x / s), where s is the standard deviation
    over the columns, averaged over the nodes.
    """
    system = problem.system
    source = system.balanced(_source(problem), system.degrees)
    matrix, root = system.normalized()
    matrix = (sparse.identity(len(root)) - matrix).tocsr()
    scores = root[:, None] * problem.solve(matrix, root[:, None] * source)
    spread = scores.std(axis=1).mean()
    relative = _SHARPNESS * scores / (spread if spread > 0 else 1.0)
    return scores, np.exp(relative - relative.max(axis=1, keepdims=True))


def _source(problem: Problem) -> np.ndarray:
    return problem.at_labeled(problem.targets - problem.targets.mean(axis=0))


def poisson_mbo(problem: Problem, *, rounds: int, steps: int, fidelity: float) -> Solution:
    """PoissonMBO (Calder et al., ICML 2020): Poisson learning under given class sizes.

    Starting from the labels of Poisson learning, each round diffuses the labels by `steps` steps of
    heat
    flow with `fidelity` times the Poisson source, then chooses labels of the given class sizes.
    As `graphlearning.ssl.poisson_mbo`: scores are 1 for the class chosen, else 0. Evidence is the
    last diffused field times the class factors.
    """
    system = problem.system
    scores, _ = poisson(problem)
    classes = np.eye(scores.shape[1])
    field = classes[scores.argmax(axis=1)]
    step = 1.0 / system.degrees.max(initial=1e-300)
    heat = (sparse.identity(system.num_nodes) - step * system.laplacian()).tocsr()
    source = fidelity * step * _source(problem)
    factors, shares = np.ones(len(classes)), problem.shares
    assert shares is not None, "`propagate` sees to it: the method needs sizes"
    for done in range(rounds):
        for _ in range(steps):
            field = heat @ field + source
        evidence = field - field.min()
        evidence /= max(evidence.max(), 1e-300)
        labels, factors = stepped(evidence, shares, factors)
        field = classes[labels]
        if problem.progress:
            problem.progress("rounds", done + 1, rounds)
    return field, evidence * factors


for _method in (
    Method("laplace", laplace, summary="harmonic: the mean of the neighbors"),
    Method("spreading", spreading, {"alpha": 0.99}, summary="damped diffusion of the labels"),
    Method("poisson", poisson, summary="sources at the labels, for very few of them"),
    Method(
        "poisson-reweighted",
        poisson_reweighted,
        summary="laplace, with heavier edges near labels",
    ),
    Method(
        "poisson-mbo",
        poisson_mbo,
        {"rounds": 20, "steps": 40, "fidelity": 1.0},
        needs_sizes=True,
        summary="poisson under class sizes, rounded and diffused again",
    ),
):
    METHODS.register(_method.name, _method)
