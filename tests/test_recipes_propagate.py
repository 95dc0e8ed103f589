"""The command that labels unlabeled images along a graph, and its table."""

import csv

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tfgraphreg.cli import run_command
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.dataset import Dataset, Split
from tfgraphreg.errors import ConfigError
from tfgraphreg.propagation import propagate
from tfgraphreg.recipes.propagate import COLUMNS, Labeling, propagate_labels

pytestmark = pytest.mark.usefixtures("workplace")
DIGITS = ("--dataset", "digits", "--limit", "500", "--graph-features", "pixels")


def read(path, separator="\t"):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter=separator))


def test_the_table_says_of_each_image_what_it_got_and_from_where(capsys):
    words = [*DIGITS, "--labels-per-class", "5", "--class-sizes", "equal", "--out", "found.csv"]
    assert run_command("propagate", words) == 0
    said = capsys.readouterr().out
    rows = read("found.csv", ",")
    assert tuple(rows[0]) == COLUMNS and len(rows) == 500
    by_id = {row["id"]: row for row in rows}
    given = [row for row in rows if row["given"] == "yes"]
    assert len(given) == 50 and "50 labels given, 450 propagated" in said
    for row in given:
        assert row["label"] == row["true"] and row["source"] == row["id"]
        assert float(row["probability"]) == float(row["certainty"]) == 1
    for row in rows:
        source = by_id[row["source"]]
        assert source["given"] == "yes" and source["label"] == row["label"]
        assert 0 <= float(row["certainty"]) <= 1 and 0.1 <= float(row["probability"]) <= 1
    rest = [row for row in rows if row["given"] == "no"]
    right = np.mean([row["label"] == row["true"] for row in rest])
    assert f"right: {right:.1%} of the 450 images" in said and right > 0.85
    counts = np.unique([row["label"] for row in rows], return_counts=True)[1]
    assert len(counts) == 10 and np.abs(counts - 50).max() <= 2


def test_the_method_and_its_settings_are_what_the_function_takes():
    config = TrainConfig(
        dataset="digits", limit=300, labels_per_class=3, graph_features="pixels", seed=1
    )
    words = [*DIGITS[:3], "300", *DIGITS[4:], "--labels-per-class", "3", "--seed", "1"]
    words += ["--graph-weights", "cosine", "--method-settings", "alpha=0.8"]
    assert run_command("propagate", words) == 0
    labeling = propagate_labels(config, alpha=0.8)
    assert [tuple(row.values()) for row in read("labels.tsv")] == list(labeling.rows())
    other = propagate_labels(config, method="poisson-mbo", class_sizes="equal", rounds=2)
    assert other.found.settings["rounds"] == 2
    assert (other.found.labels != labeling.found.labels).any()


def test_a_folder_with_unlabeled_images(capsys):
    from pathlib import Path

    data = load_digits()
    rows = {d: np.flatnonzero(data.target == d)[:60] for d in (0, 1)}
    for digit, indices in rows.items():
        for place, i in enumerate(indices):
            folder = Path("photos", f"digit {digit}" if place < 8 else "_unlabeled")
            folder.mkdir(parents=True, exist_ok=True)
            pixels = np.kron(data.images[i] * 15, np.ones((2, 2))).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{digit}-{i}.png")
    assert run_command("propagate", ["--dataset", "folder:photos"]) == 0
    table = read("labels.tsv")
    unlabeled = [row for row in table if "_unlabeled" in row["id"]]
    assert len(unlabeled) == 104 and all(row["true"] == "" for row in unlabeled)
    right = [row["label"] == f"digit {row['id'].split('/')[-1][0]}" for row in unlabeled]
    assert np.mean(right) > 0.97
    assert "right:" not in capsys.readouterr().out  # nothing is known to measure by


def test_a_graph_of_ones_own_and_images_that_it_does_not_reach(capsys):
    config = TrainConfig(dataset="digits", limit=200, labels_per_class=2, graph_features="pixels")
    labeling = propagate_labels(config)
    ids, given = labeling.dataset.train.ids, labeling.dataset.train.labeled
    seen, alone = np.flatnonzero(given), np.flatnonzero(~given)[1:]
    with open("edges.tsv", "w") as file:
        for i in seen[1:]:
            file.write(f"{ids[seen[0]]}\t{ids[i]}\t1.0\n")
        file.write(f"{ids[seen[0]]}\t{ids[np.flatnonzero(~given)[0]]}\t0.5\n")
    capsys.readouterr()
    words = [*DIGITS[:3], "200", "--labels-per-class", "2", "--graph", "edges.tsv"]
    assert run_command("propagate", words) == 0
    assert "179 images have no label" in capsys.readouterr().out
    rows = read("labels.tsv")
    for i in alone:
        assert [rows[i][name] for name in ("label", "probability", "certainty", "source")] == [
            "",
            "",
            "0.0000",
            "",
        ]


def test_several_classes_an_image_are_listed():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(3, 5))[np.arange(30) % 3] * 5 + rng.normal(size=(30, 5))
    true = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0]], np.int8)[np.arange(30) % 3]
    labels = true.copy()
    labels[6:] = -1
    from tfgraphreg.graph.knn import knn_graph

    ids = np.array([f"image {i}" for i in range(30)])
    split = Split(np.zeros((30, 4, 4, 1), np.uint8), labels, ids)
    dataset = Dataset("d", split, split, split, ("cat", "dog", "tree"), "here", "x")
    found = propagate(knn_graph(points, k=4, distance="euclidean"), labels, 3)
    labeling = Labeling(dataset, true, found)
    rows = list(labeling.rows())
    assert [row[1] for row in rows[6:9]] == ["cat;tree", "dog", ""]
    chances = np.where(found.labels == 1, found.probabilities, 1 - found.probabilities).prod(1)
    assert [float(row[2]) for row in rows] == pytest.approx(chances, abs=1e-4)
    assert labeling.summary()["accuracy"] == 1 and labeling.summary()["measured"] == 24
    one_wrong = np.where(np.arange(30)[:, None] == 29, 1 - true, true)
    assert Labeling(dataset, one_wrong, found).summary()["accuracy"] == pytest.approx(23 / 24)


@pytest.mark.parametrize(
    "words, says",
    [
        ((), "Every training image is labeled.*--labels-per-class.*_unlabeled"),
        (("--labels-per-class", "5", "--method", "poison"), "Did you mean poisson"),
        (("--labels-per-class", "5", "--method-settings", "alpha"), "NAME=NUMBER. Received: alpha"),
        (("--labels-per-class", "5", "--method-settings", "beta=1"), "no setting 'beta'"),
        (("--labels-per-class", "5", "--method-settings", "progress=1"), "no setting 'progress'"),
        (("--labels-per-class", "5", "--class-sizes", "1,x"), "--class-sizes.*numbers with commas"),
        (("--labels-per-class", "5", "--class-sizes", "1,2"), "10 numbers above 0"),
        (("--labels-per-class", "5", "--out", "labels.xls"), "ends in .tsv or .csv"),
        (("--labels-per-class", "5", "--method", "poisson-mbo"), "needs to know the class sizes"),
    ],
)
def test_refuses_in_one_line(capsys, words, says):
    import re

    assert run_command("propagate", [*DIGITS, *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and re.search(says, lines[0]), lines


def test_refuses_before_the_graph_is_built(monkeypatch):
    def never(*_):
        raise AssertionError("the graph was built")

    monkeypatch.setattr("tfgraphreg.recipes.propagate.prepare_graph", never)
    with pytest.raises(ConfigError, match="nothing to propagate"):
        propagate_labels(TrainConfig(dataset="digits"))
