"""The application: routes, limits, and answers in TensorFlow Serving's form."""

from __future__ import annotations

import asyncio
import contextlib
import html
import json
import logging
import pathlib
import secrets
import urllib.parse
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from tfgraphreg.export import Predictor
from tfgraphreg.serving.limits import MEBI, Limits
from tfgraphreg.serving.requests import FILES, PIXELS, BadRequest, Question, parse
from tfgraphreg.visualize.cards import png
from tfgraphreg.visualize.page import data_uri
from tfgraphreg.visualize.search import Searcher

logger = logging.getLogger(__name__)

_MODELS = "/v1/models/"
# Programs of this machine, by the names that a browser may have used. A page of another host that
# makes its own name lead here is refused.
_LOCAL = ("localhost", "127.0.0.1", "[::1]")
# Requests that are computed at the same time.
_TURNS = 2
_SHOWN = 5


class App:
    """An exported model, and the index beside it, behind HTTP.

    Args:
        predictor: The model.
        searcher: The index of its images.
        name: Of the model in addresses.
        limits: Bounds of a request.
    """

    def __init__(
        self, predictor: Predictor, searcher: Searcher, name: str, *, limits: Limits | None = None
    ):
        self.predictor, self.searcher, self.name = predictor, searcher, name
        self.limits = limits or Limits()
        self._held = 0
        self._turns = asyncio.Semaphore(_TURNS)

    def asgi(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/", self._page, methods=["GET"]),
            Route(_MODELS + "{rest:path}", self._model, methods=["GET", "POST"]),
        ]
        handlers: dict[Any, Any] = {
            BadRequest: _refused,
            404: _missing,
            405: _missing,
            Exception: _unforeseen,
        }
        return Starlette(routes=routes, exception_handlers=handlers)

    async def _page(self, request: Request) -> Response:
        _check_local(request)
        nonce = secrets.token_urlsafe(16)
        template = (pathlib.Path(__file__).parent / "page.html").read_text(encoding="utf-8")
        address = _MODELS + urllib.parse.quote(self.name, safe="")
        about = {"classes": self.predictor.class_names, "address": address, "shown": _SHOWN}
        # No character of it can end the script element.
        data = json.dumps(about).replace("<", "\\u003c").replace("&", "\\u0026")
        page = template.replace("{{nonce}}", nonce).replace("{{title}}", html.escape(self.name))
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
            "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        )
        return HTMLResponse(
            page.replace("{{data}}", data),
            headers={"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"},
        )

    async def _model(self, request: Request) -> Response:
        _check_local(request)
        rest = request.path_params["rest"]
        if not rest.startswith(self.name):
            raise BadRequest(f"There is one model here, {self.name}.", 404)
        what = rest[len(self.name) :].removeprefix("/versions/1")
        reads: dict[str, Callable[[], dict[str, Any]]] = {
            "": self._status,
            "/metadata": self._metadata,
        }
        answers: dict[str, Callable[[bytes], dict[str, Any]]] = {
            ":predict": self._predict,
            ":search": self._search,
        }
        if request.method in ("GET", "HEAD") and what in reads:
            return JSONResponse(reads[what]())
        if request.method == "POST" and what in answers:
            async with self._body(request) as body, self._turn():
                return JSONResponse(await run_in_threadpool(answers[what], body))
        status = 405 if what in (*reads, *answers) else 404
        raise BadRequest(
            f"GET {_MODELS}{self.name} or {self.name}/metadata, POST {self.name}:predict or "
            f"{self.name}:search.",
            status,
        )

    def _status(self) -> dict[str, Any]:
        state = {"error_code": "OK", "error_message": ""}
        version = {"version": "1", "state": "AVAILABLE", "status": state}
        return {"model_version_status": [version]}

    def _metadata(self) -> dict[str, Any]:
        shape = self.predictor.image_shape
        takes = {
            PIXELS: ("image", "DT_UINT8", (-1, *shape)),
            FILES: ("encoded_image", "DT_STRING", (-1,)),
        }
        gives = {
            "probabilities": _tensor("DT_FLOAT", (-1, len(self.predictor.class_names))),
            "embedding": _tensor("DT_FLOAT", (-1, self.predictor.embedding_dim)),
        }
        signatures = {
            signature: {
                "inputs": {name: _tensor(kind, sizes)},
                "outputs": gives,
                "method_name": "tensorflow/serving/predict",
            }
            for signature, (name, kind, sizes) in takes.items()
        }
        return {
            "model_spec": {"name": self.name, "signature_name": "", "version": "1"},
            "metadata": {
                "signature_def": {"signature_def": signatures},
                "class_names": list(self.predictor.class_names),
            },
        }

    def _predict(self, body: bytes) -> dict[str, Any]:
        asked = parse(body, self.predictor.image_shape, self.limits)
        found = {name: values.tolist() for name, values in self.predictor(asked.images).items()}
        if not asked.rows:
            return {"outputs": found}
        return {"predictions": [dict(zip(found, row)) for row in zip(*found.values())]}

    def _search(self, body: bytes) -> dict[str, Any]:
        asked = parse(body, self.predictor.image_shape, self.limits, ("k", "thumbnails"))
        k = _option(asked, "k", _SHOWN, int)
        if not 1 <= k <= self.limits.neighbors:
            raise BadRequest(f"`k` must be from 1 to {self.limits.neighbors}.")
        pictures = self.searcher.thumbnails if _option(asked, "thumbnails", False, bool) else None
        outputs = self.predictor(asked.images)
        found = self.searcher.search(outputs["embedding"], k=k)
        rows = []
        for ids, labels, distances, places in zip(
            found.ids, found.labels, found.distances, found.positions
        ):
            near = [
                {"id": str(name), "label": str(label), "distance": float(distance)}
                for name, label, distance, place in zip(ids, labels, distances, places)
                if place >= 0
            ]
            if pictures is not None:
                for one, place in zip(near, places):
                    one["thumbnail"] = data_uri(png(pictures[place]))
            rows.append(near)
        answer = {"neighbors": rows, "probabilities": outputs["probabilities"].tolist()}
        if not self.predictor.meta.get("multilabel"):
            answer["votes"] = [
                {"label": str(label), "share": float(share)} for label, share in zip(*found.vote())
            ]
        if found.unknown is not None:
            answer["unknown"] = found.unknown.tolist()
        return answer

    @contextlib.asynccontextmanager
    async def _body(self, request: Request) -> AsyncIterator[bytes]:
        """The body of a request, its bytes counted as held until the block ends."""
        if request.headers.get("content-encoding", "identity") != "identity":
            raise BadRequest("A body must not be compressed.", 415)
        length = request.headers.get("content-length", "0")
        if len(length) > 18 or not length.isdigit() or int(length) > self.limits.body:
            raise self._too_large()
        parts: list[bytes] = []
        held = 0

        async def read() -> None:
            nonlocal held
            async for part in request.stream():
                held += len(part)
                self._held += len(part)
                if held > self.limits.body:
                    raise self._too_large()
                if self._held > self.limits.bodies:
                    raise BadRequest("The server is busy; try again later.", 503)
                parts.append(part)

        try:
            try:
                await asyncio.wait_for(read(), self.limits.body_seconds)
            except asyncio.TimeoutError:
                seconds = self.limits.body_seconds
                raise BadRequest(f"The body took more than {seconds:g} s.", 408) from None
            except ClientDisconnect:
                raise BadRequest("The client went away.", 400) from None
            yield b"".join(parts)
        finally:
            self._held -= held

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            await asyncio.wait_for(self._turns.acquire(), self.limits.wait_seconds)
        except asyncio.TimeoutError:
            raise BadRequest("The server is busy; try again later.", 503) from None
        try:
            yield
        finally:
            self._turns.release()

    def _too_large(self) -> BadRequest:
        return BadRequest(f"A body may have {self.limits.body / MEBI:g} MiB.", 413)


