"""From a finished run to numbers, figures, pictures and search, through the command line."""

import json
import os
import pathlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from tfgraphreg import cli
from tfgraphreg.errors import DataError

needs_mde = pytest.mark.skipif(
    find_spec("pymde") is None, reason="PyMDE, of the extra mde, is not installed"
)
TRAIN = ["--dataset", "digits", "--backbone", "fcnn", "--limit", "300", "--batch-size", "64"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run, which tests must not change."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFGRAPHREG_CACHE", str(folder / "cache"))
        where = ["--run-dir", str(folder / "r"), "--export-dir", str(folder / "r/saved_model")]
        assert cli.run_command("train", [*TRAIN, "--epochs", "2", *where]) == 0
    return folder


@pytest.fixture
def run(made, tmp_path, monkeypatch):
    """A copy of the finished run."""
    monkeypatch.setenv("TFGRAPHREG_CACHE", str(made / "cache"))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "r"
    shutil.copytree(made / "r", path)
    config = json.loads((path / "config.json").read_text())
    config.update(run_dir=str(path), export_dir=str(path / "saved_model"))
    (path / "config.json").write_text(json.dumps(config))
    (path / ".config.json.sha256").unlink()
    return path


def call(command, *words):
    return cli.run_command(command, [str(word) for word in words])


def test_evaluate_measures_everything_and_draws(run, capsys):
    assert call("evaluate", "--run", run, "--probes", "--within", "all") == 0
    found = json.loads((run / "evaluation.json").read_text())
    metrics = json.loads((run / "metrics.json").read_text())
    assert found["test_accuracy"] == metrics["test_accuracy"]
    wanted = "top_5_accuracy balanced_accuracy macro_f1 weighted_precision roc_auc log_loss"
    for name in [*wanted.split(), "expected_calibration_error", "cohen_kappa"]:
        assert np.isfinite(found["classification"][name]), name
    for name in ("map_at_r", "r_precision", "ndcg", "mean_reciprocal_rank", "recall_at_1"):
        assert 0 < found["retrieval"][name] <= 1
    assert found["retrieval"]["recall_at_1"] == found["recall_at_1"]
    assert found["retrieval_within"]["queries"] == 300 + found["classification"]["items"]
    faith = found["faithfulness"]
    assert 0 < faith["edge_neighbor_share"] < 1 and faith["distance_ratio"] < 1
    assert 0.5 < faith["trustworthiness"] <= 1 and 0.5 < faith["continuity"] <= 1
    assert set(found["probes"]) == {
        *("knn", "logistic_regression", "linear_svm", "random_forest", "mlp")
    }
    for name in ("confusion_matrix", "worst_mistakes", "retrieval", "graph_and_embedding"):
        assert Image.open(run / "figures" / f"{name}.png").size[0] > 900
        assert "<svg" in (run / "figures" / f"{name}.svg").read_text()[:2000]
    for name in ("class_distribution", "learning_curves"):
        assert (run / "figures" / f"{name}.png").exists()
    assert "cohen kappa" in capsys.readouterr().out


@pytest.mark.one_stack
def test_evaluate_searches_by_another_distance_without_figures(run):
    assert call("evaluate", "--run", run, "--distance", "manhattan", "--no-figures") == 0
    found = json.loads((run / "evaluation.json").read_text())
    assert found["retrieval_distance"] == found["faithfulness"]["distance"] == "manhattan"
    assert not (run / "figures").exists() and "probes" not in found


@pytest.mark.one_stack
@needs_mde
def test_embed_leaves_pictures_and_what_the_page_and_tensorboard_read(run):
    assert call("embed", "--run", run, "--limit", "120") == 0
    assert call("embed", "--run", run, "--limit", "60", "--dim", "3") == 0
    flat, solid = (np.load(run / name) for name in ("embedding.npz", "embedding_3d.npz"))
    assert flat["points"].shape == (120, 2) and solid["points"].shape == (60, 3)
    assert flat["neighbors"].shape == (120, 12)
    assert (flat["neighbors"] != np.arange(120)[:, None]).all()
    numbers = json.loads((run / "embedding.json").read_text())
    assert numbers["dim"] == 3 and numbers["nearest_of_same_class"]["learned embedding"] > 0.5
    for name in ("embedding_2d", "distortion_2d", "distorted_pairs_2d", "embedding_3d"):
        assert (run / "figures" / f"{name}.png").stat().st_size > 5000
        assert (run / "figures" / f"{name}.svg").exists()
    projector = run / "tensorboard"
    assert "sprite" in (projector / "projector_config.pbtxt").read_text()
    rows = (projector / "embedding_metadata.tsv").read_text().splitlines()
    assert rows[0] == "class\tpredicted\tid" and len(rows) == 61
    assert call("compare", run, "--out", "page") == 0
    page = pathlib.Path("page/report.html").read_text()
    assert '"name":"r: embedding 2d"' in page and '"name":"r: embedding 3d"' in page


