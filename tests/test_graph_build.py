import networkx
import numpy as np
import pytest
from scipy.stats import skew

from tfgraphreg.errors import ConfigError, GraphError
from tfgraphreg.graph.build import build_graph, rewired, union
from tfgraphreg.graph.diagnostics import diagnose
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.search.measured import Measured


def features(n=80, d=5, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def dense(graph):
    return graph.to_scipy().toarray()


def test_mutual_keeps_what_goes_both_ways():
    knn, both = (dense(build_graph(kind, features(), k=4)) for kind in ("knn", "mutual"))
    np.testing.assert_array_equal(both, np.where((knn > 0) & (knn.T > 0), knn, 0))


def test_threshold_is_all_similar_pairs():
    x = features()
    units = x / np.linalg.norm(x, axis=1, keepdims=True)
    similar = units @ units.T
    np.fill_diagonal(similar, 0)
    found = dense(build_graph("threshold", x, threshold=0.5))
    np.testing.assert_allclose(found, np.where(similar >= 0.5, similar, 0), atol=1e-6)
    with pytest.raises(GraphError, match=r"No two items are that similar.*threshold=1"):
        build_graph("threshold", x, threshold=1.0)
    with pytest.raises(ConfigError, match=r"`threshold` must be from -1 to 1"):
        build_graph("threshold", x, threshold=2)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine", "mahalanobis", "js"])
def test_radius_is_all_near_pairs(metric):
    measured = Measured.of(np.abs(features()), metric)
    apart = np.stack(
        [measured.distance.array(x[None], measured.features) for x in measured.features]
    )
    np.fill_diagonal(apart, np.inf)
    radius = float(np.median(apart))
    graph = build_graph(
        "radius", np.abs(features()), metric=metric, radius=radius, weighting="binary"
    )
    np.testing.assert_array_equal(dense(graph) > 0, apart <= radius)
    with pytest.raises(GraphError, match=r"No two items are that near.*radius=1e-09"):
        build_graph("radius", features() ** 2, metric=metric, radius=1e-9)
    with pytest.raises(ConfigError, match=r"`radius` must be a finite number > 0"):
        build_graph("radius", features() ** 2, metric=metric, radius=0.0)
    with pytest.raises(ConfigError, match=r"needs a `radius`"):
        build_graph("radius", features())


def test_class_graph_joins_only_classes():
    labels = np.repeat([0, 1, 3, -1], [32, 7, 7, 34])
    graph = build_graph("class", features(), k=6, labels=labels, weighting="binary")
    sources, targets = graph.sources(), graph.indices
    assert (labels[sources] == labels[targets]).all() and (labels[sources] >= 0).all()
    assert graph.degrees().tolist() == [6] * 46 + [0] * 34
    assert graph.in_degrees().tolist() == [6] * 46 + [0] * 34
    multi = np.stack([labels == 0, np.arange(80) < 10], axis=1).astype(np.int8)
    graph = build_graph("class", features(), k=3, labels=multi)
    assert ((multi[graph.sources()] & multi[graph.indices]).any(1)).all()
    with pytest.raises(ConfigError, match=r"one label for every item. Received: None labels"):
        build_graph("class", features())
    with pytest.raises(
        ConfigError, match=r"k=7, and class number 1 has 7 labeled.*k <= 6 \(`graph_neighbors`"
    ):
        build_graph("class", features(), k=7, labels=labels)
    with pytest.raises(ConfigError, match=r"class number 0 has 1 labeled.*label more"):
        build_graph("class", features(3), k=1, labels=np.array([0, 1, -1]))
    with pytest.raises(GraphError, match=r"No item is labeled"):
        build_graph("class", features(3), labels=np.full(3, -1))


def test_random_keeps_degrees_and_weights():
    knn = build_graph("knn", features(), k=4)
    control = build_graph("random", features(), k=4, seed=1)
    np.testing.assert_array_equal(knn.degrees(), control.degrees())
    np.testing.assert_array_equal(knn.in_degrees(), control.in_degrees())
    for node in range(80):
        mine, theirs = (np.sort(g.neighbors(node)[1]) for g in (knn, control))
        np.testing.assert_array_equal(mine, theirs)
    assert (dense(knn) > 0)[dense(control) > 0].mean() < 0.3
    np.testing.assert_array_equal(dense(control), dense(rewired(knn, seed=1)))
    full = build_graph("random", features(5), k=4)
    assert (full.degrees() == 4).all()


def test_union_takes_the_larger_weight():
    a, b = (
        build_graph("knn", features(), k=3),
        build_graph("knn", features(), k=5, weighting="binary"),
    )
    np.testing.assert_array_equal(dense(union([a, b])), np.maximum(dense(a), dense(b)))
    with pytest.raises(GraphError, match=r"node counts \[5, 80\]"):
        union([a, build_graph("knn", features(5), k=1)])


def test_diagnose_equals_networkx_and_loops():
    graph = build_graph("mutual", features(120), k=3)
    labels = np.random.default_rng(0).integers(-1, 3, 120)
    found = diagnose(graph, labels)
    reference = networkx.from_scipy_sparse_array(graph.to_scipy(), create_using=networkx.DiGraph)
    parts = list(networkx.weakly_connected_components(reference))
    assert found["components"] == len(parts)
    assert found["largest_component"] == max(map(len, parts))
    assert found["isolated"] == networkx.number_of_isolates(reference) > 0
    assert found["hubness_skew"] == pytest.approx(skew(graph.in_degrees()))
    edges = [(s, t) for s, t in reference.edges if labels[s] >= 0 and labels[t] >= 0]
    assert found["labeled_edges"] == len(edges)
    assert found["edge_label_agreement"] == np.mean([labels[s] == labels[t] for s, t in edges])
    for c in range(3):
        mine = [labels[t] == c for s, t in edges if labels[s] == c]
        assert found["edge_label_agreement_per_class"][c] == np.mean(mine)
    one_hot = np.eye(3, dtype=np.int8)[labels]
    one_hot[labels < 0] = -1
    again = diagnose(graph, one_hot)
    assert again["edge_label_agreement"] == found["edge_label_agreement"]
    assert again["edge_label_agreement_per_class"] == found["edge_label_agreement_per_class"]
    assert found["why_zero"] is None and found["degree_min"] == 0
    with pytest.raises(GraphError, match=r"3 labels, 120 nodes"):
        diagnose(graph, labels[:3])


def test_why_zero():
    assert "no edges" in diagnose(SimilarityGraph.from_edges([], [], [], 3))["why_zero"]
    assert "no nodes" in diagnose(SimilarityGraph.from_edges([], [], [], 0))["why_zero"]
    zero = diagnose(SimilarityGraph.from_edges([0], [1], [0], 3), np.array([-1, -1, 0]))
    assert "weight 0" in zero["why_zero"] and zero["edge_label_agreement"] is None


def test_bad_input():
    with pytest.raises(ConfigError, match=r"`kind` must be one of knn, mutual, threshold"):
        build_graph("nearest", features())
    with pytest.raises(ConfigError, match=r"`k` must be at least 1"):
        build_graph("class", features(), k=0, labels=np.zeros(80, int))
