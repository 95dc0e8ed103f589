"""Training that is killed at random moments ends as if it never was, in every neighbor mode.

`pytest -m slow tests/test_kill_harness.py` kills 100 times, for about an hour. None of it is
among the ordinary tests: there `tests/test_recipes_train.py` kills at three chosen moments.
"""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from outcomes import history_of, metrics_of, weights_of

pytestmark = pytest.mark.slow

MODES = ("packed", "gathered", "paired", "bank")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP)
ROOT = pathlib.Path(__file__).parent.parent


def start(folder, mode, *more):
    command = [sys.executable, "-m", "tfgraphreg", "train", "--dataset", "digits", "--limit", "200"]
    command += ["--backbone", "fcnn", "--batch-size", "32", "--epochs", "4", "--run-dir", "r"]
    command += ["--validation-fraction", "0.2", "--neighbors", mode, *more]
    env = {**os.environ, "TFGRAPHREG_CACHE": "cache", "PYTHONPATH": str(ROOT)}
    with open(folder / "log.txt", "a") as log:
        return subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)


def left_by(folder):
    """What a run is worth, without times: metrics, history, weights, and names of files."""
    run = folder / "r"
    names = [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if not any(word in path.name for word in ("events.out", "log.txt", "fingerprint"))
    ]
    return metrics_of(run), history_of(run), weights_of(run), sorted(names)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """By mode, what a run that nobody interrupts leaves, and the seconds that it takes."""
    known = {}

    def of(mode):
        if mode not in known:
            folder = tmp_path_factory.mktemp(mode)
            started = time.monotonic()
            assert start(folder, mode).wait() == 0
            known[mode] = left_by(folder), time.monotonic() - started
        return known[mode]

    return of


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(25))
def test_a_run_killed_at_a_random_moment_ends_as_if_it_never_was(mode, seed, whole, tmp_path):
    expected, seconds = whole(mode)
    rng = np.random.default_rng([seed, MODES.index(mode)])
    process = start(tmp_path, mode)
    time.sleep(float(rng.uniform(0, seconds)))
    number = SIGNALS[int(rng.integers(len(SIGNALS)))]
    process.send_signal(number)
    if number == signal.SIGSTOP:
        time.sleep(0.5)
        process.send_signal(signal.SIGCONT)
    process.wait()
    assert start(tmp_path, mode, "--resume").wait() == 0, (tmp_path / "log.txt").read_text()[-2000:]
    assert left_by(tmp_path) == expected