@pytest.mark.one_stack
@needs_mde
@pytest.mark.parametrize(
    ("words", "name", "items"),
    [
        (["--source", "graph", "--variant", "quadratic"], "embedding_2d_quadratic_graph", 300),
        pytest.param(
            ["--onto-train", "--limit", "80"], "embedding_2d_onto_train", 80, marks=pytest.mark.slow
        ),
        pytest.param(
            ["--split", "train", "--limit", "50"], "embedding_2d", 50, marks=pytest.mark.slow
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_embed_draws_graphs_and_new_images_too(run, words, name, items):
    assert call("embed", "--run", run, *words) == 0
    assert (run / "figures" / f"{name}.png").exists()
    assert len(np.load(run / "embedding.npz")["points"]) == items


@pytest.mark.one_stack
def test_embed_without_its_extra_says_how_to_get_it(run, monkeypatch, capsys):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None)
    assert call("embed", "--run", run) == 2
    assert 'pip install "tfgraphreg[mde]"' in last_error(capsys)
    assert not (run / "figures").exists() and not (run / "embedding.npz").exists()


def last_error(capsys):
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: ")
    return line


@pytest.fixture
def queries(tmp_path):
    from tfgraphreg.data.catalog import load_dataset

    images = load_dataset("digits").test.images
    paths = []
    for number in range(3):
        paths.append(tmp_path / f"query{number}.png")
        Image.fromarray(images[number, ..., 0]).save(paths[-1])
    return paths


def test_search_builds_an_index_keeps_it_and_grows_it(run, queries, capsys):
    from tfgraphreg.visualize.search import Searcher

    assert call("search", "--run", run, *queries[:2], "--k", "3") == 0
    said = capsys.readouterr().out
    assert "Index: 300 training images, exact search by cosine distance" in said
    assert said.count("the model says") == 2
    assert (run / "figures" / "search.png").exists()
    index = run / "saved_model" / "search" / "index.faiss"
    before = index.stat().st_mtime_ns
    assert call("search", "--run", run, queries[2]) == 0
    assert index.stat().st_mtime_ns == before and "written" not in capsys.readouterr().out
    assert call("search", "--run", run, "--add", queries[0], queries[1]) == 0
    assert "the index holds 302" in capsys.readouterr().out
    assert call("search", "--run", run, queries[0], "--k", "1") == 0
    assert f"0.0000  {queries[0]}" in capsys.readouterr().out
    assert call("search", "--run", run, "--add", queries[0]) == 2
    assert "more than once" in last_error(capsys)
    assert len(Searcher.load(run / "saved_model")) == 302


@pytest.mark.one_stack
def test_added_images_stay_when_the_index_is_built_again(run, queries, capsys):
    assert call("search", "--run", run, "--add", *queries[:2], "--distance", "euclidean") == 0
    for words in (["--method", "hnsw"], ["--distance", "cosine"], ["--rebuild"]):
        assert call("search", "--run", run, queries[1], "--k", "1", *words) == 0
        said = capsys.readouterr().out
        assert "is built again" in said and "300 training images and 2 added ones" in said
        assert f"0.0000  {queries[1]}" in said
    # Euclidean distance needs the lengths of embeddings, which cosine distance leaves out.
    assert call("search", "--run", run, queries[1], "--k", "1", "--distance", "euclidean") == 0
    assert f"  {queries[1]}" in capsys.readouterr().out


@pytest.mark.one_stack
def test_added_images_that_cannot_stay_are_told_of(run, queries, capsys):
    assert call("search", "--run", run, "--add", *queries[:2]) == 0
    meta = run / "saved_model" / "search" / "meta.json"
    meta.write_text(meta.read_text().replace('"model": "', '"model": "0'))
    capsys.readouterr()
    assert call("search", "--run", run, "--rebuild") == 0
    assert "2 added image(s) are lost" in capsys.readouterr().out
    (meta.parent / "items.npz").write_bytes(b"")
    assert call("search", "--run", run, "--rebuild") == 0
    assert "images that were added to it are lost" in capsys.readouterr().out


@pytest.mark.one_stack
def test_two_that_add_at_once_and_one_that_builds_anew_lose_nothing(run, tmp_path):
    from tfgraphreg.recipes.find import search_run
    from tfgraphreg.runs.folder import read_run
    from tfgraphreg.visualize.search import Searcher

    opened, rng, names = read_run(run), np.random.default_rng(0), []
    jobs = [{"rebuild": True}]
    for number in range(4):
        names.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(names[-1])
        jobs.append({"add": names[-1:]})
    with ThreadPoolExecutor(len(jobs)) as pool:
        list(pool.map(lambda job: search_run(opened, [], **job), jobs))
    assert set(names) <= set(Searcher.load(run / "saved_model").ids)
    assert len(Searcher.load(run / "saved_model")) == 304


@pytest.mark.one_stack
def test_a_run_that_may_only_be_read_answers(run, queries, capsys, monkeypatch):
    from tfgraphreg.visualize.search import Searcher

    def refuse(*_):
        raise DataError("search cannot be written (Read-only file system).")

    # A file stands where pictures go; root may write into any folder, so saving is refused here.
    (run / "figures").write_text("")
    monkeypatch.setattr(Searcher, "save", refuse)
    assert call("search", "--run", run, queries[0], "--k", "2") == 0
    said = capsys.readouterr()
    assert "the model says" in said.out and "not kept: search cannot be written" in said.out
    assert "No picture: " in said.out + said.err
    assert call("search", "--run", run, "--add", queries[0]) == 2
    assert "cannot be written" in last_error(capsys)


@pytest.mark.one_stack
def test_more_results_than_images_are_refused_and_a_picture_stays_small(run, queries, capsys):
    assert call("search", "--run", run, queries[0], "--k", "10000000000") == 2
    assert "Use at most 1000." in last_error(capsys)
    assert call("search", "--run", run, queries[0], "--k", "300") == 0
    width, height = Image.open(run / "figures" / "search.png").size
    assert width < 6000 and height < 6000


@pytest.mark.one_stack
def test_a_kind_of_index_that_there_is_not_is_refused_first(run, queries, capsys):
    assert call("search", "--run", run, "--rebuild") == 0
    capsys.readouterr()
    for flag in ("--method", "--distance"):
        assert call("search", "--run", run, queries[0], flag, "foo") == 2
        said = capsys.readouterr()
        assert "must be one of" in said.err and said.out == ""


@pytest.mark.one_stack
def test_approximate_search_says_its_recall(run, queries, capsys):
    assert call("search", "--run", run, queries[0], "--method", "hnsw") == 0
    assert "recall of the ten nearest 1.0000 as measured" in capsys.readouterr().out


@pytest.mark.one_stack
def test_a_bad_query_is_named_and_the_others_are_searched(run, queries, capsys):
    bad = queries[0].with_name("bad.png")
    bad.write_text("no image")
    assert call("search", "--run", run, bad, queries[0]) == 2
    said = capsys.readouterr().out
    assert f"{bad}: error: " in said and f"{queries[0]}: the model says" in said


@pytest.mark.one_stack
def test_what_is_no_file_is_refused_at_once(run, queries, capsys, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    words = ["--run", run, tmp_path / "pipe.png", "/dev/zero"]
    for command, more in (("predict", []), ("search", []), ("search", ["--add", "/dev/zero"])):
        assert call(command, *words, *more) == 2
        out, err = capsys.readouterr()
        lines = [line for line in (out + err).splitlines() if "is no ordinary file" in line]
        assert len(lines) == (1 if more else 2), out + err


@pytest.mark.one_stack
def test_an_index_of_another_model_is_refused_until_it_is_rebuilt(run, queries, capsys):
    assert call("search", "--run", run, queries[0]) == 0
    meta = run / "saved_model" / "search" / "meta.json"
    meta.write_text(meta.read_text().replace('"model": "', '"model": "0'))
    capsys.readouterr()
    assert call("search", "--run", run, queries[0]) == 2
    assert "does not belong to this model" in last_error(capsys)
    assert call("search", "--run", run, "--rebuild") == 0


@pytest.mark.one_stack
@pytest.mark.parametrize("command", ["evaluate", "embed", "search"])
@pytest.mark.parametrize("damage", ["nowhere", "no config", "bad config", "no model", "no data"])
def test_broken_runs_get_one_line(run, queries, command, damage, capsys):
    if command == "embed" and find_spec("pymde") is None:
        pytest.skip("PyMDE, of the extra mde, is not installed")
    config = run / "config.json"
    if damage == "no config":
        config.unlink()
    elif damage == "bad config":
        config.write_text("{")
    elif damage == "no model":
        shutil.rmtree(run / "saved_model")
    elif damage == "no data":
        values = json.loads(config.read_text())
        config.write_text(json.dumps({**values, "dataset": "folder:/nowhere at all"}))
    words = ["--run", run if damage != "nowhere" else run / "other"]
    words += [queries[0]] * (command == "search")
    assert call(command, *words) == 2
    wanted = {
        "nowhere": "is no run folder",
        "no config": "is no run folder",
        "bad config": "cannot be read as a config",
        "no model": "no SavedModel",
        "no data": "nowhere at all",
    }
    assert wanted[damage] in last_error(capsys)
    assert not (run / "evaluation.json").exists() and not (run / "embedding.npz").exists()


@pytest.mark.one_stack
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate", "--within", "some"], "`--within` must be one of train, test, all"),
        (["evaluate", "--distance", "cosin"], "Did you mean cosine"),
        (["embed", "--dim", "4"], "`--dim` must be one of 2, 3"),
        (["embed", "--variant", "umap"], "`--variant` must be one of neighbors"),
        (["embed", "--onto-train", "--source", "graph"], "`--onto-train` needs"),
        (["embed", "--limit", "3"], "`--limit` must be at least 10"),
        (["search"], "nothing to search"),
        (["search", "a.png", "--k", "0"], "`--k` must be at least 1"),
        (["search", "--rebuild", "--method", "lsh"], "must be one of exact, ivf, hnsw"),
        (["search", "--rebuild", "--distance", "manhattan"], "must be one of cosine, euclidean"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_flags_get_one_line(run, words, message, capsys):
    assert call(words[0], "--run", run, *words[1:]) == 2
    assert message in last_error(capsys)
