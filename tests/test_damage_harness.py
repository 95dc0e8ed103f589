"""Seeded damage to every file of a run, an export and the caches: healed or refused, never used.

`pytest -m slow tests/test_damage_harness.py` does 500 damages, which takes about 20 minutes; the
ordinary tests do a few. After each damage the commands that read the file are run again. They must
give what they gave before, or end in one line: no traceback, no other result.
"""

import json
import os
import pathlib
import shutil

import numpy as np
import pytest

from tfgraphreg import cli

TRAIN = [
    *("train", "--dataset", "digits", "--backbone", "fcnn", "--limit", "150", "--epochs", "2"),
    *("--batch-size", "64", "--run-dir", "r", "--validation-fraction", "0.2"),
]
# Files whose content no result depends on: markers, logs, and pictures of TensorBoard.
_FREE = (".lock", "events.out", "fingerprint.pb", "checkpoint", ".sha256")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a finished run, its export and its caches, and what the commands gave."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TFGRAPHREG_CACHE", "cache")
        assert cli.main(TRAIN) == 0
        assert cli.main(["evaluate", "r", "--no-figures"]) in (0, 2)
        results = results_of(folder)
    return folder, results


def results_of(folder):
    """What a run is worth, without times and places."""
    metrics = json.loads((folder / "r/metrics.json").read_text())
    kept = {k: v for k, v in metrics.items() if not k.endswith("seconds") and k != "export"}
    return json.dumps(kept, sort_keys=True)


def files_of(folder):
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.stat().st_size and not any(word in path.name for word in _FREE)
    )


def damage(rng, path, others):
    """Flips a bit, cuts, deletes, or puts another file in the place of one; says what it did."""
    content = path.read_bytes()
    way = rng.choice(["flip", "flip", "flip", "cut", "delete", "swap"])
    if way == "flip":
        place = int(rng.integers(len(content)))
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        return f"bit in byte {place} of {path}"
    if way == "cut":
        path.write_bytes(content[: int(rng.integers(len(content)))])
    elif way == "delete":
        path.unlink()
    else:
        alike = [other for other in others if other.suffix == path.suffix and other != path]
        if not alike:
            return damage(rng, path, others)
        path.write_bytes(alike[int(rng.integers(len(alike)))].read_bytes())
    return f"{way} {path}"


def one_damage(made, tmp_path, seed, capsys):
    """Damages a copy, resumes the run, and compares what it gives."""
    source, before = made
    rng = np.random.default_rng(seed)
    folder = tmp_path / str(seed)
    shutil.copytree(source, folder)
    os.chdir(folder)
    # Resumed without its results, a run reads its config, history, checkpoints and caches; with
    # them, its metrics and its export.
    unfinished = bool(rng.integers(2))
    if unfinished:
        for name in ("metrics.json", ".metrics.json.sha256", "evaluation.json"):
            pathlib.Path("r", name).unlink(missing_ok=True)
    files = files_of(folder)
    what = damage(rng, files[int(rng.integers(len(files)))], files)
    capsys.readouterr()
    commands = [[*TRAIN, "--resume"]]
    if not unfinished:
        commands += [["evaluate", "r", "--no-figures"], ["compare", "r", "--out", "c"]]
    for command in commands:
        status = cli.main(command)
        err = capsys.readouterr().err
        assert status in (0, 2), f"{what}: status {status} of {command[0]}: {err}"
        assert "Traceback" not in err, f"{what}: {err}"
        if status:
            assert err.strip().splitlines()[-1].startswith("error: "), what
            break
    else:
        assert results_of(folder) == before, f"{what}: another result"
    shutil.rmtree(folder)


@pytest.mark.parametrize("seed", range(4))
def test_damage_is_healed_or_refused(made, tmp_path, seed, capsys):
    one_damage(made, tmp_path, seed, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4, 504))
def test_much_damage_is_healed_or_refused(made, tmp_path, seed, capsys):
    one_damage(made, tmp_path, seed, capsys)
