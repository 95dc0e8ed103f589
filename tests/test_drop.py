"""`--drop audit.csv`: who is left out, and what is refused."""

import re

import numpy as np
import pytest

from tfgraphreg.cli import run_command
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.dropped import read_drops, without
from tfgraphreg.errors import ConfigError, DataError
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
