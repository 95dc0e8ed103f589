"""Graphs from and to other libraries, against those libraries' own idea of the same graph."""

import networkx
import numpy as np
import pandas
import pyarrow
import pytest
from scipy import sparse
from sklearn.neighbors import kneighbors_graph

from tfgraphreg.errors import ConfigError, GraphError
from tfgraphreg.graph.knn import knn_graph
from tfgraphreg.graph.similarity import SimilarityGraph

IDS = ["cat", "dog", "emu", "fox"]


def graph():
    return SimilarityGraph.from_edges([2, 0, 0, 1], [0, 2, 1, 2], [0.5, 0.25, 0.25, 0.0], 4)


def same(a, b):
    fields = ("indptr", "indices", "weights")
    return a.num_nodes == b.num_nodes and all(
        np.array_equal(getattr(a, f), getattr(b, f)) for f in fields
    )


@pytest.mark.parametrize(
    "kind", ["csr_matrix", "csr_array", "coo_array", "csc_matrix", "lil_array"]
)
def test_scipy_both_ways(kind):
    matrix = getattr(sparse, kind)(graph().to_scipy())
    again = SimilarityGraph.from_scipy(matrix)
    np.testing.assert_array_equal(again.to_scipy().toarray(), matrix.toarray())
    # LIL stores no zeros; the others keep the edge of weight 0.
    assert same(again, graph()) or kind == "lil_array"


def test_scipy_adds_what_is_stored_twice_and_a_cleared_diagonal_is_none():
    matrix = sparse.coo_array(([0.25, 0.5, 1.0], ([0, 0, 1], [1, 1, 1])), shape=(2, 2))
    with pytest.raises(GraphError, match=r"1 self loops, the first at node 1.*setdiag\(0\)"):
        SimilarityGraph.from_scipy(matrix)
    matrix = matrix.tocsr()
    matrix.setdiag(0)
    assert SimilarityGraph.from_scipy(matrix).neighbors(0)[1].tolist() == [0.75]


def test_scikit_learns_graph_is_this_projects():
    x = np.random.default_rng(0).normal(size=(60, 5))
    theirs = SimilarityGraph.from_scipy(kneighbors_graph(x, 4))
    ours = knn_graph(x, k=4, distance="euclidean", weighting="binary")
    assert same(theirs, ours)


def test_pairs_both_ways():
    edges, weights = graph().to_pairs()
    assert edges.shape == (4, 2) and edges.dtype == np.int64
    assert same(SimilarityGraph.from_pairs(edges, weights, num_nodes=4), graph())
    assert SimilarityGraph.from_pairs(edges).num_nodes == 3
    assert SimilarityGraph.from_pairs(edges).weights.tolist() == [1.0] * 4
    assert SimilarityGraph.from_pairs([], num_nodes=2).num_edges == 0


def test_tables_both_ways():
    table = graph().to_table(IDS)
    assert table.column_names == ["source", "target", "weight"]
    frame = table.to_pandas()
    assert frame.loc[0].tolist() == ["cat", "dog", 0.25]
    for form in (table, frame, frame.to_dict("list")):
        assert same(SimilarityGraph.from_table(form, ids=IDS), graph())
    numbers = graph().to_table()
    assert same(SimilarityGraph.from_table(numbers, num_nodes=4), graph())
    renamed = frame.rename(columns={"source": "a", "target": "b"}).drop(columns="weight")
    found = SimilarityGraph.from_table(renamed, ids=IDS, source="a", target="b", weight=None)
    assert found.weights.tolist() == [1.0] * 4


def test_networkx_both_ways():
    theirs = graph().to_networkx(IDS)
    assert theirs["cat"]["emu"]["weight"] == 0.25 and theirs.number_of_nodes() == 4
    assert same(SimilarityGraph.from_networkx(theirs), graph())
    assert same(SimilarityGraph.from_networkx(theirs, ids=IDS), graph())
    path = networkx.path_graph(3)
    found = SimilarityGraph.from_networkx(path)
    np.testing.assert_array_equal(
        found.to_scipy().toarray(), networkx.to_numpy_array(path, weight=None)
    )
    assert SimilarityGraph.from_networkx(path, ids=[2, 1, 0, 9]).num_nodes == 4


