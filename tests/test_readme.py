"""What the README and the pages in docs/ tell a reader to type can be typed."""

import pathlib
import re
import shlex

import pytest

from tfgraphreg.cli import make_parser
from tfgraphreg.commands.table import COMMANDS

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(page):
    """(command, its words) of every line in a code block that calls this program."""
    for language, block in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            continue
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|;", line):
                words = shlex.split(part, comments=True)
                for position, word in enumerate(words):
                    script = re.fullmatch(r"(?:.*/)?scripts/(\w+)\.py", word)
                    name = script.group(1).replace("_", "-") if script else None
                    rest = words[position + 1 :]
                    if word.endswith("tfgraphreg") and rest and rest[0] in COMMANDS:
                        name, rest = rest[0], rest[1:]
                    if name in COMMANDS:
                        yield name, rest
                        break


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_understood(page):
    for name, words in commands(page):
        words = [word for word in words if not word.startswith((">", "2>"))]
        if "--help" not in words and "--print_config" not in words and "--config" not in words:
            make_parser(name).parse_args(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    prose = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", prose):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_readme_has_the_two_commands_that_ci_runs():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for pattern in re.findall(r"from_readme '(.+?)'\)", (ROOT / ".ci" / "run").read_text()):
        assert len(re.findall(pattern, text, re.MULTILINE)) == 1, pattern


@pytest.mark.parametrize("page", ["README.md", "docs/api/runs.md"])
def test_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFGRAPHREG_CACHE", str(tmp_path / "cache"))
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = [code for language, code in BLOCK.findall(text) if language == "python"]
    assert blocks
    names = {}
    for code in blocks:
        exec(code, names)
