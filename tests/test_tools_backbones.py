"""The tools about backbones: a wrong name is one line, and a look at the help changes nothing."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

from tfgraphreg.backbones import own

ROOT = pathlib.Path(__file__).parent.parent


def run(script, *words):
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / f"{script}.py"), *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def load_script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("script", "chosen", "place"),
    [
        ("try_backbones", ["--only", "zzz"], "--out"),
        ("measure_backbones", ["--only", "zzz"], "--output"),
        ("measure_default", ["--candidates", "zzz:1"], "--runs"),
    ],
)
def test_an_unknown_name_is_one_line_and_writes_nothing(tmp_path, script, chosen, place):
    done = run(script, *chosen, place, tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith("error: Unknown backbone. Received: 'zzz'.")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_help_about_the_table_writes_nothing():
    table = ROOT / "tfgraphreg" / "backbones" / "own_table.py"
    before = table.read_bytes(), table.stat().st_mtime_ns
    done = run("list_own_backbones", "--help")
    assert done.returncode == 0 and "own_table.py" in done.stdout and "--help" in done.stdout
    assert (table.read_bytes(), table.stat().st_mtime_ns) == before


def test_the_table_is_written_as_it_is_formatted():
    script = load_script("list_own_backbones")
    assert script.table(list(own.RECORDS)) == script.TABLE.read_text(encoding="utf-8")
