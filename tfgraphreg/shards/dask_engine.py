"""The engine on Dask: a cluster of its own on this machine, or one that is there already."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tfgraphreg.compat import load_distributed
from tfgraphreg.errors import ConfigError, RunError, TFGraphRegError, first_line
from tfgraphreg.progress import Progress

_ADDRESS = re.compile(r"((tcp|tls|ws|wss)://)?[A-Za-z0-9_.:\[\]-]{1,255}:\d{1,5}")
_CONNECT = "20s"
_MEMORY = re.compile(r"[1-9]\d{0,8}\s?(MB|GB|MiB|GiB)")


class DaskEngine:
    """Calls the parts on the workers of a Dask client.

    Args:
        client: A `distributed.Client`.
    """

    def __init__(self, client: Any):
        self._client = client

    def map(
        self,
        function: Callable[..., Any],
        parts: Sequence[tuple[Any, ...]],
        what: str,
        progress: Progress,
    ) -> list[Any]:
        """See `Engine`. Dask calls a part again whose worker died, up to three times."""
        distributed: Any = load_distributed()
        progress(what, 0, len(parts))
        places = {
            self._client.submit(_alone, function, *part, pure=False): place
            for place, part in enumerate(parts)
        }
        results: list[Any] = [None] * len(parts)
        try:
            for done, future in enumerate(self._completed(places), 1):
                results[places[future]] = future.result()
                progress(what, done, len(parts))
        except TFGraphRegError:
            raise
        except _killed(distributed) as error:
            raise RunError(
                f"Workers died again and again at the same part of the work ({what}).",
                received=first_line(error),
                cure="Give each worker more memory: `--worker-memory` of a local cluster.",
            ) from error
        except _lost(distributed) as error:
            raise RunError(
                f"The Dask cluster was lost ({first_line(error) or type(error).__name__}).",
                cure="Look at its scheduler and workers, and give the command again.",
            ) from error
        finally:
            self._client.cancel(list(places))
        return results

    def _completed(self, futures: Any) -> Any:
        # Else it asks for the default client, which is another's business.
        loop = self._client.loop
        return load_distributed().as_completed(list(futures), loop=loop)

    def share(self, value: Any) -> Any:
        """See `Engine`. The result of a task, which is made again if its worker dies."""
        return self._client.submit(_same, value, pure=False)


@contextlib.contextmanager
def dask_engine(
    scheduler: str | None, *, workers: int | None = None, memory: str | None = None
) -> Iterator[DaskEngine]:
    """An engine on a Dask cluster, for the time of the block.

    Args:
        scheduler: Address such as ``"tcp://10.0.0.1:8786"``; None for a cluster of processes on
            this machine's loopback, which ends with the block.
        workers: Processes of that local cluster; one a core by default.
        memory: Bytes that each may use, such as ``"2GB"``; an equal share by default.

    Raises:
        MissingExtraError: If Dask is not installed.
        ConfigError: If an argument cannot be.
        RunError: If no scheduler answers.
    """
    distributed: Any = load_distributed()
    _check(scheduler, workers, memory)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        if scheduler is None:
            cluster: Any = distributed.LocalCluster(
                host="127.0.0.1",
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                memory_limit=memory or "auto",
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
            )
            stack.enter_context(cluster)
        else:
            cluster = scheduler
        try:
            client = distributed.Client(cluster, timeout=_CONNECT, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise RunError(
                "No Dask scheduler answers at this address.",
                received=f"{scheduler} ({first_line(error)})",
                cure="Start one with `dask scheduler`, and workers with `dask worker ADDRESS`.",
            ) from error
        yield DaskEngine(stack.enter_context(client))


def _check(scheduler: str | None, workers: int | None, memory: str | None) -> None:
    if scheduler is not None and not _ADDRESS.fullmatch(scheduler):
        raise ConfigError(
            "`--scheduler` must be an address.",
            received=scheduler[:200],
            cure="Write it as tcp://HOST:PORT.",
        )
    if workers is not None and not 1 <= workers <= 1024:
        raise ConfigError("`--workers` must be from 1 to 1024.", received=str(workers))
    if memory is not None and not _MEMORY.fullmatch(memory):
        raise ConfigError(
            "`--worker-memory` must be a size.", received=memory[:80], cure="Try 2GB."
        )
    if scheduler is not None and (workers is not None or memory is not None):
        raise ConfigError(
            "A cluster that is there already has its own workers.",
            received=f"scheduler={scheduler}, workers={workers}, worker_memory={memory}",
            cure="Leave out `--workers` and `--worker-memory`.",
        )


def _killed(distributed: Any) -> type[BaseException]:
    return distributed.scheduler.KilledWorker


def _lost(distributed: Any) -> tuple[type[BaseException], ...]:
    from concurrent.futures import CancelledError

    closed = distributed.comm.core.CommClosedError
    return (OSError, TimeoutError, distributed.CancelledError, CancelledError, closed)


def _alone(function: Callable[..., Any], *part: Any) -> Any:
    """Calls a part with one thread: workers share a machine, and sums do not depend on threads."""
    import faiss
    from threadpoolctl import threadpool_limits

    faiss.omp_set_num_threads(1)
    with threadpool_limits(1):
        return function(*part)


def _same(value: Any) -> Any:
    return value
