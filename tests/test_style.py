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


def test_no_sentence_is_a_paragraph():
    long = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs" / "tutorials").glob("*.md"))]:
        text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        prose = [part for part in text.split("\n\n") if not part.lstrip().startswith(("|", "#"))]
        for sentence in re.split(r"(?<=[.!?:])\s+", " ".join(prose)):
            if len(sentence.split()) > 45:
                long.append(f"{path.name}: {sentence[:80]}")
    assert not long, "\n".join(long)
