"""The tables of a benchmark, in the terminal and as a page of docs/."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tfgraphreg import storage
from tfgraphreg.benchmark.results import NAMES

_HEAD = """# How fast it is

Every table was measured by `tfgraphreg benchmark`, and this page was made from its JSON file
(`docs/benchmarks.json`); no number was written by hand. Contenders of one table take turns in one
process, so that a busy machine slows all of them alike. Shown are medians, and in brackets the
smallest and the largest measurement, or the middle half of them if a table says so.

    tfgraphreg benchmark all                                  # every table, about an hour
    tfgraphreg benchmark all --quick                          # small sizes, three minutes
    tfgraphreg benchmark epoch                                # one of {names}
    tfgraphreg benchmark all --json docs/benchmarks.json --page docs/benchmarks.md
    tfgraphreg benchmark all --quick --check docs/benchmarks.json

The last command is the regression guard: it fails, with exit status 1, when a ratio is worse than
the stored one by more than 15%. It compares with results of the same mode and should run on a
machine that does nothing else.
"""


def write_page(path: str, kept: dict[str, Any]) -> None:
    """Writes the page of the full results; a benchmark that has none shows its quick ones."""
    full, quick = kept.get("full", {}), kept.get("quick", {})
    lines = [_HEAD.replace("{names}", ", ".join(NAMES))]
    for name in NAMES:
        if name in full:
            lines += _section(name, full[name])
        elif name in quick:
            lines += _section(f"{name} (quick mode)", quick[name])
    storage.write_text(path, "\n".join(lines).rstrip() + "\n")


def _section(name: str, result: dict[str, Any]) -> Iterator[str]:
    yield f"\n## {name}\n\n{result['about']}"
    for each in result["tables"]:
        yield f"\n### {each['title']}\n"
        yield from _markdown(each["columns"], each["rows"])
        yield "".join(f"\n{note}" for note in each["notes"])
    yield "\nRatios that the guard keeps:\n"
    yield from _markdown(["ratio", "value", "goal", "kept"], ratio_rows(result["ratios"]))
    yield f"\n{provenance(result)}"


def _markdown(columns: list[str], rows: Any) -> Iterator[str]:
    yield "| " + " | ".join(columns) + " |"
    yield "| --- |" + " ---: |" * (len(columns) - 1)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def ratio_rows(ratios: dict[str, Any]) -> Iterator[list[str]]:
    """The cells of each ratio: its name, value and range, goal, and whether it is kept."""
    for name, ratio in ratios.items():
        lower, goal = ratio["better"] == "lower", ratio["goal"]
        kept = goal is not None and (ratio["value"] <= goal if lower else ratio["value"] >= goal)
        yield [
            name,
            f"{ratio['value']:.4g} ({ratio['low']:.4g} to {ratio['high']:.4g})",
            "" if goal is None else f"{'at most' if lower else 'at least'} {goal:g}",
            "" if goal is None else ("yes" if kept else "no"),
        ]


def provenance(result: dict[str, Any]) -> str:
    """Where and with what a result was measured, as a sentence."""
    machine, versions = result["machine"], result["versions"]
    shown = ", ".join(f"{k} {v}" for k, v in versions.items() if k != "tfgraphreg")
    gpus = f"{machine['gpus']} GPU" if machine["gpus"] else "no GPU"
    return (
        f"Measured in {result['seconds']:.0f} s on {machine['cores']} cores "
        f"({machine['processor']}, {machine['memory_gib']} GiB), {gpus}, "
        f"load {machine.get('load') or 'unknown'} before it began; {machine['system']}; "
        f"tfgraphreg {versions['tfgraphreg']} at commit {result['commit']}; {shown}."
    )
