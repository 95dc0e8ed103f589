"""What a client may ask of the server, and how connections that stall are closed."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from tfgraphreg.errors import ConfigError

MEBI = 1 << 20


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds of a server.

    Attributes:
        body: Bytes of one request.
        bodies: Bytes of all requests that are being read or answered.
        batch: Images of one request.
        pixels: Pixels of one image file.
        neighbors: Results of a search for one image.
        clients: Connections at once.
        head_seconds: From the first byte of a request, or from connecting, to the end of its head.
        body_seconds: For a body to arrive.
        wait_seconds: For a turn at the model.
    """

    body: int = 16 * MEBI
    bodies: int = 256 * MEBI
    batch: int = 64
    pixels: int = 16_000_000
    neighbors: int = 100
    clients: int = 500
    head_seconds: float = 10.0
    body_seconds: float = 20.0
    wait_seconds: float = 60.0

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ConfigError(
                    f"`{field.name}` must be above 0.", received=f"{field.name}={value}"
                )


def impatient(limits: Limits) -> type[H11Protocol]:
    """The HTTP of uvicorn, which closes a connection that does not finish the head of a request."""

    class Impatient(H11Protocol):
        _closing: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._start()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._stop()
            elif self._closing is None:
                self._start()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def _start(self) -> None:
            self._closing = self.loop.call_later(limits.head_seconds, self.transport.close)

        def _stop(self) -> None:
            if self._closing is not None:
                self._closing.cancel()
                self._closing = None

    return Impatient
