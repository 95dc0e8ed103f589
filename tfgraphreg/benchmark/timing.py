"""Contenders that take turns, and work whose memory is measured in a process of its own."""

from __future__ import annotations

import dataclasses
import json
import os
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


def ratio(seconds: Mapping[str, Mapping[int, float]], name: str, base: str) -> Figure:
    """How many times as long `name` took as `base`, over the rounds that both took part in."""
    shared = seconds[name].keys() & seconds[base].keys()
    return Figure.of(seconds[name][r] / seconds[base][r] for r in sorted(shared))


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
        "import importlib, json, sys; file, name = sys.argv[1].split(':'); "
        "found = getattr(importlib.import_module('tfgraphreg.benchmark.' + file), name)"
        "(**json.loads(sys.argv[2])); json.dump(found, open(sys.argv[3], 'w'))"
    )
    with tempfile.NamedTemporaryFile("r", suffix=".json") as answer:
        command = [sys.executable, "-c", code, function, json.dumps(arguments), answer.name]
        start = time.perf_counter()
        with tempfile.TemporaryFile("w+") as log:
            child = subprocess.Popen(command, stdout=log, stderr=log)
            # wait4 gives the memory of this child alone.
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            seconds = time.perf_counter() - start
            if child.returncode:
                log.seek(0)
                last = log.read().strip().splitlines()[-1:]
                raise TFGraphRegError(
                    f"The measurement {function} failed.",
                    received=f"exit status {child.returncode}: {' '.join(last)}",
                )
        scale = 1 if sys.platform == "darwin" else 1024
        return json.load(answer), seconds, usage.ru_maxrss * scale
