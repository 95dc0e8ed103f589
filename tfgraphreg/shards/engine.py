"""What calls the work on shards, one call a part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from tfgraphreg.progress import Progress


class Engine(Protocol):
    """Calls a function for each of many parts, wherever it likes."""

    def map(
        self,
        function: Callable[..., Any],
        parts: Sequence[tuple[Any, ...]],
        what: str,
        progress: Progress,
    ) -> list[Any]:
        """What the function gives for each part, in their order.

        A function may be called twice for a part, if a worker dies.

        Args:
            function: A function of a module; its arguments are a part's.
            parts: Arguments that can be sent to another process.
            what: What is done, for `progress`.
            progress: Called with the parts done.

        Raises:
            TFGraphRegError: What the function raises, or if the workers are gone.
        """

    def share(self, value: Any) -> Any:
        """Sends a value to the workers once; what is returned stands for it in parts."""


class InProcess:
    """The engine that calls one part after the other, here."""

    def map(
        self,
        function: Callable[..., Any],
        parts: Sequence[tuple[Any, ...]],
        what: str,
        progress: Progress,
    ) -> list[Any]:
        """See `Engine`."""
        results = []
        for part in parts:
            results.append(function(*part))
            progress(what, len(results), len(parts))
        return results

    def share(self, value: Any) -> Any:
        """See `Engine`."""
        return value
