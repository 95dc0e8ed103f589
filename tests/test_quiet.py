"""The library is quiet: it logs; the command line alone knows the terminal."""

import ast
import pathlib

import pytest

import tfgraphreg

PACKAGE = pathlib.Path(tfgraphreg.__file__).parent
TERMINAL = {PACKAGE / "cli.py", *(PACKAGE / "commands").glob("*.py")}
LIBRARY = sorted(set(PACKAGE.rglob("*.py")) - TERMINAL)


def writes_to_the_terminal(source):
    """Line numbers of what prints, or imports a library that does."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names = [f"{node.value.id}.{node.attr}"]
        terminal = ("rich", "sys.stdout", "tfgraphreg.cli", "tfgraphreg.commands")
        if any(name.split(".")[0] == "rich" or name.startswith(terminal[1:]) for name in names):
            yield node.lineno
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) in ("print", "input"):
            yield node.lineno


@pytest.mark.parametrize(
    "source",
    ["print(1)", "import rich.table", "from rich import box", "import sys; sys.stdout.write('')"],
)
def test_the_search_finds_what_it_looks_for(source):
    assert list(writes_to_the_terminal(source))


def test_nothing_below_the_command_line_writes_to_the_terminal():
    found = {
        str(path.relative_to(PACKAGE)): lines
        for path in LIBRARY
        if path.name != "__main__.py"
        and (lines := list(writes_to_the_terminal(path.read_text(encoding="utf-8"))))
    }
    assert LIBRARY and not found
