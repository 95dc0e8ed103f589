import numpy as np
import pytest

from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.evaluation.faithfulness import (
    continuity,
    edge_neighbor_share,
    faithfulness_report,
    trustworthiness,
)
from tfgraphreg.graph.similarity import SimilarityGraph


def _points(n=60, width=5, seed=0):
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def _knn_graph(x, k):
    d = np.linalg.norm(x[:, None] - x[None], axis=-1)
    np.fill_diagonal(d, np.inf)
    targets = np.argsort(d, axis=1)[:, :k]
    sources = np.repeat(np.arange(len(x)), k)
    return SimilarityGraph.from_edges(sources, targets.ravel(), np.ones(len(x) * k), len(x))


def test_trustworthiness_and_continuity_equal_scikit_learn():
    manifold = pytest.importorskip("sklearn.manifold")
    x, z = _points(), _points(seed=1, width=2)
    options = {"k": 7, "feature_distance": "euclidean", "distance": "euclidean", "sample": None}
    assert trustworthiness(x, z, **options) == pytest.approx(
        manifold.trustworthiness(x, z, n_neighbors=7)
    )
    assert continuity(x, z, **options) == pytest.approx(
        manifold.trustworthiness(z, x, n_neighbors=7)
    )
    options["distance"] = "cosine"
    assert trustworthiness(x, z, **options) == pytest.approx(
        manifold.trustworthiness(x, z / np.linalg.norm(z, axis=1, keepdims=True), n_neighbors=7)
    )


def test_a_sample_comes_near_the_whole_and_repeats():
    x, z = _points(400), _points(400, seed=1, width=2)
    z += x[:, :2]
    whole = trustworthiness(x, z, sample=None)
    some = trustworthiness(x, z, sample=200, seed=3)
    assert some == trustworthiness(x, z, sample=200, seed=3)
    assert some == pytest.approx(whole, abs=0.05) and some != whole


def test_an_unchanged_space_is_wholly_faithful():
    x = _points()
    graph = _knn_graph(x, 4)
    report = faithfulness_report(
        graph, x, features=x, distance="euclidean", feature_distance="euclidean", k=5
    )
    assert report["edge_neighbor_share"] == 1.0
    assert report["trustworthiness"] == report["continuity"] == 1.0
    assert report["mean_edge_distance"] < report["mean_random_distance"]
    sources = np.repeat(np.arange(60), 4)
    expected = np.linalg.norm(x[sources] - x[graph.indices], axis=1).mean()
    assert report["mean_edge_distance"] == pytest.approx(expected)
    pairs = np.linalg.norm(x[:, None] - x[None], axis=-1).sum() / (60 * 59)
    assert report["mean_random_distance"] == pytest.approx(pairs, rel=0.02)


def test_edge_share_by_plain_loops_with_unequal_degrees():
    x, z = _points(30), _points(30, seed=2)
    sources, targets = np.array([0, 0, 0, 5, 7, 7]), np.array([1, 2, 3, 9, 8, 20])
    graph = SimilarityGraph.from_edges(sources, targets, np.ones(6), 30)
    kept = 0
    for node in range(30):
        mine = targets[sources == node]
        d = np.linalg.norm(z - z[node], axis=1)
        d[node] = np.inf
        kept += len(set(mine) & set(np.argsort(d)[: len(mine)]))
    assert edge_neighbor_share(graph, z, distance="euclidean") == kept / 6
    assert len(x) == graph.num_nodes


def test_no_edges_and_a_collapsed_embedding_give_nan():
    empty = SimilarityGraph.from_edges([], [], [], 4)
    report = faithfulness_report(empty, _points(4))
    assert all(np.isnan(value) for value in report.values())
    graph = _knn_graph(_points(8), 2)
    report = faithfulness_report(graph, np.ones((8, 3)), distance="euclidean")
    assert report["mean_edge_distance"] == 0 and np.isnan(report["distance_ratio"])


def test_progress_is_told():
    calls = []
    edge_neighbor_share(_knn_graph(_points(), 3), _points(), progress=lambda *c: calls.append(c))
    assert calls[-1] == (60, 60)


def test_bad_input_is_named():
    x = _points(10)
    with pytest.raises(DataError, match=r"same number of items\. Received: 10 and 9"):
        faithfulness_report(_knn_graph(x, 2), x[:9])
    with pytest.raises(ConfigError, match="smaller than half the number of items"):
        trustworthiness(x, x, k=5)
