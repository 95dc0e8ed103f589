"""Propagated labels beside graphlearning and dense algebra; what they do not depend on."""

import dataclasses
import inspect

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tfgraphreg.errors import ConfigError, GraphError, UnknownNameError
from tfgraphreg.graph.knn import knn_graph
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.propagation import METHODS, propagate
from tfgraphreg.propagation.classsizes import size_factors

SIZED = ("laplace", "spreading", "poisson", "poisson-reweighted")


@pytest.fixture(scope="module")
def digits():
    """Symmetric graph, true labels, node numbers of 3 labels a class, labels with -1."""
    data = load_digits()
    graph = knn_graph(data.data[:900], k=10, weighting="local_gaussian", symmetrize=True)
    true = data.target[:900].astype(np.int64)
    rng = np.random.default_rng(0)
    nodes = np.concatenate([rng.choice(np.flatnonzero(true == c), 3, False) for c in range(10)])
    labels = np.full(900, -1)
    labels[nodes] = true[nodes]
    return graph, true, nodes, labels


def random_graph(n=40, seed=0, parts=1):
    """A connected graph of n nodes for each of `parts`, with uneven weights in one direction."""
    rng = np.random.default_rng(seed)
    edges = {}
    for start in range(0, n * parts, n):
        for i in range(n):
            for j in {(i + 1) % n, *rng.integers(0, n, 3).tolist()} - {i}:
                edges[start + i, start + j] = rng.uniform(0.05, 1)
    (sources, targets), weights = np.array(list(edges)).T, np.array(list(edges.values()))
    return SimilarityGraph.from_edges(sources, targets, weights, n * parts)


def dense(graph):
    """Symmetric weights `[N, N]`, by the larger one, and degrees."""
    weights = np.zeros((graph.num_nodes,) * 2)
    weights[graph.sources(), graph.indices] = graph.weights
    weights = np.maximum(weights, weights.T)
    return weights, weights.sum(1)


def references(weights, degrees, nodes, targets):
    """Scores by dense algebra, from the definitions."""
    n = len(degrees)
    laplacian = np.diag(degrees) - weights

    def harmonic(laplacian):
        free = np.setdiff1d(np.arange(n), nodes)
        scores = np.zeros((n, targets.shape[1]))
        scores[nodes] = targets
        right = -laplacian[np.ix_(free, nodes)] @ targets
        scores[free] = np.linalg.solve(laplacian[np.ix_(free, free)], right)
        return scores

    full = np.zeros((n, targets.shape[1]))
    full[nodes] = targets
    normalized = weights / np.sqrt(np.outer(degrees, degrees))
    source = np.zeros_like(full)
    source[nodes] = targets - targets.mean(0)
    poisson = np.linalg.pinv(laplacian) @ source
    poisson -= degrees @ poisson / degrees.sum()
    one = np.zeros(n)
    one[nodes] = 1
    near = np.linalg.pinv(laplacian) @ (one - one.mean())
    near += 1e-5 - near.min()
    heavier = weights * np.outer(near, near)
    return {
        "laplace": harmonic(laplacian),
        "spreading": np.linalg.solve(np.eye(n) - 0.99 * normalized, full),
        "poisson": poisson,
        "poisson-reweighted": harmonic(np.diag(heavier.sum(1)) - heavier),
    }


@pytest.mark.parametrize("name", SIZED)
def test_scores_are_those_of_dense_algebra(name):
    graph = random_graph()
    nodes, classes = np.array([3, 30, 8, 21, 14]), np.array([0, 0, 1, 2, 2])
    labels = np.full(40, -1)
    labels[nodes] = classes
    found = propagate(graph, labels, 3, method=name)
    expected = references(*dense(graph), nodes, np.eye(3)[classes])[name]
    np.testing.assert_allclose(found.scores, expected, atol=1e-6)


