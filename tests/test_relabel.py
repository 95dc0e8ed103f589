"""`--relabel audit.csv`: who gets another class, who is left out, and what is refused."""

import dataclasses

import numpy as np
import pytest

from tfgraphreg.cli import run_command
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.relabeled import relabeled
from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.recipes.graphs import file_mark
from tfgraphreg.runs.outputs import load_data

pytestmark = pytest.mark.usefixtures("workplace")


def write(rows, head="id,issue,suggested,action"):
    with open("audit.csv", "w", encoding="utf-8") as file:
        file.write("\n".join([head, *rows]) + "\n")
    return "audit.csv"


def digits(**settings):
    return load_data(TrainConfig(dataset="digits", limit=100, **settings), lambda *_: None)


def test_label_errors_get_the_class_and_the_rest_is_left_out():
    before = digits()
    ids, labels = before.train.ids, before.train.labels
    other = [before.class_names[(labels[i] + 1) % 10] for i in range(5)]
    path = write(
        [
            f"{ids[0]},label_error,{other[0]},drop",
            f"{ids[1]},label_error,{other[1]},keep",
            f"{ids[2]},label_error,{other[2]},check",
            f"{ids[3]},near_duplicate,,drop",
            f"{ids[4]},label_error,{other[4]},drop",
            f"{ids[4]},leak,,drop",
            f"{before.test.ids[0]},label_error,{other[0]},check",
        ]
    )
    after = digits(relabel=path)
    expected = labels.copy()
    expected[0] = (expected[0] + 1) % 10
    np.testing.assert_array_equal(after.train.ids, np.delete(ids, [3, 4]))
    np.testing.assert_array_equal(after.train.labels, np.delete(expected, [3, 4]))
    np.testing.assert_array_equal(before.train.labels, labels)
    assert "1 training images have the class that audit.csv suggests" in after.notes[-1]
    assert "2 training images were left out" in after.notes[-2]


@pytest.mark.parametrize(
    ("rows", "head", "words"),
    [
        (["nobody,label_error,3,drop"], None, "not in this dataset.*'nobody'"),
        (["{id},label_error,eleven,drop"], None, "no class of digits.*'eleven'"),
        (["{id},label_error,,drop"], None, "no class of digits"),
        (["{id},label_error,3,drop", "{id},label_error,4,drop"], None, "two classes for one image"),
        (["{test},label_error,3,drop"], None, "Only training images"),
        (["a,b"], "id,action", "one column issue"),
        (["a,b,c"], None, "3 cells in row 2, 4 in the header"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(rows, head, words):
    data = digits()
    names = {"id": data.train.ids[0], "test": data.test.ids[0]}
    rows = [row.format(**names) for row in rows]
    path = write(rows, *([head] if head else []))
    with pytest.raises(DataError, match=words):
        relabeled(data, path)


def test_several_classes_an_image_cannot_be_relabeled():
    data = digits()
    rows = np.eye(10, dtype=np.int8)[data.train.labels]
    several = dataclasses.replace(data, train=dataclasses.replace(data.train, labels=rows))
    with pytest.raises(DataError, match="one class each"):
        relabeled(several, write([]))


@pytest.mark.parametrize("other", ["drop", "labels"])
def test_it_stands_alone(other, capsys):
    path = write([])
    with pytest.raises(ConfigError, match=f"`{other}` must not be given beside `relabel`"):
        TrainConfig(dataset="digits", relabel=path, **{other: path})
    words = ["--dataset", "digits", "--relabel", path, f"--{other}", path]
    assert run_command("train", words) == 2
    assert f"`--{other}` must not be given beside `--relabel`" in capsys.readouterr().err


def test_the_file_belongs_to_a_run():
    path = write(["a,hub,,keep"])
    config = TrainConfig(dataset="digits", relabel=path, alpha=0)
    mark = file_mark(config)
    write(["b,hub,,keep"])
    assert mark and file_mark(config) != mark
    with pytest.raises(ConfigError, match="has an effect only with"):
        TrainConfig(dataset="given:x", relabel=path)


def test_an_audit_of_changed_labels_mends_most_of_them():
    """The whole way: labels are changed, audited, written, and read back."""
    data = digits()
    everything = load_data(TrainConfig(dataset="digits"), lambda *_: None)
    true = everything.train.labels
    rng = np.random.default_rng(0)
    bad = rng.choice(len(true), len(true) // 10, replace=False)
    noisy = true.copy()
    noisy[bad] = (noisy[bad] + rng.integers(1, 10, len(bad))) % 10
    from tfgraphreg import find_label_errors, knn_graph

    pixels = everything.train.images.reshape(len(true), -1).astype(np.float32)
    graph = knn_graph(pixels, k=10, weighting="local_gaussian")
    found = find_label_errors(graph, noisy, 10, vectors=pixels)
    rows = [
        f"{everything.train.ids[i]},label_error,{data.class_names[found.suggested[i]]},drop"
        for i in np.flatnonzero(found.suspected)
    ]
    split = dataclasses.replace(everything.train, labels=noisy)
    mended = relabeled(dataclasses.replace(everything, train=split), write(rows)).train.labels
    assert (mended != true).sum() < 0.2 * len(bad)
