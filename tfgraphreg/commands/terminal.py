"""The terminal: log messages as lines, progress as a bar, tables as wide as the window.

Nothing below the command line imports this; the library reports by `logging` and `Progress`.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_QUIET_SECONDS = 2.0
_LONGEST_LINE = 10_000


def printable(text: str) -> str:
    """One line of at most 10,000 characters without control characters.

    A file's name may hold them, and an id in a file may have megabytes.
    """
    if len(text) > _LONGEST_LINE:
        text = f"{text[:_LONGEST_LINE]}..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def table_console(width: int = 180) -> Console:
    """A console for tables: as wide as the terminal, or `width` characters in a file."""
    from rich.console import Console

    # A class may be called :cat:.
    console = Console(emoji=False)
    return console if console.is_terminal else Console(emoji=False, width=width)


def say(text: str) -> None:
    """Prints one line, in which names from outside cannot do anything to the terminal."""
    print(printable(text), flush=True)


def cell(text: str) -> str:
    """A name from outside as Rich shows it: without control characters, and no markup."""
    from rich.markup import escape

    return escape(printable(text))


@contextlib.contextmanager
def attached(words: Callable[[str], str] = str) -> Iterator[ProgressBar]:
    """Shows the library's log messages on standard output.

    Args:
        words: Puts a message into the words of the command line.

    Yields:
        The `Progress` to pass on.
    """
    logger = logging.getLogger("tfgraphreg")
    bar = ProgressBar()
    handler = _Lines(bar, words)
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    # TensorFlow's own handler would write each line a second time.
    logger.propagate = False
    try:
        yield bar
    finally:
        bar.clear()
        logger.removeHandler(handler)
        logger.level, logger.propagate = before


class ProgressBar:
    """A `Progress` that shows work once it takes longer than two seconds.

    In a terminal a bar moves until the work is done or the next line is printed. In a log a
    line reports every tenth of the work, at most one in two seconds.
    """

    def __init__(self) -> None:
        self._bars: Any = None
        self._what: str | None = None
        self._started = self._shown = 0.0
        self._tenths = 0

    def __call__(self, what: str, done: int, total: int) -> None:
        """Shows one report."""
        now = time.perf_counter()
        if what != self._what or done == 0:
            self.clear()
            self._what, self._started, self._shown, self._tenths = what, now, now, 0
        if now - self._started < _QUIET_SECONDS:
            return
        console = table_console()
        if console.is_terminal:
            self._move(console, what, done, total)
        elif total and done * 10 // total > self._tenths and now - self._shown >= _QUIET_SECONDS:
            self._tenths, self._shown = done * 10 // total, now
            say(f"  {what}: {done}/{total}")

    def clear(self) -> None:
        """Takes the bar away."""
        if self._bars is not None:
            self._bars.stop()
        self._bars = self._what = None

    def _move(self, console: Console, what: str, done: int, total: int) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        if self._bars is None:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self._bars = Progress(*columns, console=console, transient=True)
            self._bars.add_task(cell(what))
            self._bars.start()
        self._bars.update(self._bars.task_ids[0], completed=done, total=total or None)
        if done >= total > 0:
            self.clear()


class _Lines(logging.Handler):
    """Prints each message at once, so that a log shows it before the work that follows."""

    def __init__(self, bar: ProgressBar, words: Callable[[str], str]):
        super().__init__()
        self._bar, self._words = bar, words

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a message; an error of the print is the command's, such as a closed pipe."""
        self._bar.clear()
        say(self._words(record.getMessage()))
