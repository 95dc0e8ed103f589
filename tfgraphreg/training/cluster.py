"""The workers of one training, as `TF_CONFIG` lists them, and how they meet before it begins.

TensorFlow waits up to an hour for a worker that never starts, and trains without a word on workers
with different settings. So the workers meet once before: each tells the first one, the chief, what
it is about to do, and the chief answers where the run lies.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any

from tfgraphreg.errors import ConfigError, TrainingError, first_line
from tfgraphreg.reading import parse_json

VARIABLE = "TF_CONFIG"
_EXAMPLE = (
    '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
)
_JOBS = ("chief", "worker")
_MOST_WORKERS = 4096
_LONGEST = 1 << 16  # bytes of a message
_PATIENCE = 10.0  # seconds for a message that has begun
_PAUSE = 0.2  # seconds between two attempts to reach the chief


@dataclasses.dataclass(frozen=True)
class Cluster:
    """All workers of a training, the chief first.

    Attributes:
        addresses: `host:port` of each.
        rank: The place of this process among them; 0 is the chief.
    """

    addresses: tuple[str, ...]
    rank: int

    @property
    def chief(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0

    def meet(self, mark: str, answer: Mapping[str, Any] | None, *, wait: float) -> dict[str, Any]:
        """Waits until every worker is there.

        Args:
            mark: What this worker is about to do; must be the same on all.
            answer: What the chief tells the others; None on these.
            wait: Seconds until a worker that stays away ends this.

        Returns:
            The chief's answer.

        Raises:
            TrainingError: If a worker stays away.
            ConfigError: If the workers have other settings than the chief.
        """
        if self.chief:
            return self._gather(mark, dict(answer or {}), wait)
        return self._call(mark, wait)

    def _gather(self, mark: str, answer: dict[str, Any], wait: float) -> dict[str, Any]:
        until = time.monotonic() + wait
        waiting: dict[int, socket.socket] = {}
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(_listen(self.addresses[0]))
            while len(waiting) < len(self.addresses) - 1:
                server.settimeout(max(until - time.monotonic(), 0.01))
                try:
                    guest = stack.enter_context(server.accept()[0])
                except TimeoutError:
                    away = [n for n in range(1, len(self.addresses)) if n not in waiting]
                    raise self._absent(away, wait) from None
                found = _receive(guest)
                rank = found.get("rank") if found else None
                # Whoever else calls here is no worker. One that was started again calls again.
                if type(rank) is int and 0 < rank < len(self.addresses):
                    waiting[rank] = guest
                    if found and found.get("mark") != mark:
                        answer = {"refused": rank}
                        break
            for guest in waiting.values():
                with contextlib.suppress(OSError):
                    _send(guest, answer)
        return _accepted(answer)

    def _call(self, mark: str, wait: float) -> dict[str, Any]:
        until = time.monotonic() + wait
        host, port = _split(self.addresses[0])
        while time.monotonic() < until:
            try:
                with socket.create_connection((host, port), timeout=_PATIENCE) as chief:
                    _send(chief, {"rank": self.rank, "mark": mark})
                    answer = _receive(chief, patience=max(until - time.monotonic(), 0.01))
            except OSError:
                answer = None
            if answer is not None:
                return _accepted(answer)
            time.sleep(_PAUSE)
        raise self._absent([0], wait)

    def _absent(self, ranks: list[int], wait: float) -> TrainingError:
        names = ", ".join(f"{rank} ({self.addresses[rank]})" for rank in ranks[:8])
        return TrainingError(
            f"Workers did not come within {wait:g} s: {names}.",
            cure="Start the same command on every worker, and look at what those said; "
            "`worker_wait` sets how long they wait for each other.",
        )


def find_cluster() -> Cluster:
    """The cluster that `TF_CONFIG` describes.

    Raises:
        ConfigError: If the variable is missing or malformed.
    """
    text = os.environ.get(VARIABLE)
    if not text:
        raise ConfigError(
            f"`strategy=multiworker` reads the workers from the environment variable {VARIABLE}, "
            "which is not set.",
            cure=f"Set it on each worker, such as {_EXAMPLE}.",
        )
    try:
        return _parsed(parse_json(text))
    except ValueError as error:
        raise ConfigError(
            f"{VARIABLE} is malformed ({first_line(error)}).",
            received=text[:200],
            cure=f"Write it as {_EXAMPLE}.",
        ) from error


def _parsed(values: Any) -> Cluster:
    def part(owner: Any, name: str, kind: type, words: str) -> Any:
        found = owner.get(name) if isinstance(owner, dict) else None
        if not isinstance(found, kind) or isinstance(found, bool):
            raise ValueError(f"{name} must be {words}")
        return found

    jobs = part(values, "cluster", dict, "an object with the addresses of the workers")
    task = part(values, "task", dict, "an object with type and index")
    for job in jobs:
        if job not in _JOBS:
            raise ValueError(f"a cluster has chief and worker, not {str(job)[:40]}")
    known = {job: part(jobs, job, list, "a list of host:port") for job in _JOBS if job in jobs}
    if len(known.get("chief", [None])) != 1:
        raise ValueError("there must be one chief")
    addresses = [address for job in _JOBS for address in known.get(job, [])]
    for address in addresses:
        _split(address)
    if len(set(addresses)) != len(addresses):
        raise ValueError("two workers have the same address")
    if not 1 <= len(addresses) <= _MOST_WORKERS:
        raise ValueError(f"there must be 1 to {_MOST_WORKERS} workers")
    job = part(task, "type", str, "chief or worker")
    index = part(task, "index", int, "a whole number")
    if job not in known or not 0 <= index < len(known[job]):
        raise ValueError(f"the task {job[:40]} {index} is not in the cluster")
    before = len(known.get("chief", [])) if job == "worker" else 0
    return Cluster(tuple(addresses), before + index)


def _split(address: Any) -> tuple[str, int]:
    host, colon, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
    if not (host and colon and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 65536):
        raise ValueError(f"{str(address)[:80]!r} is no host:port")
    return host.strip("[]"), int(port)


def _listen(address: str) -> socket.socket:
    host, port = _split(address)
    # In a container the name may stand for an address outside of it.
    for place in (host, ""):
        try:
            return socket.create_server((place, port))
        except OSError as error:
            last = error
    raise ConfigError(
        f"The chief cannot listen at its address in {VARIABLE} ({first_line(last)}).",
        received=address,
        cure="Free the port, or name another one on every worker.",
    )


def _send(to: socket.socket, message: Mapping[str, Any]) -> None:
    to.sendall(json.dumps(message).encode() + b"\n")


def _receive(origin: socket.socket, *, patience: float = _PATIENCE) -> dict[str, Any] | None:
    """One line of JSON; None unless the whole line comes within `patience` seconds."""
    until = time.monotonic() + patience
    text = b""
    try:
        while not text.endswith(b"\n") and len(text) < _LONGEST:
            # A caller who sends a byte at a time must not hold the others for long.
            origin.settimeout(max(until - time.monotonic(), 1e-3))
            more = origin.recv(4096)
            if not more:
                return None
            text += more
        found = parse_json(text.decode())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _accepted(answer: dict[str, Any]) -> dict[str, Any]:
    if "refused" in answer:
        raise ConfigError(
            f"Worker {answer['refused']} has other settings or versions than the chief.",
            cure="Start the same command with the same packages on every worker.",
        )
    return answer


@contextlib.contextmanager
def ending_together(cluster: Cluster | None) -> Iterator[None]:
    """Turns TensorFlow's errors about workers that are gone into a sentence.

    Raises:
        TrainingError: If another worker ended while this one needed it.
    """
    from tfgraphreg.compat import tf

    if cluster is None:
        yield
        return
    gone = (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
        tf.errors.InternalError,
    )
    try:
        yield
    except gone as error:
        raise TrainingError(
            f"Another worker ended or cannot be reached ({first_line(error)[:120]}).",
            cure="Look at what it said; then start all workers again with `resume=True`.",
        ) from error
