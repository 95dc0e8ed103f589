"""Run folders into one table, and the grid of a sweep."""

import csv
import dataclasses
import io
import json
import logging
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import scipy.stats

from tfgraphreg import storage
from tfgraphreg.commands import show
from tfgraphreg.config import TrainConfig
from tfgraphreg.errors import ConfigError, DataError, RunError
from tfgraphreg.recipes import compare, page, sweep, tables
from tfgraphreg.runs import folder
from tfgraphreg.runs.run import read_evaluation
from tfgraphreg.visualize import style


def make_run(folder, *, accuracy, name=None, recall=None, **settings):
    config = TrainConfig(**settings)
    name = name or f"run{len(list(folder.glob('*')))}"
    path = folder / name
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(dataclasses.asdict(config)))
    metrics = {"test_accuracy": accuracy, "train_seconds": 1.0, "seed": config.seed}
    if recall is not None:
        metrics["recall_at_1"] = recall
    (path / "metrics.json").write_text(json.dumps(metrics))
    (path / "history.csv").write_text("epoch,loss,accuracy\n0,1.0,0.5\n1,0.5,0.7\n")
    return path


def table_of(folder):
    runs, problems = compare.gather([folder])
    return compare.compare(runs, problems=problems)


PLAIN = [0.90, 0.91, 0.925]
GRAPH = [0.93, 0.915, 0.95]


@pytest.fixture
def runs(tmp_path):
    for seed in range(3):
        make_run(tmp_path, accuracy=PLAIN[seed], dataset="digits", alpha=0.0, seed=seed)
        make_run(tmp_path, accuracy=GRAPH[seed], dataset="digits", alpha=0.5, seed=seed)
    return tmp_path


def test_mean_spread_and_paired_interval_equal_scipy(runs):
    found = table_of(runs)
    assert [row["alpha"] for row in found.rows] == [0.0, 0.5]
    plain, graph = found.rows
    assert plain["test_accuracy_mean"] == pytest.approx(np.mean(PLAIN))
    assert graph["test_accuracy_std"] == pytest.approx(scipy.stats.tstd(GRAPH))
    pairs = np.subtract(GRAPH, PLAIN)
    low, high = scipy.stats.t.interval(0.95, 2, loc=pairs.mean(), scale=scipy.stats.sem(pairs))
    assert graph["test_accuracy_difference"] == pytest.approx(pairs.mean())
    assert (graph["test_accuracy_low"], graph["test_accuracy_high"]) == pytest.approx((low, high))
    assert graph["runs"] == 3 and graph["seeds"] == "0 1 2" and graph["test_accuracy_pairs"] == 3
    assert plain["test_accuracy_difference"] is None
    same = scipy.stats.ttest_rel(GRAPH, PLAIN).confidence_interval(0.95)
    assert compare.paired_interval(pairs) == pytest.approx((same.low, same.high))


@pytest.mark.parametrize(
    "settings",
    [
        {"graph_search": "ivf"},
        {"graph": "radius", "graph_radius": 2.0},
        {"neighbors": "gathered", "neighbor_sampling": "weight"},
        {"neighbors": "paired", "pairing": "weight", "pair_correction": True},
        {"neighbors": "paired", "graph_loss": "contrast", "contrast_temperature": 0.2},
    ],
    ids=lambda settings: list(settings)[-1],
)
def test_a_setting_of_the_graph_needs_no_plain_run_of_its_own(tmp_path, settings):
    make_run(tmp_path, accuracy=0.8, dataset="digits", alpha=0.0)
    make_run(tmp_path, accuracy=0.9, dataset="digits", alpha=0.5, **settings)
    assert table_of(tmp_path).rows[1]["test_accuracy_difference"] == pytest.approx(0.1)


def test_numbers_of_the_reports_come_into_the_csv(runs):
    for number, path in enumerate(sorted(runs.glob("run*"))):
        values = json.loads((path / "metrics.json").read_text())
        values["classification"] = {"log_loss": 0.1 * number, "cohen_kappa": None}
        (path / "metrics.json").write_text(json.dumps(values))
        if number < 2:
            distance = ("cosine", "euclidean")[number]
            faith = {"trustworthiness": 0.75 + number}
            evaluation = {"retrieval_distance": distance, "faithfulness": faith}
            evaluation["probes"] = {"knn": {"accuracy": 0.9}}
            (path / "evaluation.json").write_text(json.dumps(evaluation))
    found = table_of(runs)
    assert found.more == ["log_loss", "trustworthiness", "knn_probe"]
    plain, graph = found.rows
    assert plain["log_loss_mean"] == pytest.approx(0.2)
    assert graph["log_loss_difference"] == pytest.approx(0.1)
    # Searched by another distance than the run's own, it does not belong beside the others.
    assert (plain["trustworthiness_mean"], graph["trustworthiness_mean"]) == (0.75, None)
    assert "log_loss_mean" in tables.csv_table(found).splitlines()[0]
    assert "log loss" not in tables.markdown_table(found)
    (runs / "run0" / "evaluation.json").write_text("{")
    assert "evaluation.json is broken" in table_of(runs).problems[0]


