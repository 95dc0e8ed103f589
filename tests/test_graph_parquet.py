"""Graphs as Parquet files, against the same edges as a TSV."""

import pathlib

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from tfgraphreg import cli
from tfgraphreg.errors import GraphError
from tfgraphreg.graph.npz import read_npz
from tfgraphreg.graph.parquet import read_parquet, write_parquet, write_parquet_folder
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.graph.tsv import read_tsv

IDS = ["a", "b", "c", "ö d"]
ROWS = [
    ("a", "b", 0.5),
    ("a", "b", 0.75),
    ("b", "b", 1.0),
    ("b", "test", 0.1),
    ("c", "ö d", 0.0),
    ("o\u0308 d", "a", 2.0),
]


def table(rows=ROWS, **changes):
    source, target, weight = zip(*rows)
    return pyarrow.table({"source": source, "target": target, "weight": weight, **changes})


def save(tmp_path, made, name="graph.parquet"):
    parquet.write_table(made, tmp_path / name)
    return tmp_path / name


def same(one, two):
    for name in ("indptr", "indices", "weights"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_the_edges_are_those_of_a_tsv_of_the_same_rows(tmp_path):
    found = read_parquet(save(tmp_path, table()), IDS, others=["test"])
    lines = "".join(f"{s}\t{t}\t{w}\n" for s, t, w in ROWS)
    (tmp_path / "graph.tsv").write_text(lines, encoding="utf-8")
    expected = read_tsv(tmp_path / "graph.tsv", IDS, others=["test"])
    same(found, expected)
    for name in ("lines", "self_loops_dropped", "outside_dropped"):
        assert found.about[name] == expected.about[name] > 0


def test_columns_of_other_kinds_and_no_weights(tmp_path):
    dictionary = pyarrow.array([r[0] for r in ROWS]).dictionary_encode()
    large = pyarrow.array([r[1] for r in ROWS], pyarrow.large_string())
    made = table(source=dictionary, target=large, more=[0] * len(ROWS)).drop_columns(["weight"])
    found = read_parquet(save(tmp_path, made), IDS, others=["test"])
    assert found.num_edges == 3 and (found.weights == 1).all()
    whole = table(weight=pyarrow.array([1, 2, 3, 4, 5, 6]))
    assert read_parquet(save(tmp_path, whole), IDS, others=["test"]).weights.max() == 6


@pytest.mark.parametrize("part_edges", [7, 40, 1000])
def test_a_folder_of_parts_gives_the_graph_back(tmp_path, part_edges):
    rng = np.random.default_rng(0)
    sources, steps = np.repeat(np.arange(50), 4), np.tile([1, 5, 9, 30], 50)
    weights = rng.uniform(size=200).astype(np.float32)
    graph = SimilarityGraph.from_edges(sources, (sources + steps) % 50, weights, 50)
    ids = [f"n{i}" for i in range(50)]
    folder = tmp_path / "g.parquet"
    seen = []
    write_parquet_folder(
        graph, ids, folder, part_edges=part_edges, progress=lambda *a: seen.append(a)
    )
    assert len(list(folder.iterdir())) == len(seen) == -(-200 // part_edges)
    assert max(parquet.read_metadata(p).num_rows for p in folder.iterdir()) <= part_edges
    (folder / "_SUCCESS").touch()
    same(read_parquet(folder, ids), graph)
    write_parquet(graph, ids, tmp_path / "one.parquet")
    same(read_parquet(tmp_path / "one.parquet", ids), graph)
    assert parquet.read_table(folder).num_rows == 200


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target": ["nobody"] * 6}, "no image of this dataset.*nobody"),
        ({"source": [1, 2, 3, 4, 5, 6]}, "must hold ids as text"),
        ({"weight": ["1"] * 6}, "must hold numbers"),
        ({"weight": [1, 1, 1, 1, 1, -1]}, "negative"),
        ({"weight": [1.0, 1, 1, 1, 1, float("nan")]}, "not finite"),
        ({"weight": [1.0, 1, 1, 1, 1, None]}, "missing"),
        ({"weight": [1.0, 1, 1, 1, 1, 1e300]}, "not finite"),
        ({"source": ["a", "b", "a", "b", "c", None]}, "no source"),
        ({"source": ["test"] * 6}, "holds no edge.*6 rows"),
    ],
)
def test_wrong_tables_are_refused(tmp_path, changes, words):
    with pytest.raises(GraphError, match=words):
        read_parquet(save(tmp_path, table(**changes)), IDS, others=["test"])


def test_wrong_files_are_refused(tmp_path):
    path = save(tmp_path, table().rename_columns(["sauce", "target", "weight"]))
    with pytest.raises(GraphError, match="one column source"):
        read_parquet(path, IDS)
    path = save(tmp_path, table())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(GraphError, match="no Parquet file that can be read"):
        read_parquet(path, IDS)
    (tmp_path / "empty.parquet").mkdir()
    with pytest.raises(GraphError, match="holds no Parquet file"):
        read_parquet(tmp_path / "empty.parquet", IDS)
    with pytest.raises(GraphError, match="no such Parquet file"):
        read_parquet(tmp_path / "none.parquet", IDS)


@pytest.mark.usefixtures("workplace")
def test_build_graph_writes_a_folder_that_train_reads(capsys):
    words = ["--dataset", "digits", "--limit", "200", "--out", "out", "--parquet"]
    assert cli.run_command("build-graph", words) == 0
    with np.load("out/graph.npz") as arrays:
        ids = arrays["ids"]
    same(read_parquet("out/graph.parquet", ids), read_npz("out/graph.npz")[0])
    trained = ["--dataset", "digits", "--limit", "200", "--epochs", "1", "--run-dir", "run"]
    graph = ["--graph", "out/graph.parquet"]
    assert cli.run_command("train", [*trained, *graph]) == 0
    # The run is bound to the content of the files.
    part = next(pathlib.Path("out/graph.parquet").iterdir())
    parquet.write_table(parquet.read_table(part).slice(1), part)
    capsys.readouterr()
    assert cli.run_command("train", [*trained, *graph, "--resume"]) == 2
    assert cli.run_command("train", ["--dataset", "digits", "--graph", "no.parquet"]) == 2
    assert "no.parquet" in capsys.readouterr().err