def test_scores_are_those_of_graphlearning(digits):
    import graphlearning as gl

    graph, true, nodes, labels = digits
    weights = graph.to_scipy().astype(float)
    sizes = gl.utils.class_priors(true)
    for name, model, settings in (
        ("laplace", gl.ssl.laplace(weights), {}),
        ("spreading", gl.ssl.randomwalk(weights, alpha=0.9), {"alpha": 0.9}),
        ("poisson", gl.ssl.poisson(weights, tol=1e-8), {}),
        ("poisson-reweighted", gl.ssl.laplace(weights, reweighting="poisson"), {}),
        (
            "poisson-mbo",
            gl.ssl.poisson_mbo(weights, sizes, tol=1e-8, T=3),
            {"class_sizes": sizes, "rounds": 3},
        ),
    ):
        expected = model.fit(nodes, true[nodes])
        found = propagate(graph, labels, 10, method=name, **settings)
        np.testing.assert_allclose(found.scores, expected, atol=1e-4, err_msg=name)
        predicted = model.predict()
        free = np.setdiff1d(np.arange(len(true)), nodes)
        assert (found.labels == predicted)[free].mean() > 0.999, name
        # Better than the nearest labeled image alone would be; fixed by nothing but the data.
        assert (found.labels == true).mean() > 0.85


@pytest.mark.parametrize("name", [*SIZED, "poisson-mbo"])
def test_labels_that_may_not_be_used_change_nothing(digits, name):
    graph, true, _, labels = digits
    settings = {"rounds": 2} if name == "poisson-mbo" else {}
    settings |= {"method": name, "class_sizes": "equal"}
    known = labels >= 0
    first = propagate(graph, labels, 10, **settings)
    scrambled = np.where(known, true, np.random.default_rng(1).integers(-1, 99, len(true)))
    for other in (true, scrambled):
        second = propagate(graph, other, 10, labeled=known, **settings)
        for field in ("scores", "probabilities", "labels", "certainty", "source"):
            np.testing.assert_array_equal(getattr(first, field), getattr(second, field), field)
    moved = propagate(graph, np.where(known, (true + 1) % 10, -1), 10, **settings)
    assert (moved.labels != first.labels).mean() > 0.9


def test_class_sizes_are_met_and_are_better_than_none(digits):
    graph, true, _, labels = digits
    sizes = np.bincount(true, minlength=10)
    for name in SIZED:
        free = propagate(graph, labels, 10, method=name)
        sized = propagate(graph, labels, 10, method=name, class_sizes=sizes)
        assert sized.size_error <= 0.0015 and free.size_error is None
        counts = np.bincount(sized.labels, minlength=10)
        assert np.abs(counts - sizes).max() <= 0.0015 * len(true)
        np.testing.assert_allclose(sized.class_sizes.sum(), 1)
        np.testing.assert_array_equal(sized.scores, free.scores)
        assert (sized.labels == true).mean() > (free.labels == true).mean() - 0.01, name
    equal = propagate(graph, labels, 10, class_sizes="equal")
    assert np.abs(np.bincount(equal.labels) - 90).max() <= 2
    uneven = propagate(graph, labels, 10, class_sizes=[5] + [1] * 9)
    assert (uneven.labels == 0).mean() == pytest.approx(5 / 14, abs=uneven.size_error + 1e-9)
    assert uneven.size_error < 0.005
    drawn = labels.copy()
    drawn[:200] = true[:200]
    shares = np.bincount(drawn[drawn >= 0]) / (drawn >= 0).sum()
    np.testing.assert_allclose(
        propagate(graph, drawn, 10, class_sizes="labeled").class_sizes, shares
    )


