"""Whole runs on scikit-learn's digits, through the command line."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tfgraphreg import cli
from tfgraphreg.export import Predictor

ROOT = pathlib.Path(__file__).parent.parent
QUICK = ["--dataset", "digits", "--backbone", "fcnn", "--limit", "300", "--batch-size", "64"]


pytestmark = pytest.mark.usefixtures("workplace")


def train(*words, run="runs/r"):
    return cli.run_command("train", [*QUICK, "--epochs", "2", "--run-dir", run, *words])


def metrics(run="runs/r"):
    return json.loads(pathlib.Path(run, "metrics.json").read_text())


def without_times(values):
    kept = {k: v for k, v in values.items() if not k.endswith(("seconds", "export"))}
    return json.dumps(kept, sort_keys=True)


@contextlib.contextmanager
def working_in(folder):
    """What the fixture `workplace` does, for fixtures of the module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TFGRAPHREG_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder in which `train()` ran."""
    with working_in(tmp_path_factory.mktemp("trained")) as folder:
        assert train() == 0
    return folder


@pytest.fixture
def finished(trained, workplace):
    """The current folder is a copy of `trained`, with its run and model."""
    shutil.copytree(trained, ".", dirs_exist_ok=True)


def test_a_run_leaves_everything_that_a_table_needs(finished):
    found = metrics()
    assert found["test_accuracy"] > 0.5
    assert found["graph"]["nodes"] == 300 and found["graph"]["edges"] == 3000
    assert found["graph"]["edge_label_agreement"] > 0.8
    for name in ("recall_at_1", "recall_at_5", "recall_at_10", "precision_at_10"):
        assert 0 < found[name] <= 1
    assert 0 < found["mean_average_precision"] <= 1
    assert len(found["epoch_seconds"]) == 2 and found["replicas"] == 1 and found["seed"] == 0
    assert found["train_seconds"] == pytest.approx(sum(found["epoch_seconds"]))
    assert 1 < found["effective_rank"] <= 64 and 0.1 < found["mean_pairwise_distance"] < 2
    assert found["source"] and found["versions"]["tensorflow"] and found["parameters"] > 1000
    history = pathlib.Path("runs/r/history.csv").read_text().splitlines()
    assert len(history) == 3 and "graph_loss" in history[0]
    for name in ("effective_rank", "mean_pairwise_distance"):
        column = history[0].split(",").index(name)
        assert all(float(line.split(",")[column]) > 0 for line in history[1:])
    assert list(pathlib.Path("runs/r/tensorboard").iterdir())
    assert pathlib.Path("saved_models/r/saved_model.pb").exists()


def test_the_same_seed_gives_the_same_run(trained):
    assert train(run="runs/b") == train("--seed", "1", run="runs/c") == 0
    found = [trained / "runs/r", "runs/b", "runs/c"]
    same, again, other = (without_times(metrics(run)) for run in found)
    assert same == again != other


@pytest.mark.parametrize("mode", ["gathered", "paired", "bank"])
def test_every_way_to_use_neighbors_trains(mode):
    several = [] if mode == "paired" else ["--max-neighbors", "3"]
    assert train("--neighbors", mode, *several) == 0
    assert metrics()["final"]["graph_loss"] > 0


@pytest.mark.parametrize(
    "words",
    [
        ["--distance", "euclidean", "--regularize", "logits"],
        ["--labels-per-class", "5", "--alpha", "1", "--edge-kinds", "ll,lu"],
        ["--validation-fraction", "0.2", "--schedule", "fixed"],
        ["--alpha", "0", "--max-neighbors", "0"],
        ["--precision", "mixed_bfloat16"],
        ["--packer", "stream", "--max-neighbors", "2"],
    ],
    ids=lambda words: words[0],
)
def test_options_train(words):
    assert train(*words) == 0
    assert np.isfinite(metrics()["test_accuracy"])


@pytest.mark.one_stack
def test_another_image_size_is_the_networks_not_the_images():
    assert train("--image-size", "16", "--epochs", "1") == 0
    assert Predictor("saved_models/r").image_shape == (8, 8, 1)
    assert metrics()["parameters"] > 16 * 16 * 512


def test_two_replicas_give_the_metrics_of_one(two_replicas):
    assert train("--strategy", "none", run="runs/one") == 0
    assert train("--strategy", "mirrored", run="runs/two") == 0
    one, two = metrics("runs/one"), metrics("runs/two")
    assert (one["replicas"], two["replicas"]) == (1, 2)
    for name in ("loss", "graph_loss"):
        assert one["final"][name] == pytest.approx(two["final"][name], abs=1e-4)


@pytest.mark.one_stack
def test_a_graph_of_ones_own():
    from tfgraphreg.data.catalog import load_dataset

    ids = load_dataset("digits", limit=300).train.ids
    lines = [f"{a}\t{b}\t0.5" for a, b in zip(ids[::2], ids[1::2])]
    pathlib.Path("edges.tsv").write_text("\n".join(lines) + "\n")
    assert train("--graph", "edges.tsv") == 0
    assert metrics()["graph"]["edges"] == 150


@pytest.mark.one_stack
def test_both_files_of_build_graph_are_a_graph_of_ones_own():
    words = ["--dataset", "digits", "--limit", "300", "--out", "g"]
    assert cli.run_command("build-graph", words) == 0
    for kind in ("tsv", "npz"):
        assert train("--graph", f"g/graph.{kind}", "--epochs", "1", run=f"runs/{kind}") == 0
    text, arrays = (metrics(f"runs/{kind}") for kind in ("tsv", "npz"))
    assert text.pop("graph_file") != arrays.pop("graph_file")  # They are other files.
    assert without_times(text) == without_times(arrays)


@pytest.mark.one_stack
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "digit"], "Did you mean digits?"),
        (["--backbone", "mobilenett"], "Did you mean mobilenet"),
        (["--distance", "cosin"], "Did you mean cosine?"),
        (["--alpha", "-1"], "`--alpha` must be a finite number >= 0"),
        (["--alpha", "nan"], "`--alpha` must be a finite number"),
        (["--max-neighbors", "0"], "must be at least 1 when `--alpha` is above 0"),
        (["--epochs", "x"], "`--epochs` must be a whole number. Received: epochs=x."),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--graph-neighbors", "300"], "`--graph-neighbors` must be smaller"),
        (["--graph", "none.tsv"], "none.tsv"),
        (["--graph", "bad.tsv"], "bad.tsv"),
        (["--objective", "npairs"], "tfgraphreg[addons]"),
        (["--backbone", "cnn", "--image-size", str(10**7)], "does not fit in the memory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_gets_one_line_and_exit_code_2(words, message, capsys):
    if words == ["--objective", "npairs"]:
        from importlib.util import find_spec

        if find_spec("tensorflow_addons"):
            pytest.skip("tensorflow-addons is installed: the objective exists")
    pathlib.Path("bad.tsv").write_text("a\tb\tc\td\n")
    assert train(*words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ") and message in lines[-1]
    assert not pathlib.Path("saved_models/r").exists()
    # Nothing is left that would be in the way of the mended command.
    assert not pathlib.Path("runs/r").exists()


@pytest.mark.one_stack
def test_run_folders_are_not_overwritten(finished, capsys):
    assert train() == 2
    assert "exists already. Add `--resume`" in capsys.readouterr().err
    assert train("--resume") == 0
    assert "finished already" in capsys.readouterr().out
    assert train("--resume", "--alpha", "0.7") == 2
    assert "alpha: 0.1 against 0.7" in capsys.readouterr().err


def test_evaluate_repeats_the_numbers(finished, capsys):
    assert cli.run_command("evaluate", ["--run", "runs/r", "--no-figures"]) == 0
    again = json.loads(pathlib.Path("runs/r/evaluation.json").read_text())
    assert again["test_accuracy"] == metrics()["test_accuracy"]
    assert again["recall_at_1"] == pytest.approx(metrics()["recall_at_1"], abs=0.005)
    assert cli.run_command("evaluate", ["--run", "runs/none"]) == 2


def test_predict_goes_on_past_a_bad_file_and_fails_in_the_end(finished, capsys):
    from PIL import Image

    from tfgraphreg.data.catalog import load_dataset

    Image.fromarray(load_dataset("digits").test.images[0, ..., 0]).save("good.png")
    pathlib.Path("bad.png").write_text("no image")
    assert cli.run_command("predict", ["--run", "runs/r", "bad.png", "good.png"]) == 2
    out = capsys.readouterr().out
    assert "bad.png: error:" in out and "good.png: " in out and "%" in out
    assert cli.run_command("predict", ["--run", "runs/r", "good.png"]) == 0
    both = ["--run", "runs/r", "--model", "saved_models/r", "good.png"]
    assert cli.run_command("predict", both) == 2
    assert "`--run` and `--model` both name the model" in capsys.readouterr().err


def start(run, *words):
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *QUICK, "--run-dir", run, *words]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )


LONG = ("--epochs", "3", "--backbone", "cnn", "--augment", "flip_shift", "--limit", "1400")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The metrics of an uninterrupted run."""
    with working_in(tmp_path_factory.mktemp("whole")):
        assert train(*LONG) == 0
        return without_times(metrics())


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("cache/packed/.*.part", marks=pytest.mark.slow),
        pytest.param("runs/r/checkpoints/last/checkpoint", marks=pytest.mark.one_stack),
        pytest.param("saved_models/.r.*", marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_ends_as_if_it_never_was(moment, whole):
    process = start("runs/r", *LONG)
    deadline = time.monotonic() + 240
    while not list(pathlib.Path().glob(moment)) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(pathlib.Path().glob(moment)) and not pathlib.Path("runs/r/metrics.json").exists()
    assert not pathlib.Path("saved_models/r").exists()
    assert train(*LONG, "--resume") == 0
    assert without_times(metrics()) == whole
    assert not list(pathlib.Path("saved_models").glob(".*"))
    assert not list(pathlib.Path("cache/packed").glob(".*.part"))


def _cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def _change_a_digit(path):
    text = path.read_text()
    path.write_text(text[:-2] + str((int(text[-2]) + 1) % 10) + "\n")


@pytest.fixture(scope="module")
def stopped(trained, tmp_path_factory):
    """A run that ended before it was exported."""
    folder = tmp_path_factory.mktemp("stopped") / "runs"
    shutil.copytree(trained / "runs", folder)
    (folder / "r/metrics.json").unlink()
    return folder


@pytest.mark.parametrize(
    ("pattern", "damage", "message"),
    [
        ("checkpoints/last/*.data*", lambda p: _cut(p, 100), "cannot be restored"),
        ("checkpoints/best/*.data*", lambda p: _cut(p, 100), "cannot be restored"),
        ("checkpoints/last/*.index", lambda p: _cut(p, 50), "cannot be restored"),
        ("checkpoints/last/*.index", lambda p: p.unlink(), "2 epochs in history.csv, 0"),
        ("checkpoints/best/*.index", lambda p: p.unlink(), "cannot be restored (it is missing)"),
        ("inputs.json", lambda p: p.write_text("{"), "inputs.json, which tells what files"),
        ("inputs.json", lambda p: p.write_text('{"graph_file": 3}'), "graph_file is no text"),
        ("history.csv", lambda p: _change_a_digit(p), "it is not as it was written; if"),
        ("history.csv", lambda p: p.unlink(), "0 epochs in history.csv, 2 in the"),
        ("history.csv", lambda p: p.write_text(""), "0 epochs in history.csv, 2 in the"),
        ("history.csv", lambda p: _cut(p, -4), "its last line is truncated"),
        ("history.csv", lambda p: p.write_text("a,b\n1\n"), "line 2 has 1 columns instead of 2"),
        ("history.csv", lambda p: p.write_text("epoch,loss\n0,x\n"), "history.csv: could not"),
        ("history.csv", lambda p: p.write_text("epoch,loss\n1,1\n"), "not that of epoch 0"),
        ("history.csv", lambda p: p.write_bytes(b"\xff\0\n"), "is broken (history.csv: "),
    ],
)
def test_damaged_files_of_a_run_are_refused_in_one_line(stopped, pattern, damage, message, capsys):
    shutil.copytree(stopped, "runs")
    (path,) = pathlib.Path("runs/r").glob(pattern)
    damage(path)
    assert train("--resume") == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ") and message in lines[-1]
    assert not pathlib.Path("saved_models/r").exists()
    assert not pathlib.Path("runs/r/metrics.json").exists()


@pytest.mark.parametrize("which", ["last", "best"])
@pytest.mark.parametrize(
    "damage", [lambda p: p.unlink(), lambda p: _cut(p, 20), lambda p: _cut(p, 0)]
)
def test_the_small_files_beside_checkpoints_do_not_matter(stopped, which, damage):
    shutil.copytree(stopped, "runs")
    damage(pathlib.Path("runs/r/checkpoints", which, "checkpoint"))
    pathlib.Path("runs/r/checkpoints/last/ckpt-2.index.tempstate123").write_text("left")
    before = pathlib.Path("runs/r/history.csv").read_text()
    assert train("--resume") == 0
    assert pathlib.Path("runs/r/history.csv").read_text() == before


@pytest.mark.one_stack
def test_two_processes_do_not_share_a_run(capsys):
    from tfgraphreg.storage import lock

    pathlib.Path("runs/r").mkdir(parents=True)
    with lock("runs/r/.lock", wait=False):
        assert train("--resume") == 2
    assert "Another process is at work" in capsys.readouterr().err
