"""Errors a user can act on: the rule, what was received, and the cure, in one line."""

from __future__ import annotations

import bisect
import difflib
import re
from collections.abc import Iterable
from typing import Any

# The end of a sentence; not of a path such as ".." or of a text that was cut with "...".
_FULL_STOP = re.compile(r"[^./]\.$")

_COMPARED = 400  # names that a wrong one is compared with


_LONGEST = 2000


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


class TFGraphRegError(Exception):
    """Base of every error that is the user's to mend.

    The command line prints it as one line and exits with status 2. Of a rule and of what was
    received 2,000 characters are kept.

    Args:
        rule: What must hold, or what went wrong, as a sentence.
        received: What was found instead, for example ``"k=10, items=8"``.
        cure: What to do about it, as a sentence.
    """

    def __init__(self, rule: str, *, received: str | None = None, cure: str | None = None):
        # A file may name an item with megabytes of text.
        rule, received = _shortened(rule), None if received is None else _shortened(received)
        self.rule, self.received, self.cure = rule, received, cure
        parts = [rule]
        if received is not None:
            # What was received may be another error, which ends with a full stop already.
            stop = "" if _FULL_STOP.search(received) else "."
            parts.append(f"Received: {received}{stop}")
        if cure is not None:
            parts.append(cure)
        super().__init__(" ".join(parts))


class ConfigError(TFGraphRegError, ValueError):
    """A setting, or a combination of settings, that cannot work."""


class UnknownNameError(TFGraphRegError, KeyError):
    """A name that no registry knows."""

    # KeyError would print the repr of the message.
    __str__ = Exception.__str__


class DataError(TFGraphRegError, ValueError):
    """Data that is missing, altered, truncated or of the wrong kind."""


class GraphError(TFGraphRegError, ValueError):
    """A graph, or a graph file, that cannot be used."""


class ModelError(TFGraphRegError, ValueError):
    """A network that cannot be built, loaded or exported as asked."""


class TrainingError(TFGraphRegError, RuntimeError):
    """Training that cannot go on, such as a loss that became NaN."""


class RunError(TFGraphRegError, RuntimeError):
    """A run folder that is in the way, incomplete or of another run."""


class MissingExtraError(TFGraphRegError, ImportError):
    """A package that belongs to an optional extra is not installed.

    Args:
        package: The package that could not be imported.
        extra: The extra of tfgraphreg that brings it.
        purpose: What it is needed for.
    """

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed.",
            cure=f'Run: pip install "tfgraphreg[{extra}]".',
        )


class StackError(TFGraphRegError, ImportError):
    """The installed or already loaded packages cannot work together."""


def first_line(error: BaseException) -> str:
    """What an error says first, or its kind if it says nothing; at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def did_you_mean(value: Any, choices: Iterable[str]) -> str | None:
    """A question that offers the choices spelled like `value`, or None if there are none.

    Upper and lower case count as alike where nothing else is.
    """
    value, choices = str(value)[:200], list(choices)
    if len(choices) > 2 * _COMPARED:
        # difflib takes seconds for ten thousands: compare what begins or ends alike.
        backward = _around(value[::-1], [choice[::-1] for choice in choices])
        choices = _around(value, choices) + [choice[::-1] for choice in backward]
    near = difflib.get_close_matches(value, dict.fromkeys(choices), n=2)
    if not near:
        folded = {choice.lower(): choice for choice in choices}
        near = [folded[name] for name in difflib.get_close_matches(value.lower(), folded, n=2)]
    words = [name[:200] if name.isprintable() else repr(name[:200]) for name in near]
    return f"Did you mean {' or '.join(words)}?" if words else None


def _around(value: str, choices: list[str]) -> list[str]:
    """The choices that stand next to `value` in alphabetical order."""
    choices = sorted(choices)
    place = bisect.bisect(choices, value)
    return choices[max(0, place - _COMPARED // 2) : place + _COMPARED // 2]
