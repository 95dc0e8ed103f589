import numpy as np
import pytest
from references_graph import gaussian_weights, knn
from scipy.spatial import distance as scipy_distance

from tfgraphreg.distances import Distance
from tfgraphreg.errors import ConfigError, GraphError, UnknownNameError
from tfgraphreg.graph.knn import knn_graph
from tfgraphreg.graph.weights import WEIGHTINGS, edge_weights
from tfgraphreg.search import others
from tfgraphreg.search.measured import Measured
from tfgraphreg.search.others import nearest_others

SCIPY = {
    "cosine": scipy_distance.cosine,
    "euclidean": scipy_distance.euclidean,
    "sqeuclidean": scipy_distance.sqeuclidean,
    "manhattan": scipy_distance.cityblock,
}


def features(n=60, d=6, seed=0):
    return np.random.default_rng(seed).uniform(0.1, 1, size=(n, d)).astype(np.float32)


@pytest.mark.parametrize("metric", sorted(SCIPY))
@pytest.mark.parametrize("method", ["exact", "ivf", "hnsw"])
def test_neighbors_are_the_nearest(metric, method):
    if method == "ivf" and metric == "manhattan":
        pytest.skip("FAISS keeps no inverted lists by L1; what is said then is tested below")
    x = features()
    nodes, distances = knn(x, 5, SCIPY[metric])
    found = nearest_others(Measured.of(x, metric), 5, method=method)
    np.testing.assert_array_equal(found.indices, nodes)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-9)
    assert found.method == method and found.recall == 1.0


def test_knn_graph_has_exactly_k_edges_a_node_and_cosine_weights():
    x = features()
    graph = knn_graph(x, k=5)
    nodes, distances = knn(x, 5, scipy_distance.cosine)
    assert (graph.degrees() == 5).all()
    expected = np.zeros((60, 60))
    np.put_along_axis(expected, nodes, 1 - distances, 1)
    np.testing.assert_allclose(graph.to_scipy().toarray(), expected, atol=1e-7)
    assert graph.about["method"] == "exact" and graph.about["metric"] == "cosine"


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "manhattan"])
@pytest.mark.parametrize("weighting", [w for w in WEIGHTINGS if w != "shared_neighbors"])
def test_more_copies_than_k(metric, weighting):
    x = np.concatenate([np.tile(features(1, 4, 1), (40, 1)), features(20, 4, 2), np.zeros((9, 4))])
    graph = knn_graph(x, k=3, distance=metric, weighting=weighting)
    assert (graph.degrees() == 3).all()
    assert (graph.sources() != graph.indices).all()
    assert (graph.weights > 0).all() and (graph.weights <= 1).all()
    # The copies, and the black images, are each other's neighbors at the full weight.
    for rows in (range(40), range(60, 69)):
        for i in rows:
            nodes, weights = graph.neighbors(i)
            assert set(nodes) <= set(rows) and (weights == 1).all()


def test_local_gaussian_weights_equal_those_of_graphlearning():
    import graphlearning as gl
    from sklearn.neighbors import NearestNeighbors

    x = features(60).astype(np.float64)
    distances, nodes = NearestNeighbors(n_neighbors=7).fit(x).kneighbors(x)
    expected = gl.weightmatrix.knn(
        None, 6, kernel="gaussian", symmetrize=False, knn_data=(nodes, distances)
    ).toarray()
    graph = knn_graph(x, k=6, distance="euclidean", weighting="local_gaussian")
    np.testing.assert_allclose(graph.to_scipy().toarray(), expected, atol=1e-5)
    nodes, distances = knn(x, 6, scipy_distance.cosine)
    expected = np.zeros((60, 60))
    ratios = distances / distances.max(axis=1, keepdims=True)
    np.put_along_axis(expected, nodes, np.exp(-4 * ratios**2), 1)
    graph = knn_graph(x, k=6, weighting="local_gaussian")
    np.testing.assert_allclose(graph.to_scipy().toarray(), expected, atol=1e-4)


