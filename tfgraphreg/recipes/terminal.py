"""What a run says while it works."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_QUIET_SECONDS = 2.0


def say(text: str) -> None:
    """Prints a line at once, so that a log shows it before the work that follows."""
    print(text, flush=True)


def table_console(width: int = 180) -> Console:
    """A console for tables: as wide as the terminal, or `width` characters in a file."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=width)


@contextlib.contextmanager
def progress_bars() -> Iterator[Callable[..., None]]:
    """Gives `progress(what, done, total)`, shown as bars once work takes longer than two seconds.

    In a terminal the bars move; in a log a line is printed at every tenth of the work. A call
    may leave out `what`.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console()
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    state = _Log(bars, console.is_terminal)
    with bars:
        yield state.update


class _Log:
    def __init__(self, bars, terminal: bool):
        self._bars, self._terminal = bars, terminal
        self._tasks: dict[str, int] = {}
        self._started: dict[str, float] = {}
        self._tenths: dict[str, int] = {}

    def update(self, *args) -> None:
        what, done, total = args if len(args) == 3 else ("working", *args)
        now = time.perf_counter()
        if done == 0 or what not in self._started:
            self._started[what], self._tenths[what] = now, 0
        if now - self._started[what] < _QUIET_SECONDS:
            return
        if self._terminal:
            if what not in self._tasks:
                self._tasks[what] = self._bars.add_task(what, total=total or None)
            self._bars.update(self._tasks[what], completed=done, total=total or None)
        elif total and done * 10 // total > self._tenths[what]:
            self._tenths[what] = done * 10 // total
            say(f"  {what}: {done}/{total}")
