"""Checks quickly whether a download is possible."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request


def reachable(url: str, *, seconds: float = 6.0) -> bool:
    """Whether the host of `url` answers within `seconds`, through a proxy if one is set.

    Any answer counts, an HTTP error too. It runs in a thread because a name lookup has no timeout:
    without a network it can hang for much longer than `seconds`.
    """
    answers: list[bool] = []

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=seconds):
                answers.append(True)
        except urllib.error.HTTPError:
            answers.append(True)
        except (OSError, ValueError):
            answers.append(False)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answers) and answers[0]