def _option(asked: Question, name: str, default: Any, kind: type) -> Any:
    value = asked.options.get(name, default)
    if type(value) is not kind:
        words = "a whole number" if kind is int else "true or false"
        raise BadRequest(f"`{name}` must be {words}.")
    return value


def _tensor(kind: str, sizes: tuple[int, ...]) -> dict[str, Any]:
    shape = {"dim": [{"size": str(size), "name": ""} for size in sizes], "unknown_rank": False}
    return {"dtype": kind, "tensor_shape": shape, "name": ""}


def _check_local(request: Request) -> None:
    """Refuses what a page of another host asks through the browser of this machine."""
    host = request.headers.get("host", "")
    origin = request.headers.get("origin")
    if _without_port(host) not in _LOCAL or origin not in (None, f"http://{host}"):
        raise BadRequest("Only programs and pages of this machine are answered.", 403)


def _without_port(host: str) -> str:
    name, _, port = host.rpartition(":")
    return name if name and port.isdigit() else host


def _said(message: str, status: int) -> Response:
    # A body that was not read to its end would be taken for the next request.
    return JSONResponse({"error": message}, status, headers={"Connection": "close"})


async def _refused(request: Request, error: BadRequest) -> Response:
    return _said(str(error), error.status)


async def _missing(request: Request, error: Any) -> Response:
    return _said("There is no such address here.", error.status_code)


async def _unforeseen(request: Request, error: Exception) -> Response:
    logger.error("A request failed", exc_info=error)
    return _said("Something that nobody foresaw went wrong.", 500)
