"""Minimum-distortion embeddings: what PyMDE is asked, and what it must keep."""

from importlib.util import find_spec

import numpy as np
import pytest

from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.visualize.mde import _edges, _spectral, layout, load_pymde

# Not importorskip: PyMDE may need the stand-in for torchvision to be imported.
if find_spec("pymde") is None:
    pytest.skip("PyMDE, of the extra mde, is not installed", allow_module_level=True)


def _clusters(n=90, width=6, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    return (6 * np.eye(3, width)[labels] + rng.normal(size=(n, width))).astype(np.float32), labels


def _ring(n):
    here = np.arange(n)
    return SimilarityGraph.from_edges(here, (here + 1) % n, np.ones(n), n)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("variant", ["neighbors", "standardized"])
def test_clusters_stay_apart_and_the_picture_repeats(dim, variant):
    from sklearn.neighbors import KNeighborsClassifier

    x, labels = _clusters()
    made = layout(x, dim=dim, variant=variant, neighbors=10)
    assert made.points.shape == (90, dim) and np.isfinite(made.points).all()
    near = KNeighborsClassifier(5).fit(made.points, labels)
    assert near.score(made.points, labels) > 0.95
    state = np.random.get_state()[1].copy()
    again = layout(x, dim=dim, variant=variant, neighbors=10)
    np.testing.assert_array_equal(made.points, again.points)
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_starts_from_the_first_eigenvectors_and_repeats_them():
    """Against a dense solver, on a graph that is large enough for the sparse one."""
    from sklearn.datasets import load_digits

    n, edges, weights = _edges(load_pymde(), load_digits().data, None)
    edges, weights = edges.numpy(), weights.numpy()
    start = _spectral(edges, weights, (n, 2), seed=0).numpy()
    adjacency = np.zeros((n, n))
    adjacency[edges[:, 0], edges[:, 1]] = adjacency[edges[:, 1], edges[:, 0]] = weights
    _, vectors = np.linalg.eigh(np.diag(adjacency.sum(0)) - adjacency)
    overlap = np.linalg.svd(np.linalg.qr(start)[0].T @ vectors[:, 1:3])[1]
    np.testing.assert_allclose(overlap, 1, atol=1e-3)
    for _ in range(3):
        again = _spectral(edges, weights, (n, 2), seed=0).numpy()
        np.testing.assert_array_equal(start, again)


@pytest.mark.parametrize("variant", ["standardized", "quadratic"])
def test_standardized_pictures_have_mean_zero_and_covariance_one(variant):
    points = layout(_clusters()[0], variant=variant, neighbors=5).points.astype(np.float64)
    np.testing.assert_allclose(points.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(points.T @ points / len(points), np.eye(2), atol=1e-3)


def test_the_quadratic_picture_of_a_ring_reaches_the_eigenvalues_of_its_laplacian():
    graph = _ring(24)
    found = layout(graph, variant="quadratic", max_iterations=1000)
    laplacian = 2 * np.eye(24) - np.roll(np.eye(24), 1, 0) - np.roll(np.eye(24), -1, 0)
    best = np.sort(np.linalg.eigvalsh(laplacian))[1:3].sum()
    # Mean over the 24 edges of squared lengths, points of covariance one.
    assert found.average == pytest.approx(best * 24 / 24, rel=1e-2)


def test_the_edges_of_a_given_graph_are_the_pairs():
    graph = _ring(20)
    made = layout(graph)
    wanted = sorted(tuple(sorted((i, (i + 1) % 20))) for i in range(20))
    assert sorted(map(tuple, made.pairs.tolist())) == wanted
    pairs, distortions = made.worst_pairs(5)
    assert len(pairs) == 5 and (np.diff(distortions) <= 0).all()
    assert distortions[0] == made.distortions.max()


def test_anchors_stay_and_new_items_come_to_their_neighbors():
    x, labels = _clusters()
    old = np.arange(60)
    first = layout(x[old], neighbors=8)
    both = layout(x, neighbors=8, anchors=old, anchor_points=first.points)
    np.testing.assert_array_equal(both.points[old], first.points)
    centers = np.stack([first.points[labels[old] == c].mean(0) for c in range(3)])
    gaps = np.linalg.norm(both.points[60:, None] - centers[None], axis=-1)
    assert (gaps.argmin(1) == labels[60:]).mean() > 0.9


def test_progress_counts_up_to_the_end_of_the_work():
    calls = []
    layout(_clusters()[0], max_iterations=20, progress=lambda *call: calls.append(call))
    assert len(calls) > 5 and calls == sorted(calls)
    assert all(done <= total == 20 for done, total in calls)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"dim": 4}, ConfigError, "`dim` must be 2 or 3"),
        ({"variant": "umap"}, ConfigError, "`variant` must be one of"),
        ({"neighbors": 90}, ConfigError, "`neighbors` must be at least 1 and smaller"),
        ({"variant": "quadratic", "anchors": [0]}, ConfigError, "Anchors need the variant"),
        (
            {"anchors": [0, 0], "anchor_points": np.zeros((2, 2))},
            DataError,
            "Anchors must be different items",
        ),
        (
            {"anchors": [0, 900], "anchor_points": np.zeros((2, 2))},
            DataError,
            "Anchors must be different items",
        ),
    ],
)
def test_bad_input_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        layout(_clusters()[0], **arguments)


def test_too_few_items_and_no_edges_are_named():
    with pytest.raises(DataError, match="more items than dimensions"):
        layout(np.ones((3, 4)))
    with pytest.raises(DataError, match="at least one edge"):
        layout(SimilarityGraph.from_edges([], [], [], 9))
    with pytest.raises(DataError, match="`data` must be finite"):
        layout(np.full((9, 2), np.nan))