def test_weights_by_shared_neighbors_are_squares_of_jaccard_indices():
    from sklearn.metrics import jaccard_score

    x = features(60)
    graph = knn_graph(x, k=6, weighting="shared_neighbors")
    beside = graph.to_scipy().toarray() > 0
    np.fill_diagonal(beside, True)
    for i, j, weight in zip(graph.sources(), graph.indices, graph.weights):
        assert weight == pytest.approx(jaccard_score(beside[i], beside[j]) ** 2, rel=1e-6)
    assert 0 < graph.weights.min() < graph.weights.max() <= 1
    # In any order of the edges, with nodes that no edge leaves and neighborhoods of any size.
    sources, targets = np.array([4, 0, 4, 0, 2, 0]), np.array([2, 4, 0, 2, 4, 3])
    weights = edge_weights("shared_neighbors", Measured.of(x[:5], "cosine"), sources, targets)
    sets = {0: {0, 2, 3, 4}, 2: {2, 4}, 3: {3}, 4: {0, 2, 4}}
    expected = [len(sets[a] & sets[b]) / len(sets[a] | sets[b]) for a, b in zip(sources, targets)]
    np.testing.assert_allclose(weights, np.square(expected), rtol=1e-6)
    # Groups of copies as large as a neighborhood are each other's whole neighborhood.
    copies = np.repeat(features(5), 4, axis=0)
    assert (knn_graph(copies, k=3, weighting="shared_neighbors").weights == 1).all()


def test_gaussian_weights_equal_loops():
    x = features(40)
    for metric, distance in (
        ("euclidean", scipy_distance.euclidean),
        ("sqeuclidean", scipy_distance.euclidean),
        ("cosine", lambda a, b: np.sqrt(scipy_distance.cosine(a, b))),
    ):
        for k in (4, 9):
            graph = knn_graph(x, k=k, distance=metric, weighting="gaussian")
            nodes = graph.indices.reshape(40, k)
            expected = gaussian_weights(x.astype(float), nodes, distance)
            np.testing.assert_allclose(graph.weights.reshape(40, k), expected, rtol=1e-5)


def test_far_from_the_origin_is_still_exact():
    x = features(50, 5).astype(np.float64) + 1000.0
    nodes, _ = knn(x.astype(np.float32), 4, scipy_distance.euclidean)
    found = nearest_others(Measured.of(x, "euclidean"), 4)
    np.testing.assert_array_equal(found.indices, nodes)


@pytest.mark.parametrize("size", [1e18, 1e-18])
def test_very_large_and_small_features(size):
    x = features(30)
    for metric in ("cosine", "euclidean", "manhattan"):
        plain = nearest_others(Measured.of(x, metric), 3).indices
        scaled = nearest_others(Measured.of(x * np.float32(size), metric), 3)
        np.testing.assert_array_equal(plain, scaled.indices)
        assert np.isfinite(scaled.distances).all()


def test_same_result_twice_and_symmetrized():
    x = features(200, 8)
    first, second = (knn_graph(x, k=7, weighting="gaussian") for _ in range(2))
    np.testing.assert_array_equal(first.indices, second.indices)
    np.testing.assert_array_equal(first.weights, second.weights)
    both = knn_graph(x, k=7, symmetrize=True).to_scipy()
    assert (both != both.T).nnz == 0


@pytest.mark.parametrize("method", ["ivf", "hnsw"])
def test_progress_and_measured_recall(method):
    calls = []
    x = np.random.default_rng(0).normal(size=(3000, 64)).astype(np.float32)
    graph = knn_graph(x, k=10, method=method, progress=lambda *a: calls.append(a))
    truth = knn_graph(x, k=10, method="exact")
    share = graph.to_scipy().multiply(truth.to_scipy() > 0).nnz / truth.num_edges
    assert graph.about["recall"] == pytest.approx(share, abs=0.02) and share > 0.5
    assert calls[-1] == ("neighbors", 3000, 3000) and ("index", 3000, 3000) in calls


def clusters(n=6000, width=16):
    rng = np.random.default_rng(3)
    centers = rng.normal(size=(60, width)) * 4
    return (centers[rng.integers(60, size=n)] + rng.normal(size=(n, width))).astype(np.float32)


