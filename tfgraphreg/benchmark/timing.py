"""Contenders that take turns, and work whose memory is measured in a process of its own."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pathlib
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

from tfgraphreg.errors import TFGraphRegError


@dataclasses.dataclass(frozen=True)
class Turn:
    """What a contender does when it is its turn.

    Attributes:
        work: Called without arguments. If it gives a number, that is the time in seconds; else
            the whole call is timed.
        every: Takes part in each round whose number divides by this: slow ones less often.
    """

    work: Callable[[], float | None]
    every: int = 1


def take_turns(
    contenders: Mapping[str, Turn], rounds: int, progress: Callable[[str, int, int], None]
) -> dict[str, dict[int, float]]:
    """Seconds of every contender by round: `{name: {round: seconds}}`.

    The order is reversed in every other round, so that no one always follows the same one.
    """
    seconds: dict[str, dict[int, float]] = {name: {} for name in contenders}
    for number in range(rounds):
        names = [n for n, turn in contenders.items() if number % turn.every == 0]
        for name in names if number % 2 == 0 else reversed(names):
            progress(f"round {number + 1} of {rounds}", number, rounds)
            start = time.perf_counter()
            own = contenders[name].work()
            seconds[name][number] = time.perf_counter() - start if own is None else own
    return seconds


@dataclasses.dataclass(frozen=True)
class Figure:
    """A median of several measurements with the smallest and the largest."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Any) -> Figure:
        """The figure of at least one number."""
        values = list(values)
        return cls(statistics.median(values), min(values), max(values), len(values))

    @classmethod
    def middle_half(cls, values: Any) -> Figure:
        """The median with the range of the middle half: many short turns have far outliers."""
        values = sorted(values)
        low, high = values[len(values) // 4], values[3 * len(values) // 4]
        return cls(statistics.median(values), low, high, len(values))


def ratios(seconds: Mapping[str, Mapping[int, float]], name: str, base: str) -> list[float]:
    """How many times as long `name` took as `base`, in each round that both took part in."""
    shared = seconds[name].keys() & seconds[base].keys()
    return [seconds[name][r] / seconds[base][r] for r in sorted(shared)]


def ratio(seconds: Mapping[str, Mapping[int, float]], name: str, base: str) -> Figure:
    """The figure of `ratios`."""
    return Figure.of(ratios(seconds, name, base))


def in_process(function: str, **arguments: Any) -> tuple[Any, float, int]:
    """Calls a function of this room in a new process.

    Args:
        function: As in ``"graph:large"``: file and function.
        arguments: JSON-like.

    Returns:
        What it returned (JSON-like), the seconds that the process took, and its largest resident
        memory in bytes.

    Raises:
        TFGraphRegError: If the process failed.
    """
    code = (
        "import json, sys; from tfgraphreg.benchmark import timing; "
        "json.dump(timing.answer(sys.argv[1], json.loads(sys.argv[2])), open(sys.argv[3], 'w'))"
    )
    with tempfile.NamedTemporaryFile("r", suffix=".json") as file:
        command = [sys.executable, "-c", code, function, json.dumps(arguments), file.name]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        if done.returncode:
            raise TFGraphRegError(
                f"The measurement {function} failed.",
                received=f"exit status {done.returncode}: "
                + " ".join(done.stderr.strip().splitlines()[-1:]),
            )
        found = json.load(file)
    return found["value"], seconds, found["memory"]


def answer(function: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What the new process of `in_process` does: the value and the largest memory in bytes."""
    file, _, name = function.partition(":")
    module = importlib.import_module(f"tfgraphreg.benchmark.{file}")
    return {"value": getattr(module, name)(**arguments), "memory": largest_memory()}


def largest_memory() -> int:
    """The largest resident memory of this process so far, in bytes."""
    # The system's ru_maxrss begins with that of the process before it became Python.
    try:
        status = pathlib.Path("/proc/self/status").read_text(encoding="utf-8")
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024
    except (OSError, IndexError):
        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
