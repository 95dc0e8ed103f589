"""The package as a wheel: whole, and usable where there is no clone."""

import ast
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parent.parent
SOURCES = sorted((ROOT / "tfgraphreg").rglob("*.py"))


def texts(path):
    """Strings of a module that a user may see: all but docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


def test_no_text_names_a_file_of_the_clone():
    named = {
        str(path.relative_to(ROOT)): text
        for path in SOURCES
        for text in texts(path)
        if any(place in text for place in ("scripts/", "tools/", "tests/", "train.py"))
    }
    assert SOURCES and not named


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this clone, built from a copy, so that the clone stays clean."""
    if importlib.util.find_spec("setuptools") is None or importlib.util.find_spec("pip") is None:
        pytest.skip("setuptools and pip, which build the wheel, are not installed")
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "clone"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "tfgraphreg", copy / "tfgraphreg", ignore=ignore)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder), str(copy)]
    subprocess.run([sys.executable, "-m", "pip", *build], check=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = {path for path in (ROOT / "tfgraphreg").rglob("*") if path.is_file()}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for path in package
        if "__pycache__" not in path.parts and path.suffix != ".pyc"
    }
    assert names == wanted


@pytest.mark.slow
def test_a_wheel_trains_evaluates_embeds_searches_and_compares(wheel, tmp_path):
    """In a new environment, away from the clone; it borrows the packages that are installed."""
    fresh = tmp_path / "env"
    venv.create(fresh, with_pip=True)
    python = fresh / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", wheel]
    subprocess.run([str(word) for word in install], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    own = fresh / "lib" / version / "site-packages"
    # As a plain path: the .pth files there, that of an editable install too, are not read.
    (own / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    env |= {"TFGRAPHREG_CACHE": str(tmp_path / "cache"), "MPLBACKEND": "Agg"}
    work = tmp_path / "work"
    work.mkdir()

    def call(*words):
        done = subprocess.run(
            list(map(str, words)), cwd=work, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    where = call(python, "-c", "import tfgraphreg; print(tfgraphreg.__file__)")
    assert pathlib.Path(where.strip()).is_relative_to(own)
    program = fresh / "bin" / "tfgraphreg"
    small = ["--dataset", "digits", "--backbone", "fcnn", "--epochs", "1"]
    assert "Model: saved_models/a" in call(program, "train", *small, "--run-dir", "runs/a")
    call(program, "train", *small, "--alpha", "0", "--run-dir", "runs/b")
    assert "cohen kappa" in call(program, "evaluate", "--run", "runs/a")
    if importlib.util.find_spec("pymde"):
        call(program, "embed", "--run", "runs/a", "--limit", "100")
    Image.fromarray(np.full((8, 8), 90, np.uint8)).save(work / "gray.png")
    assert "nearest:" in call(program, "search", "--run", "runs/a", "gray.png")
    assert "gray.png: " in call(program, "predict", "--run", "runs/a", "gray.png")
    call(program, "compare", "runs", "--out", "page")
    assert (work / "page" / "report.html").stat().st_size > 10_000
