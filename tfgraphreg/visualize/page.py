"""Pages in one file that needs nothing else: content as data, a script that draws it.

A page makes no request: its Content-Security-Policy forbids them all. Every text in it is data to
the page's script, which writes it as text, so a class or a file may have any name.
"""

from __future__ import annotations

import base64
import html
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfgraphreg.storage import write_text

_TEMPLATE, _COMMON = "report_template.html", "page_script.html"


def write_page(
    path: os.PathLike[str] | str, content: Mapping[str, Any], *, parts: Sequence[str]
) -> pathlib.Path:
    """Writes `content` with the scripts that draw it.

    Args:
        path: The HTML file.
        content: JSON-like values; `title`, `notes` and `problems` stand at the top of every page.
        parts: Files of this folder with the scripts of this page.

    Raises:
        DataError: If the file cannot be written.
    """
    folder = pathlib.Path(__file__).parent
    page = (folder / _TEMPLATE).read_text(encoding="utf-8")
    scripts = "\n".join((folder / name).read_text(encoding="utf-8") for name in (_COMMON, *parts))
    head, middle, tail = page.partition("<!-- scripts -->")
    head = head.replace("<!-- title -->", html.escape(str(content["title"])))
    data = f'<script type="application/json" id="data">{_json(content)}</script>\n'
    write_text(path, head + data + scripts + middle + tail)
    return pathlib.Path(path)


def data_uri(png: bytes) -> str:
    """A PNG file as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _json(content: Any) -> str:
    """JSON that can stand in a script element: no character of it can end the element."""
    text = json.dumps(_finite(content), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
