"""Two commands at once that write to one place: one of them wins whole, and nothing is lost.

`pytest -m slow tests/test_concurrency_harness.py` does 20 rounds of each pair, for about an hour;
`tests/test_damage.py` and `tests/test_recipes_embed.py` do among the ordinary tests what needs no
other process.
"""

import csv
import json
import shutil
import threading

import numpy as np
import pytest
from outcomes import differing, files_of, worth_of
from processes import alone, at_once, folder_of_images

from tfgraphreg import storage
from tfgraphreg.export import Predictor
from tfgraphreg.visualize.search import Searcher

pytestmark = pytest.mark.slow

DATA = ["--dataset", "digits", "--limit", "100"]
SMALL = ["--backbone", "fcnn", "--epochs", "1", "--batch-size", "64"]
TRAIN = ["train", *DATA, *SMALL]
GRAPH = ["build-graph", *DATA, "--out", "g", "--graph-neighbors"]
EMBED = ["embed", "--run", "r", "--limit", "60", "--seed"]
EVALUATE = ["evaluate", "--run", "r", "--distance"]
PROPAGATE = ["propagate", *DATA, "--labels-per-class", "3", "--out", "labels.tsv", "--method"]
COMPARE = ["compare", "--out", "c"]
SEARCH = ["search", "--run", "r"]
# By name, two commands that write the same files with other content; both end well.
LAST_WINS = {
    "build-graph": ([*GRAPH, "3"], [*GRAPH, "7"]),
    "embed": ([*EMBED, "1"], [*EMBED, "2"]),
    "evaluate": ([*EVALUATE, "euclidean"], [*EVALUATE, "manhattan"]),
    "propagate": ([*PROPAGATE, "spreading"], [*PROPAGATE, "laplace"]),
    "compare": ([*COMPARE, "r"], [*COMPARE, "r", "r2"]),
}
# Two changes of one index: the images that it holds at the end beside those of training.
INDEX = {
    "add and add": ([*SEARCH, "--add", "one.png"], [*SEARCH, "--add", "two.png"]),
    "add and rebuild": ([*SEARCH, "--add", "one.png"], [*SEARCH, "--rebuild"]),
    "add and another method": (
        [*SEARCH, "--add", "one.png"],
        [*SEARCH, "--method", "hnsw", "--rebuild"],
    ),
}
ROUNDS = pytest.mark.parametrize("round_", range(20))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with two finished runs and images."""
    folder = folder_of_images(tmp_path_factory.mktemp("trained") / "f", "one", "two")
    for seed, run in enumerate(("r", "r2")):
        alone(folder, [*TRAIN, "--run-dir", run, "--seed", str(seed)])
    alone(folder, [*SEARCH, "one.png"])
    return folder


@pytest.fixture(scope="module")
def made_alone(tmp_path_factory, trained):
    """By command, what is in its folder after it, the seconds that it takes, and the folder."""
    known = {}

    def of(words):
        if tuple(words) not in known:
            folder = tmp_path_factory.mktemp("alone") / "f"
            shutil.copytree(trained, folder)
            _, seconds = alone(folder, words)
            known[tuple(words)] = files_of(folder, but=["cache/"]), seconds, folder
        return known[tuple(words)]

    return of


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of the finished runs."""
    shutil.copytree(trained, tmp_path / "f")
    return tmp_path / "f"


def delay(round_, seconds):
    """Every other round both start together, else the second at a random moment of the first."""
    return float(np.random.default_rng(round_).uniform(0, seconds)) if round_ % 2 else 0.0


def no_leftovers(folder):
    assert not [path for path in folder.rglob("*") if path.name.endswith(".part")]


@ROUNDS
@pytest.mark.parametrize("name", LAST_WINS)
def test_one_of_two_wins_whole(name, round_, folder, made_alone):
    pair = LAST_WINS[name]
    expected = [made_alone(words) for words in pair]
    both = at_once(folder, *pair, delay=delay(round_, expected[0][1]))
    assert [command.wait() for command in both] == [0, 0], [command.said for command in both]
    left = files_of(folder, but=["cache/"])
    differences = [differing(left, files) for files, *_ in expected]
    assert [] in differences, differences
    no_leftovers(folder)


