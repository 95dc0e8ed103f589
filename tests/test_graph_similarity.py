import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfgraphreg.errors import GraphError
from tfgraphreg.graph.similarity import SimilarityGraph


def small():
    return SimilarityGraph.from_edges([2, 0, 0, 1], [0, 2, 1, 2], [0.5, 0.25, 0.25, 1.0], 4)


def test_basic_values():
    graph = small()
    assert graph.num_edges == 4 and graph.num_nodes == 4
    np.testing.assert_array_equal(graph.degrees(), [2, 1, 1, 0])
    np.testing.assert_array_equal(graph.in_degrees(), [1, 1, 2, 0])
    np.testing.assert_array_equal(graph.sources(), [0, 0, 1, 2])
    nodes, weights = graph.neighbors(0)
    assert nodes.tolist() == [1, 2] and weights.tolist() == [0.25, 0.25]
    assert graph.indices.dtype == np.int32 and graph.indptr.dtype == np.int64
    expected = np.zeros((4, 4))
    expected[[2, 0, 0, 1], [0, 2, 1, 2]] = [0.5, 0.25, 0.25, 1.0]
    np.testing.assert_array_equal(graph.to_scipy().toarray(), expected)


def test_top_breaks_ties_by_the_larger_id_as_a_string():
    # As strings "9" > "10", although 10 > 9.
    graph = SimilarityGraph.from_edges([0, 0, 0], [1, 2, 3], [0.5, 0.5, 0.9], 4)
    nodes, weights = graph.top(2, ["0", "10", "9", "11"])
    assert nodes[0].tolist() == [3, 2]
    assert nodes[1].tolist() == [-1, -1] and weights[1].tolist() == [0, 0]
    assert graph.top(2, ["0", "9", "10", "11"])[0][0].tolist() == [3, 1]
    assert graph.top(5)[0][0].tolist() == [3, 2, 1, -1, -1]
    np.testing.assert_array_equal(graph.top(5)[1][0], np.float32([0.9, 0.5, 0.5, 0, 0]))


edges = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 6), st.sampled_from([0.0, 0.25, 0.5, 1.0])).filter(
        lambda e: e[0] != e[1]
    ),
    max_size=30,
)


@settings(deadline=None, max_examples=60)
@given(edges)
def test_agrees_with_plain_loops_and_nsl(listed):
    from tfgraphreg.compat import nsl

    utils = nsl.tools.graph_utils
    ids = ["b", "a10", "a9", "c", "aa", "Z", "0"]
    plain = {}
    for s, t, w in listed:
        utils.add_edge(plain, [ids[s], ids[t], w])
    s, t, w = zip(*listed) if listed else ((), (), ())
    graph = SimilarityGraph.from_edges(s, t, w, 7)

    def as_dict(graph):
        found = {}
        for a, b, weight in zip(graph.sources(), graph.indices, graph.weights):
            found.setdefault(ids[a], {})[ids[b]] = float(weight)
        return found

    assert as_dict(graph) == plain
    nodes, _ = graph.top(3, ids)
    for i in range(7):
        best = sorted(((w, t) for t, w in plain.get(ids[i], {}).items()), reverse=True)[:3]
        assert [ids[j] for j in nodes[i] if j >= 0] == [t for _, t in best]
    utils.add_undirected_edges(plain)
    assert as_dict(graph.symmetrized()) == plain
    reference = networkx.from_scipy_sparse_array(graph.to_scipy(), create_using=networkx.DiGraph)
    assert dict(reference.in_degree()) == dict(enumerate(graph.in_degrees()))


@pytest.mark.parametrize(
    "arrays,message",
    [
        (([0, 1], [0], [1.0], 1), "must not be its own neighbor"),
        (([0, 1, 1], [2], [1.0], 2), "must be node numbers from 0 to num_nodes - 1"),
        (([0, 1, 1], [-1], [1.0], 2), "must be node numbers"),
        (([0, 1, 1], [1], [-1.0], 2), "finite and at least 0. Received: -1.0"),
        (([0, 1, 1], [1], [np.nan], 2), "finite and at least 0"),
        (([0, 1, 1], [1], [np.inf], 2), "finite and at least 0"),
        (([0, 2, 2], [1, 1], [1.0, 1.0], 2), "only once. Received: 0 -> 1 twice"),
        (([0, 1], [1], [1.0], 2), "one entry more"),
        (([0, 2, 1], [1], [1.0], 2), "never decrease"),
        (([0, 1, 2], [1], [1.0], 2), "length that `indptr` ends with"),
        (([0, 1, 1], [1.0], [1.0], 2), "must be integers"),
    ],
)
def test_refuses(arrays, message):
    indptr, indices, weights, n = arrays
    with pytest.raises(GraphError, match=message):
        SimilarityGraph(np.array(indptr), np.array(indices), np.array(weights), n)


def test_refuses_wrong_calls():
    with pytest.raises(GraphError, match=r"`k` must be at least 1"):
        small().top(0)
    with pytest.raises(GraphError, match=r"one id for every node\. Received: 1 ids, 4 nodes"):
        small().top(1, ["a"])
    with pytest.raises(GraphError, match=r"node=4, num_nodes=4"):
        small().neighbors(4)
    with pytest.raises(GraphError, match=r"`targets` must be node numbers"):
        SimilarityGraph.from_edges([0], [5], [1.0], 3)


def test_an_empty_graph_is_a_graph():
    graph = SimilarityGraph.from_edges([], [], [], 3)
    assert graph.num_edges == 0 and graph.symmetrized().num_edges == 0
    assert (graph.top(2)[0] == -1).all()
