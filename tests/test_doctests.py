"""The examples in docstrings are run."""

import doctest
import importlib
import pathlib

import pytest

import tfgraphreg

ROOT = pathlib.Path(tfgraphreg.__file__).parent
MODULES = [
    ".".join(("tfgraphreg", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    )
    for path in sorted(ROOT.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name):
    found = doctest.testmod(importlib.import_module(name), verbose=False)
    assert found.attempted and not found.failed


def test_there_are_examples():
    assert "tfgraphreg.graph.similarity" in MODULES
