"""The public surface: every name is there, documented, and asks for options by name."""

import inspect
import pathlib
import re
import subprocess
import sys

import pytest

import tfgraphreg

# What a function is about may come first and have a default: list_backbones("res*").
MAIN_ARGUMENTS = {("list_backbones", "pattern")}
NAMES = [name for name in tfgraphreg.__all__ if name != "__version__"]


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_documented_and_takes_options_by_name(name):
    found = getattr(tfgraphreg, name)
    assert found.__name__ == name and len(inspect.getdoc(found)) > 20
    if inspect.isfunction(found):
        for parameter in inspect.signature(found).parameters.values():
            if (name, parameter.name) in MAIN_ARGUMENTS:
                continue
            if parameter.default is not inspect.Parameter.empty:
                assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, parameter


def test_the_list_is_what_dir_shows():
    assert set(dir(tfgraphreg)) == set(tfgraphreg.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = tfgraphreg.nonsense


def test_import_brings_nothing_heavy():
    code = "import sys, tfgraphreg; print({'tensorflow', 'numpy', 'faiss'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("old", ["load", "extract", "build", "pack"])
def test_an_earlier_name_still_works_and_says_what_to_write(old):
    with pytest.warns(DeprecationWarning, match=rf"tfgraphreg\.{old} is now tfgraphreg\.{old}_"):
        found = getattr(tfgraphreg, old)
    assert found is getattr(tfgraphreg, found.__name__) and old not in dir(tfgraphreg)


@pytest.mark.parametrize(
    ("words", "home"),
    [
        (r"difflib\.", "errors.py"),  # did_you_mean
        (r"json\.loads\(|yaml\.safe_load", "reading.py"),  # bounded readers
        (r"pickle\.load|allow_pickle=True", None),
    ],
)
def test_one_rule_stands_in_one_place(words, home):
    root = pathlib.Path(tfgraphreg.__file__).parent
    # A process that was started here hands over what this one wrote, and a manifest is copied.
    own = {"benchmark/timing.py", "neighbors/packing.py"}
    found = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if re.search(words, path.read_text(encoding="utf-8"))
    }
    assert found - own == ({home} if home else set())