def test_one_seed_has_no_spread_and_no_interval(tmp_path):
    make_run(tmp_path, accuracy=0.8, dataset="digits", alpha=0.0)
    make_run(tmp_path, accuracy=0.9, dataset="digits", alpha=0.5)
    row = table_of(tmp_path).rows[1]
    assert row["test_accuracy_std"] is None and row["test_accuracy_low"] is None
    assert row["test_accuracy_difference"] == pytest.approx(0.1)


def test_pairs_need_the_same_seed_and_settings(tmp_path):
    make_run(tmp_path, accuracy=0.5, dataset="digits", alpha=0.0, seed=0)
    make_run(tmp_path, accuracy=0.6, dataset="digits", alpha=0.0, seed=1, epochs=9)
    make_run(tmp_path, accuracy=0.9, dataset="digits", alpha=0.5, seed=1)
    found = table_of(tmp_path)
    row = next(row for row in found.rows if row["alpha"] == 0.5)
    assert row["test_accuracy_difference"] is None and row["test_accuracy_pairs"] == 0
    assert any("without a run of alpha=0" in note for note in found.notes)
    assert "epochs" in found.columns


def test_a_plain_run_serves_all_graphs_but_retrieval_only_under_its_distance(tmp_path):
    make_run(tmp_path, accuracy=0.5, recall=0.4, dataset="digits", alpha=0.0)
    make_run(
        tmp_path,
        accuracy=0.7,
        recall=0.6,
        dataset="digits",
        alpha=1.0,
        neighbors="paired",
        graph_neighbors=3,
        distance="euclidean",
    )
    row = table_of(tmp_path).rows[1]
    assert row["distance"] == "euclidean"
    assert row["test_accuracy_difference"] == pytest.approx(0.2)
    assert row["recall_at_1_difference"] is None


def test_different_datasets_have_tables_of_their_own(runs):
    make_run(runs, accuracy=0.7, dataset="mnist", alpha=0.5)
    found = table_of(runs)
    assert found.datasets == ["digits", "mnist"]
    assert any("2 datasets (digits, mnist)" in note for note in found.notes)
    text = tables.markdown_table(found)
    assert "## digits" in text and "## mnist" in text and "cannot be compared" in text


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda p: (p / "metrics.json").unlink(), "is not finished"),
        (lambda p: (p / "config.json").unlink(), "has no config.json"),
        (lambda p: (p / "metrics.json").write_text("{"), "is broken"),
        (lambda p: (p / "metrics.json").write_text("[]"), "must hold one JSON object"),
        (lambda p: (p / "metrics.json").write_text("{}"), "no number as test_accuracy"),
        (lambda p: (p / "metrics.json").write_text('{"test_accuracy": NaN}'), "no number"),
        (lambda p: (p / "config.json").write_text('{"alhpa": 1}'), "Did you mean alpha"),
        (lambda p: (p / "config.json").write_text('{"alpha": "x"}'), "must be a finite number"),
        (lambda p: (p / "history.csv").write_text("epoch,loss\n0,word\n"), "is broken"),
        (lambda p: (p / "history.csv").write_bytes(b"\xff\xfe\x00"), "is broken"),
    ],
)
def test_broken_folders_are_reported_and_the_rest_is_compared(runs, damage, text):
    path = runs / "run5"
    damage(path)
    found, problems = compare.gather(sorted(runs.glob("run*")))
    assert len(found) == 5 and len(problems) == 1
    assert text in problems[0]
    assert text.split()[0] in tables.markdown_table(compare.compare(found, problems=problems))


def test_no_run_at_all(tmp_path):
    _, problems = compare.gather([tmp_path / "nowhere"])
    with pytest.raises(RunError, match=r"no finished run to compare.*nowhere is no folder"):
        compare.compare([], problems=problems)


def test_the_same_run_counts_once(runs):
    make_run(runs, accuracy=0.1, name="zzz", dataset="digits", alpha=0.5, seed=0)
    found, problems = compare.gather([runs, runs / "run1", runs])
    assert len(found) == 6
    assert len(problems) == 1 and "repeats the config and seed" in problems[0]