def test_lists_reach_as_far_as_the_neighbors_need(monkeypatch):
    monkeypatch.setitem(others._EXACT_WORK, "METRIC_L2", 0)
    for x, metric in ((clusters(), "cosine"), (clusters(), "euclidean")):
        graph = knn_graph(x, k=10, distance=metric)
        truth = knn_graph(x, k=10, distance=metric, method="exact")
        share = graph.to_scipy().multiply(truth.to_scipy() > 0).nnz / truth.num_edges
        assert graph.about["method"] == "ivf"
        assert share > 0.99 and graph.about["recall"] == pytest.approx(share, abs=0.01)
        same = knn_graph(x, k=10, distance=metric)
        np.testing.assert_array_equal(graph.indices, same.indices)


def test_where_lists_do_not_help_the_search_is_exact_while_it_can_be(monkeypatch):
    monkeypatch.setitem(others._EXACT_WORK, "METRIC_L2", 0)
    # Without any structure the neighbors of an item are in all lists.
    x = np.random.default_rng(0).normal(size=(3000, 64)).astype(np.float32)
    assert knn_graph(x, k=10).about["method"] == "exact"
    monkeypatch.setattr(others, "_HARD_WORK", 0)
    about = knn_graph(x, k=10).about
    assert about["method"] == "ivf" and about["recall"] < 0.99
    with pytest.raises(GraphError, match=r"no inverted lists for the distance manhattan"):
        knn_graph(x, k=10, distance="manhattan", method="ivf")


def test_bad_input_says_what_to_do():
    x = features(8)
    with pytest.raises(
        ConfigError,
        match=r"`k` must be smaller than the number of items\. Received: k=10, items=8\. "
        r"Use k <= 7\.",
    ):
        knn_graph(x, k=10)
    with pytest.raises(ConfigError, match=r"k=8, items=8"):
        knn_graph(x, k=8)
    with pytest.raises(ConfigError, match=r"`k` must be at least 1\. Received: k=0"):
        knn_graph(x, k=0)
    with pytest.raises(ConfigError, match=r"at least two items"):
        knn_graph(x[:1], k=1)
    with pytest.raises(ConfigError, match=r"`method` must be one of auto, exact, ivf, hnsw"):
        knn_graph(x, k=2, method="fast")
    with pytest.raises(ConfigError, match=r"`weighting` must be one of cosine, gaussian, local"):
        knn_graph(x, k=2, weighting="linear")
    with pytest.raises(UnknownNameError, match=r"Did you mean euclidean"):
        knn_graph(x, k=2, distance="euclid")
    broken = x.copy()
    broken[3, 1] = np.nan
    with pytest.raises(GraphError, match=r"1 rows with NaN or infinity, the first is row 3"):
        knn_graph(broken, k=2)
    with pytest.raises(GraphError, match=r"\[N, D\]"):
        knn_graph(x[0], k=2)


@pytest.mark.parametrize("metric", ["histogram_intersection", "kl", "js", "mahalanobis"])
@pytest.mark.parametrize("method", ["exact", "ivf", "hnsw"])
def test_other_metrics_are_exact_too(metric, method):
    if method == "ivf" and metric == "histogram_intersection":
        pytest.skip("FAISS keeps no inverted lists by L1; what is said then is tested above")
    measured = Measured.of(features(), metric)
    one = measured.distance.array
    nodes, _ = knn(measured.features, 5, lambda a, b: one(a[None], b[None])[0])
    found = nearest_others(measured, 5, method=method)
    if method == "exact":
        np.testing.assert_array_equal(found.indices, nodes)
    else:
        assert found.recall > 0.9


def test_a_metric_of_ones_own_and_negative_histograms():
    chebyshev = Distance("my_own", None, lambda x, y: np.abs(x - y).max(-1))
    x = features()
    nodes, _ = knn(x, 5, scipy_distance.chebyshev)
    np.testing.assert_array_equal(nearest_others(Measured.of(x, chebyshev), 5).indices, nodes)
    with pytest.raises(GraphError, match=r"no approximate search for the distance my_own"):
        nearest_others(Measured.of(x, chebyshev), 5, method="hnsw")
    with pytest.raises(GraphError, match=r"js compares histograms: features must not be negative"):
        knn_graph(x - 1, k=3, distance="js")