@ROUNDS
def test_of_two_runs_in_one_folder_the_second_is_refused(round_, tmp_path, made_alone):
    (tmp_path / "f").mkdir()
    pair = [[*TRAIN, "--run-dir", "t", "--seed", str(seed)] for seed in (1, 2)]
    seconds = made_alone(pair[0])[1]
    both = at_once(tmp_path / "f", *pair, delay=delay(round_, 1.2 * seconds))
    statuses = [command.wait() for command in both]
    assert sorted(statuses) == [0, 2], [command.said for command in both]
    (line,) = both[statuses.index(2)].said[1].splitlines()
    assert line.startswith("error: ")
    winner = tmp_path / "f/t"
    assert json.loads((winner / "config.json").read_text())["seed"] == 1 + statuses.index(0)
    assert worth_of(winner) == worth_of(made_alone(pair[statuses.index(0)])[2] / "t")
    alone(tmp_path / "f", ["evaluate", "--run", "t", "--no-figures"])
    no_leftovers(tmp_path)


@ROUNDS
def test_of_two_exports_to_one_place_one_is_left_whole(round_, tmp_path, made_alone):
    folder = tmp_path / "f"
    folder.mkdir()
    pair = [
        [*TRAIN, "--run-dir", f"t{seed}", "--seed", str(seed), "--export-dir", "model"]
        for seed in (1, 2)
    ]
    both = at_once(folder, *pair, delay=delay(round_, made_alone(pair[0])[1]))
    statuses = [command.wait() for command in both]
    for command, status in zip(both, statuses):
        assert status == 0 or (status == 2 and command.said[1].count("\n") == 1), command.said
    assert 0 in statuses
    run_dir = Predictor(folder / "model").meta["config"]["run_dir"]
    assert statuses[("t1", "t2").index(run_dir)] == 0
    alone(folder, ["evaluate", "--run", run_dir, "--no-figures"])
    no_leftovers(folder)


@ROUNDS
@pytest.mark.parametrize("name", INDEX)
def test_an_index_that_two_change_loses_nothing(name, round_, folder, made_alone):
    pair = INDEX[name]
    both = at_once(folder, *pair, delay=delay(round_, made_alone(pair[0])[1]))
    assert [command.wait() for command in both] == [0, 0], [command.said for command in both]
    found = Searcher.load(folder / "saved_models/r")
    added = {"one.png"} | ({"two.png"} if name == "add and add" else set())
    assert len(found) == len(set(found.ids)) == 100 + len(added)
    assert added <= set(found.ids)
    no_leftovers(folder)


@ROUNDS
def test_two_sweeps_at_once_make_each_run_once(round_, tmp_path):
    folder = tmp_path / "f"
    folder.mkdir()
    settings = {"dataset": "digits", "limit": 100, "backbone": "fcnn", "epochs": 1, "out": "s"}
    (folder / "sweep.yaml").write_text(json.dumps({**settings, "batch_size": 64, "seed": [0, 1]}))
    words = ["compare", "--sweep", "sweep.yaml"]
    both = at_once(folder, words, words, delay=delay(round_, 20))
    assert [command.wait() for command in both] == [0, 0], [command.said for command in both]
    said = "".join("".join(command.said) for command in both)
    assert said.count(": runs, log in") == said.count(": finished before") == 2
    with open(folder / "s/table.csv", newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)  # Seeds are not told apart there.
    assert row["runs"] == "2"
    no_leftovers(folder)


def test_a_reader_beside_300_replaced_exports_finds_one_of_them_whole(trained, tmp_path):
    images = np.random.default_rng(0).integers(0, 17, (5, 8, 8, 1), np.uint8)
    models = [trained / "saved_models" / run for run in ("r", "r2")]
    answers = [Predictor(model)(images)["probabilities"] for model in models]
    assert np.abs(answers[0] - answers[1]).max() > 1e-3
    target, ended = tmp_path / "model", threading.Event()

    def replace(number):
        with storage.atomic_folder(target) as part:
            shutil.copytree(models[number % 2], part, dirs_exist_ok=True)

    def replace_all():
        for number in range(300):
            replace(number)
            if ended.wait(0.05):
                return
        ended.set()

    replace(0)
    writer = threading.Thread(target=replace_all)
    writer.start()
    read = [0, 0]
    try:
        while not ended.is_set():
            found = Predictor(target)(images)["probabilities"]
            same = [np.array_equal(found, answer) for answer in answers]
            assert any(same)
            read[same.index(True)] += 1
    finally:
        ended.set()
        writer.join()
    assert min(read) > 10
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
