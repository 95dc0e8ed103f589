"""Seeded damage to every file that a command reads: healed or refused, never used.

`pytest -m slow tests/test_damage_harness.py` does 500 damages, which takes about half an hour; the
ordinary tests do four. After each damage the commands that read the file are
run. They must give what they gave before, or say in one line what is wrong: no traceback, no other
result.
"""

import json
import os
import pathlib
import re
import shutil

import numpy as np
import pytest
from outcomes import history_of, metrics_of
from PIL import Image

from tfgraphreg import cli
from tfgraphreg.recipes.sweep import command, read_sweep

SETTINGS = {
    "dataset": "digits",
    "backbone": "fcnn",
    "limit": 150,
    "epochs": 2,
    "batch_size": 64,
    "validation_fraction": 0.2,
}
FLAGS = [word for k, v in SETTINGS.items() for word in (f"--{k.replace('_', '-')}", str(v))]
TRAIN = ["train", *FLAGS, "--run-dir", "r"]
BUILD = ["build-graph", "--dataset", "digits", "--limit", "150", "--out"]
PREDICT = ["predict", "--run", "r", "query.png"]
EVALUATE = ["evaluate", "--run", "r", "--no-figures"]
SEARCH = ["search", "--run", "r", "query.png"]
COMPARE = ["compare", "r", "--out", "c"]
# What no command of this project reads: logs, locks, and what other programs show.
UNREAD = re.compile(
    r"\.lock|events\.out|fingerprint\.pb|/tensorboard/|\.svg$|\.html$|embedding\.json$|^c/|"
    r"^[a-z0-9]+\.(png|yaml)$|/table\.|log\.txt$"
)
# By command, the files that it writes into the folder of `--out`.
WRITES = {"compare": ["table.csv", "report.html"], "build-graph": ["graph.tsv"]}
# By the names of files: the commands that read them, and the files that they make anew for it.
READERS = {
    "index": (r"^saved_models/r/search/", [SEARCH, [*SEARCH[:3], "--add", "more.png"]], []),
    "export": (r"^saved_models/r/(?!search)", [EVALUATE, PREDICT], []),
    "caches": (r"^cache/", [[*TRAIN, "--resume"]], ["r", "saved_models/r"]),
    "checkpoints": (
        r"^r/(checkpoints/|inputs|\.?history|config)",
        [[*TRAIN, "--resume"], PREDICT],
        ["r/metrics.json", "r/.metrics.json.sha256", "saved_models/r"],
    ),
    "results": (r"^r/(\.?metrics|\.?evaluation|\.?history|config)", [COMPARE, EVALUATE], []),
    "pictures": (r"^r/(\.?embedding|figures/)", [COMPARE], []),
    "graphs": (
        r"^g/",
        [[*BUILD, "g2", "--graph", "g/graph.tsv"], [*BUILD, "g3", "--graph", "g/graph.npz"]],
        [],
    ),
    "sweeps": (r"^s/", [["compare", "--sweep", "sweep.yaml", "--out", "s"]], []),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with all that the commands leave."""
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TFGRAPHREG_CACHE", "cache")
        for name, image in zip(("query", "added", "more"), load_digits().images[-3:] * 15):
            Image.fromarray(image.astype(np.uint8)).save(f"{name}.png")
        for words in (
            TRAIN,
            EVALUATE,
            [*SEARCH, "--add", "added.png"],
            [*BUILD, "g"],
        ):
            assert cli.main(words) == 0, words
    return folder, {}


@pytest.fixture(scope="module")
def whole(made):
    """The same with a sweep and the pictures that `embed` draws, which take long."""
    folder, _ = made
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TFGRAPHREG_CACHE", "cache")
        for dim in ("2", "3"):
            assert cli.main(["embed", "--run", "r", "--limit", "40", "--dim", dim]) == 0
        pathlib.Path("sweep.yaml").write_text(json.dumps({**SETTINGS, "out": "s"}))
        (config,) = read_sweep("sweep.yaml").runs.values()
        assert cli.main(command(config)[3:]) == 0
    return folder, {}


def outcome(words, capsys):
    """Exit status and results of a command, and what it said."""
    capsys.readouterr()
    status = cli.main(words)
    out, err = capsys.readouterr()
    found = None
    if words[0] in ("predict", "search"):
        found = out
    elif words[0] == "train" and status == 0:
        found = metrics_of(pathlib.Path("r")), history_of(pathlib.Path("r"))
    elif words[0] == "evaluate" and status == 0:
        found = pathlib.Path("r/evaluation.json").read_text()
    elif status == 0:
        folder = pathlib.Path(words[words.index("--out") + 1])
        found = [(folder / name).read_text() for name in WRITES[words[0]]]
    return status, found, out, err


def of_name(pattern):
    return sorted(path for path in pathlib.Path().rglob("*") if re.search(pattern, str(path)))


def damage(rng, path, others):
    """Flips a bit, cuts, deletes, or puts another file in the place of one; says what it did."""
    content = path.read_bytes()
    way = rng.choice(["flip", "flip", "flip", "cut", "delete", "swap"])
    alike = [other for other in others if other.suffix == path.suffix and other != path]
    if way == "swap" and alike:
        other = alike[int(rng.integers(len(alike)))]
        path.write_bytes(other.read_bytes())
        return f"{other} in the place of {path}"
    if way == "cut":
        length = int(rng.integers(len(content)))
        path.write_bytes(content[:length])
        return f"{path} cut to {length} bytes"
    if way == "delete":
        path.unlink()
        return f"{path} deleted"
    place, bit = int(rng.integers(len(content))), int(rng.integers(8))
    changed = bytearray(content)
    changed[place] ^= 1 << bit
    path.write_bytes(changed)
    return f"bit {bit} of byte {place} of {path}"


def fresh_copy(source, folder, without):
    """Goes to a new copy of a folder that lacks some of its files."""
    os.chdir(folder.parent)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    os.chdir(folder)
    for name in without:
        if pathlib.Path(name).is_dir():
            shutil.rmtree(name)
        else:
            pathlib.Path(name).unlink(missing_ok=True)


def one_damage(made, tmp_path, sort, seed, capsys):
    """Damages a copy, and runs the commands that read the file."""
    source, expected = made
    names, commands, anew = READERS[sort]
    if sort not in expected:
        fresh_copy(source, tmp_path / "copy", anew)
        expected[sort] = [outcome(words, capsys)[:2] for words in commands]
        assert all(status == 0 for status, _ in expected[sort])
    fresh_copy(source, tmp_path / "copy", anew)
    every = [path for path in of_name(".") if path.is_file() and path.stat().st_size]
    every = [path for path in every if not UNREAD.search(str(path))]
    files = [path for path in every if re.search(names, str(path))]
    rng = np.random.default_rng([seed, list(READERS).index(sort)])
    what = damage(rng, files[int(rng.integers(len(files)))], every)
    for words, before in zip(commands, expected[sort]):
        status, found, out, err = outcome(words, capsys)
        about = f"{what}: {' '.join(words)}: status {status}\n{out[-1500:]}\n{err[-1500:]}"
        assert status in (0, 2) and "Traceback" not in out + err, about
        if err and status:
            assert err.strip().splitlines()[-1].startswith("error: "), about
        elif words[0] == "compare" and ("is broken" in out or "is not shown" in out):
            pass  # A table or page without what is damaged, and a sentence about it.
        else:
            assert (status, found) == before, about
    os.chdir(tmp_path)
    shutil.rmtree(tmp_path / "copy")


@pytest.mark.parametrize("sort", ["index", "export", "results", "graphs"])
def test_damage_is_healed_or_refused(made, tmp_path, sort, capsys, workplace):
    one_damage(made, tmp_path, sort, 0, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("sort", READERS)
@pytest.mark.parametrize("seed", range(1, 64))
def test_much_damage_is_healed_or_refused(whole, tmp_path, sort, seed, capsys, workplace):
    one_damage(whole, tmp_path, sort, seed, capsys)
