"""How long work reports that it goes on, and how a caller may show it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """What a caller passes as `progress`, to be called while work goes on."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Takes one report.

        Args:
            what: What is done, in a few words. Reports about one piece of work come in order.
            done: Finished units.
            total: All units; 0 if unknown.
        """


def silent(what: str, done: int, total: int) -> None:
    """A progress that shows nothing; the default everywhere."""