def test_files_hold_the_table(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    found = table_of(runs)
    tables.write_tables(found, out)
    rows = list(csv.DictReader(io.StringIO((out / "table.csv").read_text())))
    assert float(rows[1]["test_accuracy_mean"]) == found.rows[1]["test_accuracy_mean"]
    assert rows[0]["test_accuracy_difference"] == ""
    assert "0.9317 ± 0.0176" in (out / "table.md").read_text()


def test_hostile_names_stay_in_their_cell(tmp_path, capsys):
    make_run(tmp_path, accuracy=0.5, dataset="folder:a|b\n# <b>[red]x", alpha=0.0)
    found = table_of(tmp_path)
    text = tables.markdown_table(found)
    assert "\n# <b>" not in text and "&lt;b&gt;" in text
    show.compared(found)
    assert "[red]x" in capsys.readouterr().out


def write_sweep(tmp_path, text):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    return path


def test_grid_is_the_product_and_names_stay(tmp_path):
    text = f"out: {tmp_path}/s\ndataset: digits\nalpha: [0, 1e-1]\nseed: [0, 1, 2]\nepochs: 1\n"
    small = sweep.read_sweep(write_sweep(tmp_path, text))
    assert len(small.runs) == 6
    first = next(iter(small.runs.values()))
    assert (first.alpha, first.seed, first.resume) == (0.0, 0, True)
    assert isinstance(first.alpha, float)
    more = sweep.read_sweep(
        write_sweep(tmp_path, text + "distance: [cosine, euclidean]\nlearning-rate: [null, 1e-3]\n")
    )
    assert len(more.runs) == 24 and set(small.runs) < set(more.runs)
    assert {run.learning_rate for run in more.runs.values()} == {None, 0.001}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alhpa: 1", "Did you mean alpha"),
        ("- alpha", "must hold a mapping"),
        ("alpha: [", "cannot be read as a sweep"),
        ("alpha: []", "has no value"),
        ("alpha: word", "must be a number"),
        ("alpha: {a: 1}", "must be a number"),
        ("epochs: 1.5", "must be a whole number"),
        ("epochs: true", "must be a whole number"),
        ("symmetrize: 1", "must be true or false"),
        ("alpha: [0, -1]", "must be a finite number >= 0"),
        ("backbone: nosuch", "nosuch"),
        ("run_dir: x", "names its runs itself"),
        ("out: [a]", "must be the name of a folder"),
        ("seed: !!python/object/apply:os.getcwd []", "cannot be read as a sweep"),
        (f"seed: {list(range(200))}\nepochs: {list(range(1, 200))}", "at most 10000 runs"),
    ],
)
def test_wrong_sweeps_are_refused_before_anything_runs(tmp_path, text, message):
    with pytest.raises((ConfigError, KeyError), match=message):
        sweep.read_sweep(write_sweep(tmp_path, text))


def test_the_command_says_the_config():
    config = TrainConfig(dataset="digits", alpha=0.0, symmetrize=True, seed=1, run_dir="-x")
    words = sweep.command(config)
    assert words[1:4] == ["-m", "tfgraphreg", "train"]
    assert words[4:8] == ["--dataset=digits", "--alpha=0.0", "--symmetrize", "--seed=1"]
    assert words[8:] == ["--run-dir=-x"]


def test_a_sweep_skips_the_finished_and_goes_on_past_failures(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "tfgraphreg")
    grid = sweep.read_sweep(
        write_sweep(tmp_path, f"out: {tmp_path}/s\ndataset: digits\nalpha: 0\nseed: [0, 1, 2]\n")
    )
    done, crash, good = grid.runs.values()
    make_run(tmp_path / "s", accuracy=0.5, name=next(iter(grid.runs)), **_settings(done))

    # The runs are replaced by short programs: what is tested is who is started, and the report.
    def fake(config):
        if config.seed == 1:
            code = "import sys; print('error: no luck'); sys.exit(2)"
        else:
            code = (
                "import json, sys, pathlib; p = pathlib.Path(sys.argv[1]);"
                "(p / 'config.json').write_text(sys.argv[2]);"
                "(p / 'metrics.json').write_text(json.dumps({'test_accuracy': 0.25}))"
            )
        text = json.dumps(dataclasses.asdict(config))
        return [sweep.sys.executable, "-c", code, config.run_dir, text]

    monkeypatch.setattr(sweep, "command", fake)
    problems = sweep.run_sweep(grid)
    assert len(problems) == 1 and "error: no luck (status 2)" in problems[0]
    said = caplog.text
    assert "[1/3]" in said and "finished before" in said and "test accuracy 0.2500" in said
    runs, missing = compare.gather([config.run_dir for config in grid.runs.values()])
    assert [run.config.seed for run in runs] == [0, 2]
    assert crash.run_dir in missing[0] and good.run_dir


def _settings(config):
    return dataclasses.asdict(config)


