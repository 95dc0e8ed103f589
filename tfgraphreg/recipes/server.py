"""A run's model behind HTTP on this machine."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from tfgraphreg.compat import check_optional
from tfgraphreg.errors import ConfigError
from tfgraphreg.progress import Progress, silent
from tfgraphreg.runs.folder import RunFolder, finished_metrics
from tfgraphreg.serving import HOST, PORT

if TYPE_CHECKING:
    import uvicorn

    from tfgraphreg.serving.limits import Limits

logger = logging.getLogger(__name__)


def check_server(port: int) -> None:
    """Refuses a server that cannot run, before anything is loaded.

    Raises:
        ConfigError: If the port is out of range.
        MissingExtraError: If the extra `serve` is not installed.
    """
    if not 0 <= port <= 65535:
        raise ConfigError("`port` must be from 0 to 65535.", received=f"port={port}")
    for package in ("starlette", "uvicorn"):
        check_optional(package, "serve", "A server")


def serve_run(
    run: RunFolder,
    *,
    port: int = PORT,
    limits: Limits | None = None,
    started: Callable[[uvicorn.Server, int], None] | None = None,
    progress: Progress = silent,
) -> None:
    """Answers requests about a finished run's model on 127.0.0.1 until it is stopped.

    `POST /v1/models/NAME:predict` and `GET /v1/models/NAME` in TensorFlow Serving's form, where
    NAME is the run's; `POST /v1/models/NAME:search`; a page at `/`.

    Args:
        run: The run.
        port: The port; 0 takes a free one.
        limits: Bounds of a request.
        started: Called with the server, whose `should_exit` ends it, and the port.
        progress: Called while the index is built, if there is none.

    Raises:
        ConfigError: If the port is out of range or taken.
        MissingExtraError: If the extra `serve` is not installed.
        RunError: If the run is not finished.
        ModelError: If it has no usable SavedModel.
        DataError: If the search index is damaged.
    """
    check_server(port)
    import uvicorn

    from tfgraphreg.export import Predictor
    from tfgraphreg.recipes.run_index import open_index
    from tfgraphreg.serving.app import App
    from tfgraphreg.serving.limits import Limits, impatient

    limits = limits or Limits()
    finished_metrics(run)
    with _listening(port) as heard:
        predictor = Predictor(run.export_path)
        searcher = open_index(run, predictor, progress=progress)
        app = App(predictor, searcher, run.name, limits=limits)
        server = uvicorn.Server(
            uvicorn.Config(
                app.asgi(),
                http=impatient(limits),
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                limit_concurrency=limits.clients,
                timeout_graceful_shutdown=5,
            )
        )
        # From now on who asks waits until the server runs.
        heard.listen(limits.clients)
        port = heard.getsockname()[1]
        logger.info(f"Serving {run.name}: http://{HOST}:{port}/ (Ctrl-C stops)")
        if started is not None:
            started(server, port)
        server.run(sockets=[heard])


def _listening(port: int) -> socket.socket:
    heard = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        heard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        heard.bind((HOST, port))
    except OSError as error:
        heard.close()
        raise ConfigError(
            f"`port` cannot be listened on ({error.strerror}).",
            received=f"port={port}",
            cure="Name another, or 0 for a free one.",
        ) from error
    return heard
