"""`--drop audit.csv`: who is left out, and what is refused."""

import re
import unicodedata

import numpy as np
import pytest

from tfgraphreg.cli import run_command
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.dataset import Dataset, Split
from tfgraphreg.data.dropped import read_drops, without
from tfgraphreg.data.given_labels import with_labels
from tfgraphreg.data.relabeled import relabeled
from tfgraphreg.errors import ConfigError, DataError
from tfgraphreg.features.vectors import read_vectors
from tfgraphreg.graph.knn import knn_graph
from tfgraphreg.graph.npz import read_npz, write_npz
from tfgraphreg.recipes.graphs import file_mark
from tfgraphreg.runs.outputs import load_data

pytestmark = pytest.mark.usefixtures("workplace")


def write(rows, head="id,issue,action"):
    with open("audit.csv", "w", encoding="utf-8") as file:
        file.write("\n".join([head, *rows]) + "\n")
    return "audit.csv"


def digits(**settings):
    return load_data(TrainConfig(dataset="digits", **settings), lambda *_: None)


def test_only_rows_that_say_drop_are_left_out():
    before = digits(limit=100)
    a, b, c = before.train.ids[[3, 50, 7]]
    path = write([f"{a},label_error,drop", f"{b},outlier,check", f"{c},hub,keep", f"{a},hub,drop"])
    after = digits(limit=100, drop=path)
    np.testing.assert_array_equal(after.train.ids, np.delete(before.train.ids, 3))
    np.testing.assert_array_equal(after.train.images, np.delete(before.train.images, 3, axis=0))
    assert a in after.left_out and "1 training images were left out" in after.notes[-1]
    assert after.checksum != before.checksum
    # Beyond the limit is out already.
    beyond = digits().train.ids[-1]
    assert beyond not in before.train.ids
    assert len(without(before, write([f"{beyond},leak,drop"])).train) == 100


@pytest.mark.parametrize(
    ("rows", "head", "words"),
    [
        (["nobody,x,drop"], "id,issue,action", "not in this dataset.*'nobody'"),
        (["a,b"], "id,issue,action", "2 cells in row 2, 3 in the header"),
        (["a,b"], "id,issue", "one column action"),
        (["a,b,c"], "id,id,action", "one column id"),
        (['"a,x,drop'], "id,issue,action", "cannot be read as a table"),
        (["a,x,dropp"], "id,issue,action", "none of drop, keep and check.*'dropp' for 'a'"),
        (["\0,x,drop"], "id,issue,action", "not in this dataset|cannot be read"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(rows, head, words):
    with pytest.raises(DataError, match=words):
        digits(limit=50, drop=write(rows, head))


def test_test_images_stay_and_some_image_must():
    data = digits(limit=50)
    with pytest.raises(DataError, match=r"Only training images.*others"):
        without(data, write([f"{data.test.ids[0]},leak,drop"]))
    with pytest.raises(DataError, match="drops every training image"):
        without(data, write([f"{name},x,drop" for name in data.train.ids]))


def test_what_is_dropped_belongs_to_a_run():
    path = write(["a,b,drop"])
    config = TrainConfig(dataset="digits", drop=path, alpha=0)
    mark = file_mark(config)
    write(["c,b,drop"])
    assert mark and file_mark(config) != mark
    assert file_mark(TrainConfig(dataset="digits", alpha=0)) is None
    with pytest.raises(ConfigError, match="has an effect only with"):
        TrainConfig(dataset="given:x", drop=path)


def test_build_graph_has_no_node_for_a_dropped_image(capsys):
    name = digits().train.ids[4]
    words = ["--dataset", "digits", "--limit", "60", "--graph-features", "pixels"]
    assert run_command("build-graph", [*words, "--drop", write([f"{name},x,drop"])]) == 0
    with open("graph/graph.tsv", encoding="utf-8") as file:
        assert name not in file.read()
    assert run_command("build-graph", [*words, "--drop", "no.csv"]) == 2
    error = capsys.readouterr().err
    assert re.search("no.csv cannot be read", error) and error.count("\n") == 1


def test_a_hostile_table_is_read_as_text():
    assert read_drops(write(['"=1+1\x1b[31m",x,drop'])) == ["=1+1\x1b[31m"]


def test_a_table_that_a_spreadsheet_saved_is_read():
    with open("audit.csv", "w", encoding="utf-8-sig", newline="") as file:
        file.write('id,action\r\na,Drop\r\n"b\u2028c",drop\r\nd,\r\n')
    assert read_drops("audit.csv") == ["a", "b\u2028c"]


def test_names_in_either_form_of_unicode_are_one_name(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    images = np.zeros((3, 4, 4, 1), np.uint8)
    ids = np.array([f"{composed}/0", "b/0", "b/1"])
    split = Split(images, np.array([0, 1, 1]), ids)
    none = split.take(np.zeros(0, np.int64))
    data = Dataset("d", split, none, none, (composed, "b"), "", "")
    first = f"{decomposed}/0"
    dropped = without(data, write([f"{first},leak,drop"]))
    np.testing.assert_array_equal(dropped.train.ids, ids[1:])
    rows = [f"{first},label_error,b,drop", f"b/1,hub,{decomposed},Keep"]
    mended = relabeled(data, write(rows, "id,issue,suggested,action"))
    np.testing.assert_array_equal(mended.train.labels, [1, 1, 1])
    labeled = with_labels(data, write([f"b/0,{decomposed}"], "id,label"))
    np.testing.assert_array_equal(labeled.train.labels, [-1, 0, -1])
    np.savez("v.npz", vectors=np.eye(3), ids=["b/1", "b/0", first])
    np.testing.assert_array_equal(read_vectors("v.npz", ids), np.eye(3)[::-1])
    write_npz(knn_graph(np.eye(3), k=1), ["b/1", "b/0", first], "g.npz")
    graph, _ = read_npz("g.npz", ids, others=())
    assert graph.num_edges == 3