@pytest.mark.parametrize(
    "make,message",
    [
        (lambda: SimilarityGraph.from_pairs([[0, 1, 2]]), r"shape \[E, 2\].*shape=\(1, 3\)"),
        (lambda: SimilarityGraph.from_pairs(np.zeros((2, 5), int)), r"Use edges\.T"),
        (lambda: SimilarityGraph.from_pairs([[0.0, 1.0]]), r"whole node numbers.*float64"),
        (lambda: SimilarityGraph.from_pairs([["a", "b"]]), r"Give `ids`"),
        (lambda: SimilarityGraph.from_pairs([[0, 1]], [1.0, 2.0]), r"one number for each edge"),
        (lambda: SimilarityGraph.from_pairs([[0, 1]], ["much"]), r"one number for each edge"),
        (lambda: SimilarityGraph.from_pairs([[0, 1]], [1e39]), r"finite and at least 0"),
        (lambda: SimilarityGraph.from_pairs([[0, 1]], [np.nan]), r"finite and at least 0"),
        (lambda: SimilarityGraph.from_pairs([[0, -1]]), r"from 0 to num_nodes - 1"),
        (lambda: SimilarityGraph.from_pairs([[0, 10**14]]), r"almost nothing but isolated nodes"),
        (lambda: SimilarityGraph.from_pairs([[0, 5]], num_nodes=3), r"5 to 5, num_nodes=3"),
        (lambda: SimilarityGraph.from_pairs([[1, 1]]), r"own neighbor"),
        (lambda: SimilarityGraph.from_scipy(np.eye(3)), r"scipy\.sparse matrix.*csr_array"),
        (lambda: SimilarityGraph.from_scipy(sparse.csr_array((2, 3))), r"must be square"),
        (
            lambda: SimilarityGraph.from_scipy(sparse.csr_array(np.array([[0, -1.0], [0, 0]]))),
            r"at least 0\. Received: -1\.0",
        ),
        (
            lambda: SimilarityGraph.from_table({"sources": [0], "target": [1]}),
            r"no column 'source'\. Received: columns sources, target\. Did you mean sources\?",
        ),
        (lambda: SimilarityGraph.from_table(7), r"no column 'source'\. Received: int"),
        (
            lambda: SimilarityGraph.from_table(
                {"source": ["cat"], "target": ["dgo"], "weight": [1]}, ids=IDS
            ),
            r"not among the ids\. Received: 'dgo'\. Did you mean dog\?",
        ),
        (
            lambda: SimilarityGraph.from_table(
                pandas.DataFrame({"source": [0, 1], "target": [1, None], "weight": [1, 1]})
            ),
            r"`target` must be one array of whole node numbers",
        ),
        (
            lambda: SimilarityGraph.from_table(
                pyarrow.table({"source": ["cat", None], "target": ["dog", "cat"]}),
                ids=IDS,
                weight=None,
            ),
            r"not among the ids\. Received: None",
        ),
        (
            lambda: SimilarityGraph.from_table(
                {"source": [0], "target": [1], "weight": [1]}, ids=IDS, num_nodes=3
            ),
            r"num_nodes=3, 4 ids",
        ),
        (
            lambda: SimilarityGraph.from_networkx(networkx.path_graph(3), ids=[0, 1]),
            r"not among the ids\. Received: 2",
        ),
        (
            lambda: SimilarityGraph.from_networkx(networkx.path_graph(3), ids=[0, 1, 1]),
            r"3 items with 2 different ids",
        ),
        (lambda: SimilarityGraph.from_edges([0.5], [1], [1.0], 2), r"`sources` must be one array"),
        (lambda: SimilarityGraph.from_edges([0, 1], [1], [1.0, 1.0], 2), r"2 sources, 1 targets"),
        (lambda: graph().to_table(IDS[:2]), r"2 ids, 4 nodes"),
    ],
)
def test_refusals_are_one_line(make, message):
    with pytest.raises(GraphError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_graph_is_short_in_a_notebook():
    x = np.random.default_rng(0).normal(size=(60, 5))
    assert repr(knn_graph(x)) == ("SimilarityGraph(60 nodes, 600 edges, knn, k=10, metric=cosine)")
    assert repr(graph()) == "SimilarityGraph(4 nodes, 4 edges)"


def test_vectors_of_any_number_type_and_the_old_name_of_distance():
    x = np.random.default_rng(0).integers(0, 100, (40, 6))
    expected = knn_graph(x.astype(np.float32), distance="euclidean")
    for dtype in (np.uint8, np.int64, np.float16, np.float64):
        assert same(knn_graph(x.astype(dtype), distance="euclidean"), expected)
    assert same(knn_graph(x.tolist(), distance="euclidean"), expected)
    with pytest.warns(DeprecationWarning, match=r"now called `distance`"):
        assert same(knn_graph(x, metric="euclidean"), expected)
    with pytest.raises(ConfigError, match="give one of them"):
        knn_graph(x, metric="euclidean", distance="manhattan")
    with pytest.raises(GraphError, match="`features` must be numbers"):
        knn_graph([["a"], ["b"]], k=1)
    with pytest.raises(GraphError, match="NaN or infinity"):
        knn_graph(np.full((3, 2), 1e300), k=1)
