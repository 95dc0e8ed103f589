"""How long work in this room reports itself."""

from __future__ import annotations

from collections.abc import Callable

# Called as progress(what, done, total): a short description, how many units are finished, and
# how many there are, or 0 when nobody knows. Calls for one description come in order.
Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """A progress callback that shows nothing."""