@pytest.mark.slow
def test_a_sweep_that_was_killed_ends_with_the_complete_table(tmp_path):
    text = f"out: {tmp_path}/s\ndataset: digits\nbackbone: fcnn\nlimit: 300\nepochs: 1\n"
    text += "alpha: [0, 0.5]\ndistance: [cosine, euclidean]\nseed: [0, 1, 2]\n"
    command = [sys.executable, "-m", "tfgraphreg", "compare", "--sweep"]
    command.append(str(write_sweep(tmp_path, text)))
    root = pathlib.Path(__file__).parent.parent
    environment = {**os.environ, "TFGRAPHREG_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env=environment,
        start_new_session=True,
    )
    for line in process.stdout:
        if line.startswith("[5/12]"):
            break
    time.sleep(4)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "s" / "table.csv").exists()
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("finished before") == 4
    rows = list(csv.DictReader((tmp_path / "s" / "table.csv").open()))
    assert len(rows) == 4 and all(row["seeds"] == "0 1 2" for row in rows)
    regularized = [row for row in rows if row["alpha"] == "0.5"]
    assert all(row["test_accuracy_pairs"] == "3" for row in regularized)
    assert all(row["test_accuracy_low"] for row in regularized)
    assert (tmp_path / "s" / "report.html").stat().st_size > 10_000


def test_an_embedding_of_words_is_reported(tmp_path):
    make_run(tmp_path / "r", accuracy=0.5)
    (run,), _ = compare.gather([tmp_path / "r"])
    words = np.array([["a", "b"]] * 4)
    np.savez(run.path / "embedding.npz", points=words, labels=np.zeros(4, int))
    with pytest.raises(DataError, match="is no usable embedding"):
        page.read_embedding(run)


def test_the_page_says_of_which_setting_a_word_is(tmp_path):
    for propagate, weights in (("none", "cosine"), ("spreading", "shared_neighbors")):
        settings = {"propagate": propagate, "graph_weights": weights, "alpha": 0.0}
        make_run(tmp_path, accuracy=0.5, dataset="digits", backbone="cnn", **settings)
    written = page.write_page(table_of(tmp_path), tmp_path / "report.html").read_text()
    for kind in ("weights cosine, propagate none", "weights shared_neighbors, propagate spreading"):
        assert f'"cnn, cosine, packed, graph {kind}"' in written


def test_an_embedding_in_the_place_of_another_is_not_shown(tmp_path, caplog):
    path = make_run(tmp_path, accuracy=0.5, dataset="digits")
    rng = np.random.default_rng(0)
    for name, dim in (("embedding.npz", 2), ("embedding_3d.npz", 3)):
        with storage.noted_path(path / name) as part, open(part, "wb") as file:
            np.savez(file, points=rng.normal(size=(5, dim)), labels=np.zeros(5, np.int64))
    shutil.copy(path / "embedding_3d.npz", path / "embedding.npz")
    with caplog.at_level("INFO", "tfgraphreg"):
        written = page.write_page(table_of(tmp_path), tmp_path / "report.html").read_text()
    assert written.count("delete .embedding.npz.sha256 beside it") == 1
    assert "is not shown" in caplog.text


@pytest.mark.parametrize("name", ["evaluation.json", "history.csv"])
def test_a_run_that_lost_a_file_is_left_out(tmp_path, name):
    path = make_run(tmp_path, accuracy=0.5, dataset="digits")
    storage.write_noted(path / name, (path / "history.csv").read_text())
    (path / name).unlink()
    runs, (problem,) = compare.gather([path])
    assert not runs and f"{name} is gone" in problem


def test_a_run_given_more_epochs_has_lost_no_evaluation(tmp_path):
    path = make_run(tmp_path, accuracy=0.5, epochs=2, run_dir=str(tmp_path / "run0"))
    storage.write_json(path / "evaluation.json", {}, noted=True)
    more = TrainConfig(epochs=3, run_dir=str(path), resume=True)
    with folder.working_on(folder.open_run(more)):
        assert read_evaluation(path) is None


def test_pictures_and_embeddings_that_were_lost_are_named(tmp_path):
    path = make_run(tmp_path, accuracy=0.5, dataset="digits")
    with storage.noted_path(path / "embedding.npz") as part, open(part, "wb") as file:
        np.savez(file, points=np.zeros((5, 2)), labels=np.zeros(5, np.int64))
    with style.figure(height=1) as made:
        for name in ("lost", "kept"):
            style.save(made, path / "figures" / name)
    (path / "embedding.npz").unlink()
    (path / "figures/lost.png").unlink()
    written = page.write_page(table_of(tmp_path), tmp_path / "report.html").read_text()
    assert written.count("is not shown") == 2
    assert "figures/lost.png is gone" in written and "embedding.npz is no usable" in written
    assert written.count("data:image/png") == 1
