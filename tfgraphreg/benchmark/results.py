"""What a benchmark found: tables for people, ratios for the regression guard."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import platform
import subprocess
from typing import Any

from tfgraphreg.benchmark.timing import Figure
from tfgraphreg.storage import write_text

NAMES = ("graph", "scale", "packing", "epoch", "step", "inference", "startup", "quality")


@dataclasses.dataclass
class Table:
    """Rows of cells under a title.

    Attributes:
        title: A heading.
        columns: Names; the first column is text, the others are numbers in words.
        rows: Cells as text.
        notes: Sentences below the table.
    """

    title: str
    columns: list[str]
    rows: list[list[str]] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Found:
    """The result of one benchmark.

    Attributes:
        about: What was measured on, a sentence.
        tables: See `Table`.
        ratios: By name: `value`, `better` (`"lower"` or `"higher"`), and `goal`, a bound that the
            value should keep, or None.
    """

    about: str
    tables: list[Table] = dataclasses.field(default_factory=list)
    ratios: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    def ratio(self, name: str, figure: Figure, *, better: str, goal: float | None = None) -> None:
        """Keeps a ratio for the guard."""
        self.ratios[name] = {
            "value": figure.median,
            "low": figure.low,
            "high": figure.high,
            "better": better,
            "goal": goal,
        }


def seconds_text(figure: Figure) -> str:
    """A figure of seconds, with its spread where there is one."""
    return _spread(figure, lambda value: f"{value:.3g} s" if value < 100 else f"{value:.0f} s")


def times_text(figure: Figure) -> str:
    """A ratio, with its spread where there is one."""
    return _spread(figure, lambda value: f"{value:.3g}" if value < 100 else f"{value:.0f}")


def _spread(figure: Figure, text: Any) -> str:
    if figure.count == 1:
        return text(figure.median)
    return f"{text(figure.median)} ({text(figure.low)} to {text(figure.high)})"


def machine() -> dict[str, Any]:
    """The machine in general words, and how many processes are waiting for its cores."""
    from tfgraphreg.compat import tf, usable_cores

    gpus = len(tf.config.list_physical_devices("GPU"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cores": usable_cores(),
        "processor": platform.machine(),
        "memory_gib": round(memory),
        "gpus": gpus,
        "system": platform.system(),
        "load": round(os.getloadavg()[0], 1),
    }


def commit() -> str | None:
    """The commit of this checkout, or None outside of one."""
    here = pathlib.Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short=10", "HEAD"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def fill_measured(page: pathlib.Path, lines: list[str], *, mark: str = "measured") -> None:
    """Puts lines into a page, in the place of those between its two marks."""
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    text = page.read_text(encoding="utf-8")
    before, after = text.split(begin)[0], text.split(end)[1]
    write_text(page, f"{before}{begin}\n" + "\n".join(lines) + f"\n{end}{after}")
