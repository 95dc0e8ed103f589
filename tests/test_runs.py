"""What a run folder and its exported model may replace, and whose model is read."""

import json
import os
import pathlib

import pytest

from tfgraphreg import cli
from tfgraphreg.config import TrainConfig
from tfgraphreg.data.catalog import load_dataset
from tfgraphreg.errors import DataError, RunError
from tfgraphreg.recipes.compare import compare, gather
from tfgraphreg.runs.folder import METRICS, RunFolder, open_run, read_run

QUICK = ["--dataset", "digits", "--backbone", "fcnn", "--limit", "200", "--epochs", "1"]

pytestmark = pytest.mark.usefixtures("workplace")


def train(run, *words):
    return cli.run_command("train", [*QUICK, "--run-dir", run, *words])


def opened(run, export=None, **settings):
    return open_run(TrainConfig(dataset="digits", run_dir=run, export_dir=export, **settings))


@pytest.mark.parametrize("export", ["precious", "precious/thesis.txt", "runs", "runs/new", "."])
def test_an_export_replaces_nothing_but_a_model(export):
    pathlib.Path("precious").mkdir()
    pathlib.Path("precious/thesis.txt").write_text("thesis")
    with pytest.raises(RunError, match=r"exists already and is no exported model|its own run"):
        opened("runs/new", export)
    assert pathlib.Path("precious/thesis.txt").read_text() == "thesis"
    assert not pathlib.Path("runs/new").exists()


def test_runs_without_a_name_have_folders_of_their_own():
    paths = {opened(None).path for _ in range(3)}
    assert len(paths) == 3 and all(path.is_dir() for path in paths)
    with pytest.raises(RunError, match="its own run"):
        opened(None, "runs")
    assert set(pathlib.Path("runs").iterdir()) == paths
    pathlib.Path("other").mkdir()
    os.chdir("other")
    pathlib.Path("runs").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        opened(None)


def test_an_empty_folder_and_one_in_the_run_folder_will_do():
    pathlib.Path("empty").mkdir()
    assert opened("runs/a", "empty").export_path == pathlib.Path("empty")
    assert opened("runs/b", "runs/b/export").export_path == pathlib.Path("runs/b/export")


def test_each_run_is_read_with_its_own_model(capsys, monkeypatch):
    assert train("A/x") == 0
    # Another run of that name would take the model's place.
    assert train("B/x", "--seed", "3") == 2
    assert "saved_models/x holds the model of another run, A/x" in capsys.readouterr().err
    assert not pathlib.Path("B/x").exists()
    assert train("B/x", "--seed", "3", "--export-dir", "saved_models/y") == 0
    # The same run again has no need to say where its model is.
    assert train("B/x", "--seed", "3", "--resume") == 0
    assert "finished already" in capsys.readouterr().out
    assert read_run("B/x").export_path == pathlib.Path("saved_models/y")
    # A place that was asked for is an earlier model's; the run that it belonged to says so.
    assert train("C/x", "--seed", "4", "--export-dir", "saved_models/x") == 0
    capsys.readouterr()
    assert cli.run_command("evaluate", ["--run", "A/x"]) == 2
    assert "replaced by another's. Received: seed: 0 against 4" in capsys.readouterr().err
    assert read_run("C/x").export_path.exists()
    # From elsewhere, too.
    here = pathlib.Path.cwd()
    pathlib.Path("else").mkdir()
    monkeypatch.chdir("else")
    found = read_run(here / "C" / "x").export_path
    assert found.resolve() == here / "saved_models" / "x"


def test_another_graph_under_the_same_name_is_another_run(capsys):
    ids = load_dataset("digits", limit=200).train.ids
    edges = [f"{a}\t{b}\t0.5\n" for a, b in zip(ids[::2], ids[1::2])]
    pathlib.Path("e.tsv").write_text("".join(edges))
    assert train("runs/one", "--graph", "e.tsv") == 0
    kept = RunFolder(pathlib.Path("runs/one"), TrainConfig()).finished()["graph_file"]
    assert len(kept) == 64
    pathlib.Path("e.tsv").write_text("".join(edges[:20]))
    capsys.readouterr()
    assert train("runs/one", "--graph", "e.tsv", "--resume") == 2
    assert "e.tsv is not the one that the run runs/one began with" in capsys.readouterr().err
    assert train("runs/two", "--graph", "e.tsv") == 0
    runs, problems = gather(["runs"])
    assert len(runs) == 2 and not problems
    assert len(compare(runs).rows) == 2
    # The very same run is still told.
    assert train("runs/three", "--graph", "e.tsv") == 0
    assert len(gather(["runs"])[1]) == 1


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_broken_metrics_are_told(content, capsys):
    run = opened("runs/r")
    (run.path / METRICS).write_text(content)
    for command, words in (
        ("train", ["--dataset", "digits", "--run-dir", "runs/r", "--resume"]),
        ("predict", ["--run", "runs/r", "x.png"]),
    ):
        assert cli.run_command(command, words) == 2
        assert "metrics.json is broken" in capsys.readouterr().err


def test_a_run_that_has_seen_an_epoch_stays_when_its_resumption_fails():
    assert train("runs/r") == 0
    os.remove("runs/r/metrics.json")
    os.remove("saved_models/r/saved_model.pb")
    pathlib.Path("runs/r/inputs.json").write_text(json.dumps({"graph_file": "other"}))
    os.remove("runs/r/.inputs.json.sha256")
    assert train("runs/r", "--resume") == 2
    assert pathlib.Path("runs/r/history.csv").exists()
