"""The words of docs/style.md: what is written in pages, docstrings, comments and errors."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FILES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "tfgraphreg").rglob("*.py")),
    *sorted((ROOT / "scripts").glob("*.py")),
    *sorted((ROOT / "tools").glob("*.py")),
]
FORBIDDEN = {
    r"cut short": "truncated",
    r"\btells? of\b": "raises, reports, says",
    r"\b(neighbour|colour|labelled|behaviour|centre|modelling|grey)": "American spelling",
    r"\b(normalis|optimis|organis|regularis|initialis|visualis)": "American spelling",
    r"\bwhilst\b|\butili[sz]e": "while, use",
    r"\bkinds? of image": "class",
    r"\bdoublets?\b": "duplicate",
    r"\ba couple of\b": "a number",
    r"\b(very|really|simply|obviously|basically) (easy|simple|fast|good)\b": "say what it is",
}


@pytest.mark.parametrize(("pattern", "instead"), FORBIDDEN.items())
def test_no_page_or_docstring_has_it(pattern, instead):
    found = []
    for path in FILES:
        if path.name != "style.md":
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if re.search(pattern, line, re.IGNORECASE):
                    found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert not found, f"write {instead}:\n" + "\n".join(found)


# A number that somebody measured: a share, a time, three decimals, a spread.
MEASURED = re.compile(
    r"\d ?%|\b0\.\d{3}|\d ± ?\d|\d (?:s|ms|seconds|minutes|hours)\b"
    r"|\b(?:half a|a|one|two|three|some|few) (?:minutes?|hours?)\b"
)
# What made it: a link, a command, a test.
POINTER = re.compile(r"\]\([^)]+\)|`[^`]*(?:\.py|tfgraphreg |pytest )[^`]*`")
# Settings and names that look like measurements.
NOT_MEASURED = (
    "95 % interval",
    "95 % confidence interval",
    "99.5% of a sample",  # what lists are read for
    "differ by more than 0.001",  # what an export is refused for
)
# Pages that a tool writes as a whole, and that say so at their beginning or end.
GENERATED = (
    "backbones_digits.md",
    "backbones_table.md",
    "benchmarks.md",
    "default_backbone.md",
    "evidence.md",
)


def without_source(text):
    """The paragraphs and tables that state a measured number and do not say what made it.

    That is said in the paragraph, at the end of its section, or, of a table, beside it.
    """
    text = re.sub(r"<!-- (\w+): begin -->.*?<!-- \1: end -->", "", text, flags=re.DOTALL)
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for section in re.split(r"^#+ .*$", text, flags=re.MULTILINE):
        parts = [part for part in re.split(r"\n\s*\n", section) if part.strip()]
        for place, part in enumerate(parts):
            said = re.sub(r"`[^`]*`", "", part).replace("\n", " ")
            for words in NOT_MEASURED:
                said = said.replace(words, "")
            around = parts[max(place - 1, 0) : place + 2] if part.startswith("|") else [part]
            if MEASURED.search(said) and not POINTER.search("\n".join([*around, parts[-1]])):
                yield part


def test_a_measured_number_says_what_made_it():
    missing = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        if path.name not in GENERATED:
            found = without_source(path.read_text(encoding="utf-8"))
            missing += [f"{path.relative_to(ROOT)}: {part}" for part in found]
    assert not missing, "name the command, or link to it:\n" + "\n\n".join(missing)


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_page_says_what_made_it(name):
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert re.search(r"(Made|measured) by\s+`(python tools/|tfgraphreg )", text)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("The graph is right in 82.5 % of cases.", 1),
        ("It takes 3 s.\n\nIt is blue.", 1),
        ("# A\n\nIt takes half a minute.\n\n# B\n\nBy `python tools/x.py`.", 1),
        ("It takes 3 s (`python tools/x.py`).", 0),
        ("It takes 3 s.\n\nMade by `python tools/x.py`.", 0),
        ("By [x](x.md):\n\n| a | 0.912 |\n\nIt is blue.", 0),
        ("<!-- x: begin -->\n82 %\n<!-- x: end -->\n\nThe 95 % interval.", 0),
    ],
)
def test_what_counts_as_said(text, count):
    assert len(list(without_source(text))) == count


def test_no_sentence_is_a_paragraph():
    long = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs" / "tutorials").glob("*.md"))]:
        text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        prose = [part for part in text.split("\n\n") if not part.lstrip().startswith(("|", "#"))]
        for sentence in re.split(r"(?<=[.!?:])\s+", " ".join(prose)):
            if len(sentence.split()) > 45:
                long.append(f"{path.name}: {sentence[:80]}")
    assert not long, "\n".join(long)
