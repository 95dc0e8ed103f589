"""Commands that are killed at random moments and given again end as if they never were.

`pytest -m slow tests/test_kill_harness.py` disturbs 150 times, for about an hour: training in
every neighbor mode, and the other commands that write. None of it is among the ordinary tests:
there `tests/test_recipes_train.py` kills at three chosen moments.
"""

import json
import shutil
import signal
import time

import numpy as np
import pytest
from outcomes import differing, files_of, worth_of
from processes import Command, alone, folder_of_images

pytestmark = pytest.mark.slow

MODES = ("packed", "gathered", "paired", "bank")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP)
SETTINGS = {"dataset": "digits", "limit": 200, "backbone": "fcnn", "batch_size": 32}
DATA = ["--dataset", "digits", "--limit", "200"]
TRAIN = ["train", *DATA, "--backbone", "fcnn", "--batch-size", "32", "--run-dir", "r"]
COMMANDS = {
    "build-graph": ["build-graph", *DATA, "--out", "g"],
    "embed": ["embed", "--run", "r", "--limit", "60"],
    "evaluate": ["evaluate", "--run", "r"],
    "search": ["search", "--run", "r", "query.png", "--add", "added.png"],
    "sweep": ["compare", "--sweep", "sweep.yaml"],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a finished run, images and a sweep."""
    folder = folder_of_images(tmp_path_factory.mktemp("trained") / "f", "query", "added")
    sweep = {**SETTINGS, "epochs": 1, "seed": [0, 1], "out": "s"}
    (folder / "sweep.yaml").write_text(json.dumps(sweep))
    alone(folder, [*TRAIN, "--epochs", "2"])
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, trained):
    """By command, what it leaves where nobody disturbs it, and the seconds that it takes."""
    known = {}

    def of(name, words, begun):
        if name not in known:
            folder = tmp_path_factory.mktemp(name) / "f"
            begin(folder, trained if begun else None)
            _, seconds = alone(folder, words)
            known[name] = left_in(folder), seconds
        return known[name]

    return of


def begin(folder, source):
    if source is None:
        folder.mkdir()
    else:
        # Modification times are those of the source, as the newest model may be looked for.
        shutil.copytree(source, folder)


def left_in(folder):
    """The files in a folder, and what its runs are worth."""
    runs = sorted(path.parent for path in folder.rglob("metrics.json"))
    return files_of(folder), {str(run.relative_to(folder)): worth_of(run) for run in runs}


def disturb(folder, words, seconds, rng):
    """Sends a signal to a command at a random moment; says what and when."""
    command = Command(folder, words)
    moment = float(rng.uniform(0, seconds))
    time.sleep(moment)
    number = SIGNALS[int(rng.integers(len(SIGNALS)))]
    command.send(number)
    return f"{signal.Signals(number).name} after {moment:.2f} of {seconds:.2f} s", command.wait()


def compare(folder, expected, what):
    files, runs = left_in(folder)
    assert not differing(files, expected[0]), what
    assert runs == expected[1], what


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(25))
def test_a_run_killed_at_a_random_moment_ends_as_if_it_never_was(mode, seed, undisturbed, tmp_path):
    words = [*TRAIN, "--epochs", "4", "--validation-fraction", "0.2", "--neighbors", mode]
    expected, seconds = undisturbed(mode, words, begun=False)
    folder = tmp_path / "f"
    begin(folder, None)
    what, _ = disturb(folder, words, seconds, np.random.default_rng([seed, MODES.index(mode)]))
    alone(folder, [*words, "--resume"])
    compare(folder, expected, what)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("seed", range(10))
def test_a_command_killed_at_a_random_moment_leaves_what_the_next_makes_whole(
    name, seed, undisturbed, trained, tmp_path
):
    words = COMMANDS[name]
    expected, seconds = undisturbed(name, words, begun=True)
    folder = tmp_path / "f"
    begin(folder, trained)
    rng = np.random.default_rng([seed, list(COMMANDS).index(name)])
    what, status = disturb(folder, words, seconds, rng)
    again = Command(folder, words)
    if again.wait() != 0:
        # An image that is in the index already cannot be added again.
        assert name == "search" and again.wait() == 2, (what, again.said)
        assert "added.png" in again.said[1] and again.said[1].count("\n") == 1, again.said
        alone(folder, words[:4])
    compare(folder, expected, (what, status))
