"""Embeddings, predictions and edges as tables that other programs read."""

import json
import pathlib
import re

import numpy as np
import pyarrow.parquet
import pytest

from tfgraphreg import cli
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.dataset import Dataset, Split
from tfgraphreg.features.vectors import read_vectors
from tfgraphreg.graph.tsv import read_tsv
from tfgraphreg.recipes.embeddings import Embedded, embedded, write_embeddings
from tfgraphreg.recipes.graphs import training_graph
from tfgraphreg.recipes.train import train
from tfgraphreg.runs.folder import read_run
from tfgraphreg.runs.outputs import load_data, within_budget

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "handover.md"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embeddings")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFGRAPHREG_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        config = TrainConfig(
            dataset="digits",
            backbone="fcnn",
            epochs=1,
            neighbors="paired",
            alpha=0.1,
            validation_fraction=0.1,
            labels_per_class=10,
            run_dir="run",
        )
        run = train(config)
        words = ["--run", "run", "--out", "embeddings.parquet", "--edges", "edges.parquet"]
        assert cli.run_command("embeddings", words) == 0
        yield folder, run


def test_the_table_is_what_the_model_says(made):
    folder, run = made
    data = load_data(run.config, lambda *_: None)
    table = pyarrow.parquet.read_table(folder / "embeddings.parquet")
    splits = {name: getattr(data, name) for name in ("train", "validation", "test")}
    names = json.loads(table.schema.metadata[b"class_names"])
    assert names == list(data.class_names)
    assert table["id"].to_pylist() == [i for s in splits.values() for i in s.ids.tolist()]
    assert table["split"].to_pylist() == [n for n, s in splits.items() for _ in range(len(s))]
    labels = np.concatenate([split.labels for split in splits.values()])
    assert table["label"].to_pylist() == [names[label] for label in labels]
    assert sum(table["given"].to_pylist()) == 100
    test = run.predictor(np.asarray(data.test.images))
    start = len(data.train) + len(data.validation)
    vectors = np.array(table["vector"].to_pylist(), np.float32)
    np.testing.assert_array_equal(vectors[start:], test["embedding"])
    scores = np.array(table["probabilities"].to_pylist(), np.float32)
    np.testing.assert_array_equal(scores[start:], test["probabilities"])
    assert table["prediction"].to_pylist() == [names[c] for c in scores.argmax(axis=1)]
    np.testing.assert_array_equal(table["probability"].to_numpy(), scores.max(axis=1))


def test_npz_holds_the_same_without_pickle(made, tmp_path):
    folder, run = made
    table = pyarrow.parquet.read_table(folder / "embeddings.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_embeddings(read_run(run.path), tmp_path / "e.npz")
    with np.load(tmp_path / "e.npz", allow_pickle=False) as arrays:
        assert arrays["ids"].tolist() == table["id"].to_pylist()
        assert arrays["splits"].tolist() == table["split"].to_pylist()
        assert arrays["class_names"][arrays["labels"]].tolist() == table["label"].to_pylist()
        np.testing.assert_array_equal(arrays["vectors"], table["vector"].to_pylist())
        np.testing.assert_array_equal(arrays["given"], table["given"].to_pylist())


def test_edges_are_those_of_the_training_graph(made, tmp_path, monkeypatch):
    folder, run = made
    monkeypatch.chdir(folder)
    data = load_data(run.config, lambda *_: None)
    graph = training_graph(run.config, within_budget(run.config, data), lambda *_: None)
    table = pyarrow.parquet.read_table(folder / "edges.parquet")
    assert len(table) == graph.num_edges > 0
    number = {name: i for i, name in enumerate(data.train.ids.tolist())}
    found = {
        (number[s], number[t]): w
        for s, t, w in zip(*(table[c].to_pylist() for c in ("source", "target", "weight")))
    }
    dense = graph.to_scipy().todok()
    assert found == {(int(s), int(t)): float(w) for (s, t), w in dense.items()}
    write_embeddings(read_run(run.path), tmp_path / "e.npz", edges=tmp_path / "edges.tsv")
    assert read_tsv(tmp_path / "edges.tsv", ids=data.train.ids).num_edges == graph.num_edges


def test_the_file_is_a_file_of_vectors_to_this_package(made):
    folder, run = made
    data = load_data(run.config, lambda *_: None)
    found = read_vectors(
        folder / "embeddings.parquet", data.train.ids, others=data.ids_beside_train
    )
    expected = run.predictor(np.asarray(data.train.images))["embedding"]
    np.testing.assert_array_equal(found, expected)


def test_the_code_of_the_page_runs(made, monkeypatch, capsys):
    monkeypatch.chdir(made[0])
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    names = {}
    for block in blocks:
        exec(block, names)
    assert names["graph"].number_of_nodes() == (names["table"].split == "train").sum()
    assert 0.5 < names["model"].score(np.stack(names["test"].vector), names["test"].label) <= 1


def test_several_classes_an_image_are_lists(tmp_path):
    images = np.zeros((3, 4, 4, 1), np.uint8)
    labels = np.array([[1, 0, 1], [0, 0, 0], [-1, -1, -1]], np.int8)
    split = Split(images, labels, np.array(["a", "b", "c"]))
    none = split.take(np.arange(0))
    data = Dataset("d", split, none, none, ("x", "y", "z"), "made", "0")

    class Model:
        class_names = data.class_names

    def answer(model, images, *_):
        scores = np.array([[0.9, 0.1, 0.5], [0.2, 0.1, 0.4], [0, 0, 1]], np.float32)
        return {"probabilities": scores, "embedding": np.eye(3, dtype=np.float32)}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfgraphreg.recipes.embeddings.ask", answer)
        found = embedded(Model(), data, data)
    table = found.to_arrow()
    assert isinstance(found, Embedded) and found.given.tolist() == [True, True, False]
    assert table["label"].to_pylist() == [["x", "z"], [], None]
    assert table["prediction"].to_pylist() == [["x", "z"], [], ["z"]]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--out", "e.csv"], "`--out` must be a file that ends with .parquet or .npz"),
        (["--edges", "e.npz"], "`--edges` must be a file that ends with .parquet or .tsv"),
        (["--out", "e.parquet", "--edges", "e.parquet"], "must be two files"),
        (["--out", "edges.parquet/e.parquet"], "cannot be written"),
    ],
)
def test_files_that_cannot_be_are_one_line(made, words, error, capsys, monkeypatch):
    monkeypatch.chdir(made[0])
    before = sorted(path.name for path in made[0].iterdir())
    assert cli.run_command("embeddings", ["--run", "run", *words]) == 2
    said = capsys.readouterr().err
    assert error in said and said.count("\n") == 1
    assert sorted(path.name for path in made[0].iterdir()) == before
