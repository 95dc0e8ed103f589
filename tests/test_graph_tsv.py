import re
import time

import numpy as np
import pytest

from tfgraphreg.compat import nsl
from tfgraphreg.errors import ConfigError, DataError, GraphError
from tfgraphreg.graph.npz import read_npz, write_npz
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.graph.tsv import read_tsv, write_tsv
from tfgraphreg.graph.weights import check_trainable

IDS = ["a", "b", "c", "ö d"]


def save(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "edges.tsv"
    path.write_bytes(text.encode(encoding))
    return path


def random_graph(n=50, k=4):
    rng = np.random.default_rng(0)
    steps = rng.permuted(np.tile(np.arange(1, n), (n, 1)), axis=1)[:, :k]
    targets = (np.arange(n)[:, None] + steps) % n
    weights = rng.uniform(size=n * k).astype(np.float32)
    weights[:3] = [1e-20, np.nextafter(np.float32(1), np.float32(0)), 3e38]
    return SimilarityGraph.from_edges(np.repeat(np.arange(n), k), targets.ravel(), weights, n)


def same(a, b):
    return all(
        np.array_equal(getattr(a, f), getattr(b, f)) for f in ("indptr", "indices", "weights")
    )


def test_reads_what_nsl_reads(tmp_path):
    path = save(tmp_path, "a\tb\t0.5\na\tb\t0.75\na\tb\t0.25\nb\tc\r\nc\ta\t1e-3\na\tö d\t0\n\n")
    graph = read_tsv(path, IDS)
    plain = nsl.tools.read_tsv_graph(str(save(tmp_path, path.read_text().replace("\n\n", "\n"))))
    found = {}
    for s, t, w in zip(graph.sources(), graph.indices, graph.weights):
        found.setdefault(IDS[s], {})[IDS[t]] = w
    assert found.keys() == plain.keys()
    for source in plain:
        assert found[source] == {t: np.float32(w) for t, w in plain[source].items()}
    assert graph.about["self_loops_dropped"] == 0


def test_a_byte_order_mark_is_no_part_of_an_id(tmp_path):
    assert read_tsv(save(tmp_path, "a\tb\n", "utf-8-sig"), IDS).num_edges == 1
    with pytest.raises(GraphError, match="holds no edge"):
        read_tsv(save(tmp_path, "", "utf-8-sig"), IDS)


def test_self_loops_and_unknown_ids_are_counted(tmp_path):
    path = save(tmp_path, "a\ta\nb\tb\t2\na\tb\nx\ta\n")
    graph = read_tsv(path, IDS, on_unknown="skip")
    assert graph.num_edges == 1
    assert graph.about["self_loops_dropped"] == 2 and graph.about["unknown_dropped"] == 1


def test_edges_to_images_that_are_no_nodes_are_counted(tmp_path):
    path = save(tmp_path, "a\tb\na\ttest 1\ntest 1\ttest 2\nb\ta\t0.5\n")
    graph = read_tsv(path, IDS, others=["test 1", "test 2"])
    assert graph.num_edges == 2 and graph.about["outside_dropped"] == 2
    with pytest.raises(GraphError, match=r"line 3: 'test 2' is no id.*Did you mean test 1"):
        read_tsv(path, IDS, others=["test 1"])
    with pytest.raises(GraphError, match=r"4 edges to images that are no nodes"):
        read_tsv(path, ["test 1", "z"], others=["test 2", *IDS])
    # Both forms of an accented letter name one id.
    assert read_tsv(save(tmp_path, "a\to\u0308 d\n"), IDS).neighbors(0)[0].tolist() == [3]


def test_an_npz_of_other_images_gives_the_edges_between_these(tmp_path):
    graph, names = random_graph(), [f"item {i}" for i in range(50)]
    write_npz(graph, names, tmp_path / "g.npz")
    write_tsv(graph, names, tmp_path / "g.tsv")
    ids = [*names[40:10:-1], "new"]
    found, said = read_npz(tmp_path / "g.npz", ids, others=names)
    same_by_tsv = read_tsv(tmp_path / "g.tsv", ids, others=names)
    assert same(found, same_by_tsv) and said.tolist() == ids
    assert found.about["outside_dropped"] == same_by_tsv.about["outside_dropped"] > 0
    with pytest.raises(
        GraphError, match=r"no image of this dataset\. Received: 'item 0'\. Did you"
    ):
        read_npz(tmp_path / "g.npz", ids, others=names[1:])
    with pytest.raises(GraphError, match=r"holds no edge between two of the 2 nodes"):
        read_npz(tmp_path / "g.npz", ["x", "y"], others=names)


def test_weights_too_large_to_train_with_say_so():
    graph = SimilarityGraph.from_edges([0, 1], [1, 2], [1.0, 1e38], 3)
    with pytest.raises(
        GraphError, match=r"largest weight of 1e\+38, of an edge of node 1\. Divide"
    ):
        check_trainable(graph)
    check_trainable(SimilarityGraph.from_edges([0, 1], [1, 2], [1.0, 1e6], 3))


@pytest.mark.parametrize(
    "text,message",
    [
        ("a\tb\nbad line\n", "line 2: 1 tab-separated columns instead of 2 or 3. Received: 'bad l"),
        ("a\tb\t1\t2\n", "line 1: 4 tab-separated columns"),
        ("a\tb\tmuch\n", "line 1: the weight is no number. Received: 'a\\tb\\tmuch'"),
        ("a\tb\t\n", "line 1: the weight is no number"),
        ("a\tb\t1_000\n", "line 1: the weight is no number. Received: 'a\\tb\\t1_000'"),
        ("a\tb\t١\n", "line 1: the weight is no number"),
        ("a\tb\nb\tc\t-1\n", "line 2: the weight is negative. Received: 'b\\tc\\t-1'"),
        ("a\tb\tnan\n", "line 1: the weight is not finite"),
        ("a\tb\tinf\n", "line 1: the weight is not finite"),
        ("a\tb\t1e39\n", "line 1: the weight is not finite"),
        ("a\tb\na\tz\n", "line 2: 'z' is no id"),
        ("q\tb\n", "line 1: 'q' is no id"),
        ("", "holds no edge between two of the 4 nodes. Received: 0 lines."),
        ("\n\n", "holds no edge"),
        ("a\ta\n", "holds no edge between two of the 4 nodes. Received: 1 lines; 1 self loops"),
        ("a\t" + "b" * 500 + "\n", "is no id"),
        ("a\t" + "b" * 100_000 + "\n", "line 1: the line is too long"),
        ("a\to d\n", "'o d' is no id. Received: 'a\\to d'. Did you mean ö d?"),
    ],
)
def test_a_bad_line_is_named(tmp_path, text, message):
    path = save(tmp_path, text)
    with pytest.raises(GraphError, match=re.escape(message)) as error:
        read_tsv(path, IDS)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert len(str(error.value)) < 800


def test_other_refusals(tmp_path):
    with pytest.raises(GraphError, match=r"line 1: the text is not UTF-8"):
        read_tsv(save(tmp_path, "ö d\ta\n", "latin-1"), IDS)
    with pytest.raises(GraphError, match=r"cannot be read \(No such file"):
        read_tsv(tmp_path / "none.tsv", IDS)
    with pytest.raises(GraphError, match=r"cannot be read \(Is a directory"):
        read_tsv(tmp_path, IDS)
    with pytest.raises(GraphError, match=r"2 items with 1 different ids"):
        read_tsv(save(tmp_path, "a\tb\n"), ["a", "a"])
    with pytest.raises(ConfigError, match=r"`on_unknown` must be error or skip"):
        read_tsv(save(tmp_path, "a\tb\n"), IDS, on_unknown="ignore")
    graph = random_graph(3, 1)
    with pytest.raises(GraphError, match=r"must not be empty nor hold a tab"):
        write_tsv(graph, ["a", "b\tc", "d"], tmp_path / "out.tsv")
    with pytest.raises(GraphError, match=r"2 ids, 3 nodes"):
        write_tsv(graph, ["a", "b"], tmp_path / "out.tsv")
    assert not (tmp_path / "out.tsv").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be written"):
        write_tsv(graph, ["a", "b", "c"], tmp_path / "file" / "out.tsv")


def test_tsv_round_trip_is_exact_also_through_nsl(tmp_path):
    graph, ids = random_graph(), [f"item {i}" for i in range(50)]
    write_tsv(graph, ids, tmp_path / "g.tsv")
    assert same(read_tsv(tmp_path / "g.tsv", ids), graph)
    plain = nsl.tools.read_tsv_graph(str(tmp_path / "g.tsv"))
    for s, t, w in zip(graph.sources(), graph.indices, graph.weights):
        assert np.float32(plain[ids[s]][ids[t]]) == w


def test_npz_round_trip_and_refusals(tmp_path):
    graph, ids = random_graph(), [f"item {i}" for i in range(50)]
    path = tmp_path / "g.npz"
    write_npz(graph, ids, path)
    again, names = read_npz(path, ids)
    assert same(again, graph) and names.tolist() == ids
    with pytest.raises(GraphError, match=r"graph of other items"):
        read_npz(path, ids[::-1])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(GraphError, match=r"no graph file that can be read"):
        read_npz(path)
    np.savez(tmp_path / "pickle.npz", indptr=np.array([{}], dtype=object))
    with pytest.raises(GraphError, match=r"no graph file that can be read"):
        read_npz(tmp_path / "pickle.npz")
    with pytest.raises(GraphError, match=r"no graph file"):
        read_npz(tmp_path / "none.npz")
    parts = {"indptr": [0, 1, 1], "indices": [1], "weights": [0.5], "about": "{}"}
    for wrong in ({"indptr": ["x"]}, {"indices": [0.5]}, {"about": "[]"}, {"ids": "a"}):
        np.savez(tmp_path / "wrong.npz", **{**parts, "ids": ["a", "b"], **wrong})
        with pytest.raises(GraphError, match=r"no graph file that can be read \(its arrays"):
            read_npz(tmp_path / "wrong.npz")


def test_an_npz_that_was_changed_or_exchanged_is_refused(tmp_path):
    graph, ids = random_graph(), [f"item {i}" for i in range(50)]
    path, other = tmp_path / "g.npz", tmp_path / "other.npz"
    write_npz(graph, ids, path, key="one")
    write_npz(graph, ids, other, key="two")
    assert same(read_npz(path, ids, key="one")[0], graph)
    with np.load(path) as file:
        arrays = dict(file)
    for changed in (
        {"weights": arrays["weights"] / 2},
        {"ids": arrays["ids"][::-1]},
        {"about": np.asarray('{"k": 1}')},
        {"digest": np.asarray("0" * 20)},
    ):
        np.savez(tmp_path / "changed.npz", **{**arrays, **changed})
        with pytest.raises(GraphError, match="changed after it was written"):
            read_npz(tmp_path / "changed.npz", key="one")
    with pytest.raises(GraphError, match="changed after it was written"):
        read_npz(other, ids, key="one")
    # Without a digest: of an earlier version or another program, but never of the cache.
    del arrays["digest"]
    np.savez(tmp_path / "plain.npz", **arrays)
    assert same(read_npz(tmp_path / "plain.npz", ids)[0], graph)
    with pytest.raises(GraphError, match="changed after it was written"):
        read_npz(tmp_path / "plain.npz", ids, key="one")


def test_any_flipped_byte_of_an_npz_is_seen(tmp_path):
    graph, rng = random_graph(), np.random.default_rng(0)
    path = tmp_path / "g.npz"
    write_npz(graph, [f"item {i}" for i in range(50)], path, key="k")
    good = path.read_bytes()
    for _ in range(200):
        content = bytearray(good)
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(content)
        # A byte that says nothing, such as the time in the archive, may change.
        try:
            assert same(read_npz(path, key="k")[0], graph)
        except GraphError as error:
            assert "\n" not in str(error)


def test_many_edges_are_fast(tmp_path):
    n = 20_000
    graph = SimilarityGraph.from_edges(
        np.repeat(np.arange(n), 10),
        (np.repeat(np.arange(n), 10) + np.tile(np.arange(1, 11), n)) % n,
        np.random.default_rng(0).uniform(size=10 * n),
        n,
    )
    ids = [f"train_{i}" for i in range(n)]
    calls = []
    start = time.monotonic()
    write_tsv(graph, ids, tmp_path / "g.tsv")
    again = read_tsv(tmp_path / "g.tsv", ids, progress=lambda *a: calls.append(a))
    assert same(graph, again) and calls
    # One second on an idle core; a quadratic reader would take hours.
    assert time.monotonic() - start < 60