def test_factors_solve_the_assignment_problem():
    """Under equal sizes the sum of log evidence is the largest one that an exact solver finds."""
    from scipy.optimize import linear_sum_assignment

    rng = np.random.default_rng(0)
    evidence = rng.dirichlet([0.7, 1, 2, 0.3], 200)
    factors, error = size_factors(evidence, np.full(4, 0.25))
    chosen = (evidence * factors).argmax(1)
    assert error == 0 and (np.bincount(chosen) == 50).all()
    logs = np.log(evidence)
    rows, columns = linear_sum_assignment(-np.repeat(logs, 50, axis=1))
    best = logs[rows, columns // 50].sum()
    assert logs[np.arange(200), chosen].sum() == pytest.approx(best)


def test_sizes_that_cannot_be_are_told():
    # 8 nodes are sure of class 0, which is to have 5 of 10.
    evidence = np.array([[1.0, 0.0]] * 8 + [[0.4, 0.6]] * 2)
    with np.errstate(all="raise"):
        factors, error = size_factors(evidence, np.array([0.5, 0.5]))
    assert error == pytest.approx(0.3) and (factors > 0).all()
    _, error = size_factors(np.eye(2)[[0, 1, 1]], np.array([0.5, 0.5]))
    assert error == pytest.approx(1 / 3)


@pytest.mark.parametrize("name", SIZED)
def test_what_no_edge_reaches_stays_unlabeled(name):
    graph = random_graph(parts=3)
    labels = np.full(121, -1)
    labels[[0, 50, 60]] = [0, 1, 2]  # one class in the first part, two in the second, none after
    edges = graph.sources(), graph.indices, graph.weights
    graph = SimilarityGraph.from_edges(*edges, 121)  # and a node without an edge
    found = propagate(graph, labels, 3, method=name)
    assert (found.labels[80:] == -1).all() and (found.source[80:] == -1).all()
    assert not found.certainty[80:].any() and not found.scores[80:].any()
    np.testing.assert_allclose(found.probabilities[80:], 1 / 3)
    np.testing.assert_array_equal(found.reached, np.arange(121) < 80)
    # A class comes only to where one of its labeled nodes is.
    assert (found.labels[:40] == 0).all() and (found.source[:40] == 0).all()
    assert (found.labels[40:80] > 0).all() and not found.probabilities[40:80, 0].any()
    np.testing.assert_allclose(found.probabilities.sum(1), 1)
    alone = propagate(
        random_graph(seed=0), labels[:40] % 3, 3, method=name, labeled=labels[:40] >= 0
    )
    np.testing.assert_array_equal(alone.labels, found.labels[:40])
    # A labeled node without an edge keeps its label.
    labels[120] = 1
    assert propagate(graph, labels, 3, method=name).labels[120] == 1


@pytest.mark.parametrize("name", ["laplace", "spreading", "poisson-reweighted"])
def test_components_do_not_see_each_other(name):
    one, two = random_graph(seed=0), random_graph(seed=1)
    both = SimilarityGraph.from_edges(
        np.concatenate([one.sources(), two.sources() + 40]),
        np.concatenate([one.indices, two.indices + 40]),
        np.concatenate([one.weights, two.weights]),
        80,
    )
    labels = np.full((2, 40), -1)
    labels[0, [3, 9]], labels[1, [5, 8, 30]] = [0, 1], [0, 1, 1]
    found = propagate(both, labels.ravel(), 2, method=name).scores
    apart = [propagate(g, row, 2, method=name).scores for g, row in zip((one, two), labels)]
    np.testing.assert_allclose(found, np.concatenate(apart), atol=1e-6)


def test_a_labeled_node_keeps_its_label_and_certainty_is_one_less_entropy(digits):
    graph, _, nodes, labels = digits
    for sizes in (None, "equal"):
        found = propagate(graph, labels, 10, class_sizes=sizes)
        np.testing.assert_array_equal(found.labels[nodes], labels[nodes])
        np.testing.assert_array_equal(found.source[nodes], nodes)
        np.testing.assert_array_equal(found.certainty[nodes], 1)
        p = found.probabilities
        entropy = -np.sum(p * np.log(np.maximum(p, 1e-300)), axis=1)
        np.testing.assert_allclose(found.certainty, 1 - entropy / np.log(10), atol=1e-12)
        np.testing.assert_array_equal(found.labels, p.argmax(1))


def test_certain_labels_are_right_more_often(digits):
    graph, true, _, labels = digits
    for name in SIZED:
        found = propagate(graph, labels, 10, method=name, class_sizes="equal")
        order = np.argsort(-found.certainty)
        right = (found.labels == true)[order]
        assert right[:450].mean() > right[450:].mean() + 0.05, name


def test_the_source_is_the_nearest_labeled_node_of_the_class():
    graph = random_graph(n=60, seed=3)
    labels = np.full(60, -1)
    labels[[5, 20, 33, 47]] = [0, 1, 0, 1]
    found = propagate(graph, labels, 2)
    weights, _ = dense(graph)
    lengths = 1 + np.log(weights.max() / np.where(weights > 0, weights, 1))

    def nearest(starts, allowed):
        """Bellman and Ford's relaxation, from each start through allowed nodes."""
        best = np.full((len(starts), 60), np.inf)
        best[np.arange(len(starts)), starts] = 0
        for _ in range(60):
            for i, j in zip(*np.nonzero(weights)):
                if allowed[i] and allowed[j]:
                    best[:, j] = np.minimum(best[:, j], best[:, i] + lengths[i, j])
        return best

    for c in (0, 1):
        starts = np.flatnonzero(labels == c)
        inside = nearest(starts, found.labels == c)
        anywhere = nearest(starts, np.ones(60, bool))
        for node in np.flatnonzero(found.labels == c):
            table = inside if np.isfinite(inside[:, node]).any() else anywhere
            assert found.source[node] == starts[table[:, node].argmin()]


def test_a_label_that_no_node_of_its_class_leads_to_still_has_a_source():
    # 0 - 1 - 2: node 1 is given class 0 and stands between node 2 and the only image of class 1.
    from tfgraphreg.propagation.origins import origins
    from tfgraphreg.propagation.system import System

    graph = SimilarityGraph.from_edges([0, 1, 2], [1, 2, 3], np.ones(3), 4)
    found = origins(System.of(graph), np.array([0, 3]), np.array([1, 0, 1, 0]))
    np.testing.assert_array_equal(found, [0, 3, 0, 3])


@pytest.mark.parametrize("name", [*SIZED, "poisson-mbo"])
def test_several_classes_an_image_are_each_class_against_its_absence(name):
    graph = random_graph(n=60, seed=5)
    rng = np.random.default_rng(2)
    labels = np.full((60, 3), -1)
    nodes = np.array([1, 9, 17, 25, 33, 41, 49, 57])
    labels[nodes] = rng.integers(0, 2, (8, 3))
    labels[nodes[:2]] = [[0, 1, 0], [1, 0, 1]]
    sizes = np.array([0.2, 0.5, 0.7])
    found = propagate(graph, labels, 3, method=name, class_sizes=sizes)
    assert found.labels.dtype == np.int8 and found.size_error < 0.02
    for c in range(3):
        single = np.where(labels[:, c] < 0, -1, 1 - labels[:, c])
        pair = propagate(graph, single, 2, method=name, class_sizes=[sizes[c], 1 - sizes[c]])
        np.testing.assert_allclose(found.probabilities[:, c], pair.probabilities[:, 0])
        np.testing.assert_array_equal(found.labels[:, c], pair.labels == 0)
        np.testing.assert_allclose(found.scores[:, c], pair.scores[:, 0])
    np.testing.assert_array_equal(found.labels[nodes], labels[nodes])
    assert set(found.source) <= set(nodes)
    assert ((found.certainty >= 0) & (found.certainty <= 1)).all()


def test_edges_count_in_both_directions_at_the_larger_weight():
    graph = random_graph()
    labels = np.full(40, -1)
    labels[[3, 30]] = [0, 1]
    one, two = (propagate(g, labels, 2).scores for g in (graph, graph.symmetrized()))
    np.testing.assert_array_equal(one, two)


def test_a_class_without_a_labeled_image_is_given_to_none(digits):
    graph, _, _, labels = digits
    labels = np.where(labels == 4, -1, labels)
    for name in SIZED:
        found = propagate(graph, labels, 10, method=name)
        assert not (found.labels == 4).any() and not found.probabilities[:, 4].any()
        assert not found.scores[:, 4].any()
    with pytest.raises(ConfigError, match=r"labeled image of every class.*class number 4"):
        propagate(graph, labels, 10, class_sizes="equal")


@pytest.mark.parametrize(
    "change, error, says",
    [
        ({"method": "laplaec"}, UnknownNameError, "Did you mean laplace"),
        ({"alpha": 1.0}, ConfigError, "alpha=1.0"),
        (
            {"method": "laplace", "alpha": 0.9},
            ConfigError,
            "no setting 'alpha'.*Its settings: none",
        ),
        ({"method": "poisson-mbo"}, ConfigError, "needs to know the class sizes"),
        (
            {"method": "poisson-mbo", "rounds": 2.5, "class_sizes": "equal"},
            ConfigError,
            "rounds=2.5",
        ),
        ({"tolerance": 0}, ConfigError, "tolerance=0"),
        ({"max_iterations": 2}, GraphError, r"residual of .* after 2 iterations"),
        ({"class_sizes": "even"}, ConfigError, "'equal' or 'labeled'"),
        ({"class_sizes": [1, 2, 3]}, ConfigError, "10 numbers above 0"),
        ({"class_sizes": [0] + [1] * 9}, ConfigError, "above 0"),
        ({"class_sizes": [np.nan] * 10}, ConfigError, "above 0"),
        ({"labels": np.zeros(3, int)}, GraphError, "one row for every node"),
        ({"labels": np.full(900, -1)}, GraphError, "nothing to propagate"),
        ({"labels": np.full(900, 10)}, GraphError, "from 0 to 9.*10 to 10"),
        ({"labels": np.zeros(900)}, GraphError, "whole numbers"),
        ({"labels": np.zeros((900, 3), int)}, ConfigError, "number of columns"),
        ({"labeled": np.zeros(900, int)}, GraphError, "truth value"),
        ({"num_classes": 1}, ConfigError, "at least 2"),
    ],
)
def test_refuses_in_one_line(digits, change, error, says):
    graph, _, _, labels = digits
    given = {"labels": labels, "num_classes": 10, **change}
    with pytest.raises(error, match=says) as caught:
        propagate(graph, **given)
    assert "\n" not in str(caught.value)


def test_several_classes_take_shares_as_sizes():
    graph, labels = random_graph(), np.full((40, 2), -1)
    labels[:4] = [[0, 1], [1, 0], [1, 1], [0, 0]]
    for sizes, says in (("equal", "'labeled'"), ([0.5, 1.5], "below 1")):
        with pytest.raises(ConfigError, match=says):
            propagate(graph, labels, 2, class_sizes=sizes)
    assert propagate(graph, labels, 2, class_sizes="labeled").class_sizes.tolist() == [0.5, 0.5]


def test_a_registered_method_can_be_used():
    from tfgraphreg.propagation import Method

    def same(problem):
        scores = np.ones((problem.system.num_nodes, problem.targets.shape[1]))
        return scores, scores

    METHODS.register("same", Method("same", same))
    try:
        labels = np.full(40, -1)
        labels[:2] = [0, 1]
        found = propagate(random_graph(), labels, 2, method="same")
        np.testing.assert_array_equal(found.probabilities[2:], 0.5)
        assert not found.certainty[2:].any()
    finally:
        del METHODS._records["same"]


def test_progress_and_results_are_documented(digits):
    graph, _, _, labels = digits
    seen = []
    found = propagate(graph, labels, 10, progress=lambda *what: seen.append(what))
    assert seen and all(0 <= done <= total for _, done, total in seen)
    text = inspect.getdoc(type(found))
    assert all(f"{field.name}:" in text for field in dataclasses.fields(found))
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.labels = None


@pytest.mark.slow
def test_sixty_thousand_nodes_in_seconds():
    """`pytest -m slow tests/test_propagation.py`: a grid of blobs, k=10; seconds per method."""
    import time

    rng = np.random.default_rng(0)
    true = rng.integers(0, 10, 60_000)
    points = rng.normal(size=(10, 16))[true] + rng.normal(size=(60_000, 16)) * 0.8
    graph = knn_graph(points, k=10, weighting="local_gaussian")
    labels = np.full(60_000, -1)
    labels[:100] = true[:100]
    for name in SIZED:
        start = time.perf_counter()
        found = propagate(graph, labels, 10, method=name, class_sizes="equal")
        seconds = time.perf_counter() - start
        print(f"{name}: {seconds:.1f} s, {(found.labels == true).mean():.3f} right")
        assert seconds < 60
