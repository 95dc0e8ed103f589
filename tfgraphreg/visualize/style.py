"""What all figures have in common: colors, size, files, and images as matplotlib wants them."""

from __future__ import annotations

import contextlib
import os
import pathlib
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from tfgraphreg.errors import DataError, first_line
from tfgraphreg.storage import atomic_path

# Okabe and Ito 2008, told apart with any kind of color vision; the last two are added grays.
COLORS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#F0E442",
    "#000000",
    "#999999",
    "#66421F",
)
RIGHT, WRONG = "#0072B2", "#D55E00"
MARKERS = "os^Dv<>P*X"
PAGE_WIDTH = 7.0
# Under this word a PNG file holds the name of its figure.
_NAME = b"tfgraphreg figure"
_STYLE: Any = {
    "figure.dpi": 150,
    "savefig.dpi": 150,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "figure.constrained_layout.use": True,
    # Same input, same SVG.
    "svg.hashsalt": "tfgraphreg",
    "svg.fonttype": "none",
    # A class may be called $x$.
    "text.parse_math": False,
}


@contextlib.contextmanager
def figure(*, height: float, width: float = PAGE_WIDTH) -> Iterator[Any]:
    """Gives a matplotlib Figure of `width` x `height` inches that no window or state knows."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        made = Figure(figsize=(width, height))
        FigureCanvasAgg(made)
        yield made


def save(made: Any, path: os.PathLike[str] | str) -> list[pathlib.Path]:
    """Writes a Figure as `path`.png and `path`.svg, whole or not at all; gives both names."""
    import matplotlib

    base = pathlib.Path(path)
    base = base.with_suffix("") if base.suffix in (".png", ".svg") else base
    written = []
    with matplotlib.rc_context(_STYLE):
        _settle(made)
        for kind in ("png", "svg"):
            name = base.with_name(f"{base.name}.{kind}")
            metadata = {"Date": None} if kind == "svg" else {_NAME.decode(): base.name}
            with atomic_path(name) as part:
                made.savefig(part, format=kind, metadata=metadata, facecolor="white")
            written.append(name)
    return written


def save_png(made: Any, path: os.PathLike[str] | str) -> None:
    """Writes a Figure as one PNG file, whole or not at all."""
    import matplotlib

    with matplotlib.rc_context(_STYLE), atomic_path(path) as part:
        made.savefig(part, format="png", facecolor="white")


def _settle(made: Any) -> None:
    """Lays a Figure out once, and rounds where things lie.

    The layout depends in its last digits on addresses in memory, and names in an SVG on all digits.
    """
    made.draw_without_rendering()
    made.set_layout_engine("none")
    for axes in made.axes:
        axes.set_position(np.round(axes.get_position(original=True).bounds, 6))
    for text in made.texts:
        text.set_position(np.round(text.get_position(), 6))


def read_picture(path: pathlib.Path) -> bytes:
    """The content of a PNG file, whose checksums hold and which no other picture replaced.

    Raises:
        DataError: If the file is damaged, or is what `save` wrote under another name.
    """
    content = path.read_bytes()
    try:
        chunks = list(_png_chunks(content))
        if not chunks or chunks[-1][0] != b"IEND":
            raise ValueError("it is truncated")
        for kind, data in chunks:
            word, _, name = data.partition(b"\0")
            if kind == b"tEXt" and word == _NAME and name != path.stem.encode():
                raise ValueError(f"it is {name.decode('latin-1')}.png")
    except (ValueError, struct.error) as error:
        raise DataError(f"{path} is damaged ({first_line(error)}).") from error
    return content


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and data of each part of a PNG file; a ValueError or struct.error if it is damaged."""
    if content[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("it is no PNG")
    place = 8
    while place < len(content):
        (length,) = struct.unpack_from(">I", content, place)
        chunk = content[place + 4 : place + 8 + length]
        if struct.unpack_from(">I", content, place + 8 + length) != (zlib.crc32(chunk),):
            raise ValueError("a checksum is wrong")
        yield chunk[:4], chunk[4:]
        place += 12 + length


def show_image(axes: Any, image: np.ndarray, *, frame: str | None = None) -> None:
    """Draws one `[height, width, 1 or 3]` uint8 image, framed in a color if one is given."""
    image = np.asarray(image)
    gray = image.ndim == 2 or image.shape[-1] == 1
    axes.imshow(
        image[..., 0] if gray and image.ndim == 3 else image,
        cmap="gray" if gray else None,
        vmin=0,
        vmax=255,
        interpolation="nearest",
    )
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=frame is not None, color=frame, linewidth=2.5)


def draw_box(axes: Any, box: np.ndarray, text: str, color: str) -> None:
    """Draws a box over an image, with a text at its upper left corner.

    Args:
        axes: Of the image.
        box: `(x_min, y_min, x_max, y_max)`, edges in pixels.
        text: Its text.
        color: Of the box, and of the frame of the text.
    """
    draw_outline(axes, box, color)
    axes.text(
        box[0],
        box[1],
        text,
        fontsize=7,
        va="bottom",
        color="black",
        bbox={"facecolor": "white", "edgecolor": color, "pad": 1.2},
    )


def draw_outline(
    axes: Any,
    box: np.ndarray,
    color: str,
    *,
    line: str = "-",
    width: float = 1.8,
    halo: bool = False,
) -> None:
    """Draws the edges of a box over an image.

    Args:
        axes: Of the image.
        box: `(x_min, y_min, x_max, y_max)`, edges in pixels.
        color: Of the line.
        line: Matplotlib's style of the line.
        width: Of the line, in points.
        halo: Whether it lies on a white line, to be seen on a ground of its own color.
    """
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    left, top, right, bottom = box
    axes.add_patch(
        Rectangle(
            (left - 0.5, top - 0.5),
            right - left,
            bottom - top,
            fill=False,
            edgecolor=color,
            linewidth=width,
            linestyle=line,
            path_effects=[withStroke(linewidth=width + 1.6, foreground="white")] if halo else [],
        )
    )


def color_of(number: int) -> str:
    """A color for the class of this number; after ten they repeat, with other `MARKERS`."""
    return COLORS[number % len(COLORS)]


def marker_of(number: int) -> str:
    """A marker for the class of this number, which changes where `color_of` repeats."""
    return MARKERS[number // len(COLORS) % len(MARKERS)]
