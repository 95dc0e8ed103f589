import numpy as np
import pytest
from references_neighbors import exact_edge_probabilities, random_graph

from tfgraphreg.errors import ConfigError
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.neighbors import matching, sampling


def small_graph():
    """Six nodes: a hub, a chain, one-way and mutual edges, unequal weights."""
    sources = np.array([0, 0, 0, 1, 2, 3, 3, 4, 5])
    targets = np.array([1, 2, 3, 0, 3, 2, 4, 5, 0])
    weights = np.array([0.9, 0.1, 0.5, 0.9, 0.2, 0.6, 1.0, 0.3, 0.4])
    return SimilarityGraph.from_edges(sources, targets, weights, 6)


def pairs_of(graph, matched):
    takers = np.flatnonzero(matched >= 0)
    return takers, graph.indices[matched[takers]]


@pytest.mark.parametrize("by_weight", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_is_a_maximal_matching(seed, by_weight):
    graph = random_graph(n=60, seed=seed)
    matched = matching.draw_matching(graph, seed=seed, by_weight=by_weight)
    takers, taken = pairs_of(graph, matched)
    used = np.concatenate([takers, taken])
    assert len(np.unique(used)) == len(used)
    assert (matched[taken] == -1).all()
    assert (np.delete(matched, used) == -2).all()
    for node, edge in zip(takers, matched[takers]):
        assert graph.indptr[node] <= edge < graph.indptr[node + 1]
    free = np.ones(graph.num_nodes, bool)
    free[used] = False
    assert not (free[graph.sources()] & free[graph.indices]).any()


def test_depends_on_the_seed_alone():
    graph = random_graph(n=200)
    first = matching.draw_matching(graph, seed=5)
    np.testing.assert_array_equal(first, matching.draw_matching(graph, seed=5))
    assert (first != matching.draw_matching(graph, seed=6)).any()


@pytest.mark.parametrize("by_weight", [False, True])
def test_every_edge_is_drawn_as_often_as_it_should_be(by_weight):
    graph = small_graph()
    exact = exact_edge_probabilities(graph, by_weight=by_weight)
    draws = 20_000
    measured = matching.edge_probabilities(graph, draws=draws, seed=3, by_weight=by_weight)
    assert (exact > 0).all()
    error = np.sqrt(exact * (1 - exact) / draws)
    assert (np.abs(measured - exact) < 4.5 * error).all()


def test_edges_of_weight_zero_are_not_drawn_by_weight():
    graph = SimilarityGraph.from_edges([0, 1, 2], [1, 2, 0], [0.0, 1.0, 0.0], 3)
    for seed in range(20):
        matched = matching.draw_matching(graph, seed=seed, by_weight=True)
        assert matched.tolist() == [-2, 1, -1]


def test_the_expected_graph_term_is_the_reweighted_edge_sum():
    graph = random_graph(n=40, most=8, seed=4)
    # Nodes with many neighbors, whose edges are drawn seldom, lie far out.
    degrees = graph.degrees() + graph.in_degrees()
    embedding = np.random.default_rng(0).normal(size=(40, 3)) * degrees[:, None]
    distance = ((embedding[graph.sources()] - embedding[graph.indices]) ** 2).sum(1)
    order = np.arange(40)
    draws = 4000
    measured = matching.edge_probabilities(graph, draws=draws, seed=10**6)
    factors = matching.correction(measured, draws=draws, largest=np.inf)

    def mean_term(correction):
        terms = []
        for seed in range(draws):
            matched = matching.draw_matching(graph, seed=seed)
            nodes, weights = matching.side_by_side(graph, matched, order, correction=correction)
            left, right = embedding[nodes[0::2]], embedding[nodes[1::2]]
            terms.append((weights[0::2] * ((left - right) ** 2).sum(1)).sum())
        return np.mean(terms), np.std(terms) / np.sqrt(draws)

    # Without correction: every edge counts as often as it is drawn.
    plain, error = mean_term(None)
    assert abs(plain - (measured * graph.weights * distance).sum()) < 6 * error
    # With it: in proportion to the plain sum over all edges.
    edge_sum = (graph.weights * distance).sum()
    corrected, error = mean_term(factors)
    assert abs(corrected - measured.mean() * edge_sum) < 6 * error
    # And without it, it is not: the edges of this graph are not drawn alike.
    assert abs(plain - measured.mean() * edge_sum) > 10 * error


def test_correction_is_bounded_and_finite_for_edges_never_seen():
    factors = matching.correction(np.array([0.0, 0.5, 0.5]), draws=100, largest=4.0)
    assert factors.dtype == np.float32
    assert factors[0] == 4.0
    np.testing.assert_allclose(factors[1:], 0.3366 / 0.5, rtol=0.01)
    with pytest.raises(ConfigError, match=r"`draws` must be at least 1. Received: draws=0."):
        matching.edge_probabilities(small_graph(), draws=0)


@pytest.mark.parametrize("n", [60, 61])
def test_lays_every_node_out_once_and_pairs_side_by_side(n):
    graph = random_graph(n=n, most=3, seed=2)
    matched = matching.draw_matching(graph, seed=0)
    order = np.random.default_rng(1).permutation(n)
    nodes, weights = matching.side_by_side(graph, matched, order)
    np.testing.assert_array_equal(np.sort(nodes), np.arange(n))
    takers, taken = pairs_of(graph, matched)
    expected = {
        frozenset((int(a), int(b))): graph.weights[e]
        for a, b, e in zip(takers, taken, matched[takers])
    }
    even = n // 2 * 2
    found = {}
    for i in range(0, even, 2):
        assert weights[i] == weights[i + 1]
        if weights[i]:
            found[frozenset(nodes[i : i + 2].tolist())] = weights[i]
    assert found == expected
    assert (weights[even:] == 0).all()
    # Pairs come in the order of their first node.
    place = np.argsort(order)
    first = [min(place[a], place[b]) for a, b in nodes[:even].reshape(-1, 2)[weights[:even:2] > 0]]
    assert first == sorted(first)


@pytest.mark.parametrize("n", [400, 401])
def test_pairs_of_a_kind_come_at_even_distances(n):
    rng = np.random.default_rng(0)
    nodes = rng.permutation(n)
    pairs = nodes[: n // 2 * 2].reshape(-1, 2)
    weights = np.zeros(n, np.float32)
    weights[: n // 2 * 2] = np.repeat(1 + pairs[:, 0], 2)
    # Kinds 0, 1 and 2 of 120, 60 and 20 pairs; a second node says it where the first does not.
    kinds = np.full(n, -1)
    of_pair = np.repeat([0, 1, 2], [120, 60, 20])
    kinds[pairs[:, 0]] = of_pair
    kinds[pairs[:, 1]] = np.where(of_pair == 1, 2, of_pair)
    kinds[pairs[::3, 0]] = -1
    kinds[pairs[::3, 1]] = of_pair[::3]

    moved, moved_weights = matching.spread(nodes, weights, kinds, seed=5)

    after = moved[: n // 2 * 2].reshape(-1, 2)
    assert sorted(map(tuple, after)) == sorted(map(tuple, pairs))
    expected = np.repeat(1 + after[:, 0], 2)
    np.testing.assert_array_equal(moved_weights[: n // 2 * 2], expected)
    if n % 2:
        assert moved[-1] == nodes[-1] and moved_weights[-1] == 0
    kind_of = dict(zip(pairs[:, 0], of_pair))
    kind_after = np.array([kind_of[first] for first in after[:, 0]])
    # In every tenth of the epoch there are as many of a kind as in any other, give or take two.
    for part in kind_after.reshape(10, 20):
        assert abs(np.bincount(part, minlength=3) - [12, 6, 2]).max() <= 2
    again, _ = matching.spread(nodes, weights, kinds, seed=5)
    other, _ = matching.spread(nodes, weights, kinds, seed=6)
    np.testing.assert_array_equal(moved, again)
    assert (moved != other).any()


def test_sampled_neighbors_are_distinct_neighbors_with_their_weights():
    graph = random_graph(n=80)
    for by_weight in (False, True):
        near, weights = sampling.sample_neighbors(graph, 3, draw=9, by_weight=by_weight)
        again, _ = sampling.sample_neighbors(graph, 3, draw=9, by_weight=by_weight)
        np.testing.assert_array_equal(near, again)
        for node in range(80):
            others, own = graph.neighbors(node)
            kept = near[node][near[node] >= 0]
            assert len(kept) == min(3, len(others)) == len(set(kept.tolist()))
            assert (near[node][len(kept) :] == -1).all()
            assert (weights[node][len(kept) :] == 0).all()
            known = dict(zip(others.tolist(), own))
            given = weights[node][: len(kept)]
            if by_weight:
                np.testing.assert_allclose(given, own.mean() if len(kept) else 0, rtol=1e-6)
            else:
                assert given.tolist() == [known[i] for i in kept.tolist()]


@pytest.mark.parametrize("by_weight", [False, True])
def test_the_mean_over_samples_is_the_mean_over_edges(by_weight):
    graph = SimilarityGraph.from_edges([0, 0, 0, 0], [1, 2, 3, 4], [0.1, 0.2, 0.3, 0.8], 5)
    distance = np.array([0.0, 4.0, 3.0, 2.0, 1.0])
    terms = []
    for draw in range(20_000):
        near, weights = sampling.sample_neighbors(graph, 1, draw=draw, by_weight=by_weight)
        terms.append(weights[0, 0] * distance[near[0, 0]])
    error = np.std(terms) / np.sqrt(len(terms))
    assert abs(np.mean(terms) - (graph.weights * distance[1:]).mean()) < 4.5 * error


def test_neighbors_drawn_by_weight_without_replacement():
    graph = SimilarityGraph.from_edges([0, 0, 0], [1, 2, 3], [1.0, 2.0, 5.0], 4)
    counts = np.zeros((4, 4))
    for draw in range(20_000):
        near, _ = sampling.sample_neighbors(graph, 2, draw=draw, by_weight=True)
        counts[near[0, 0], near[0, 1]] += 1
    shares = dict(zip([1, 2, 3], [1 / 8, 2 / 8, 5 / 8]))
    for first, p in shares.items():
        for second, q in shares.items():
            if first != second:
                assert abs(counts[first, second] / 20_000 - p * q / (1 - p)) < 0.016


@pytest.mark.parametrize("k", [1, 2, 4, 9])
def test_top_neighbors_are_those_of_the_graph(k):
    graph = random_graph(n=150, most=8)
    ids = [f"n{i}" for i in range(150)]
    for names in (None, ids):
        expected, found = graph.top(k, names), sampling.top_neighbors(graph, k, names)
        for a, b in zip(expected, found):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
    assert (graph.top(k, ids)[0] != graph.top(k)[0]).any()


def test_unknown_way_to_sample():
    with pytest.raises(ConfigError, match=r"Received: 'best'. Use one of top, uniform, weight."):
        sampling.chooser(small_graph(), 1, "best")
