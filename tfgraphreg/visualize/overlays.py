"""A picture of one image with what a model finds in it: boxes and their classes, or a mask.

Images are `[height, width, 1 or 3]` uint8 of any size. Every function gives a matplotlib Figure, at
most a page wide; a large image is reduced for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfgraphreg.data.decoding import resize_whole
from tfgraphreg.data.local import BACKGROUND
from tfgraphreg.visualize.masks import over, patch_of
from tfgraphreg.visualize.style import PAGE_WIDTH, color_of, draw_outline, figure, show_image

if TYPE_CHECKING:
    from tfgraphreg.export import Detection

# Of a picture, in inches.
_TALLEST, _LOWEST, _NARROWEST = 9.0, 1.0, 3.0
_TITLE, _LEGEND_ROW, _LEGEND_COLUMN = 0.3, 0.17, 1.75
# More pixels a side than a picture has dots show nothing more.
_MOST_PIXELS = 1350
_FONT, _PAD = 8.0, 5.0
_LONGEST = 40
# A class of fewer pixels is named below the picture alone.
_LEAST_SHARE = 0.01
_MOST_NAMED = 24
# Where a text finds its place no more pixels a side are needed.
_COARSE = 300

# (x, y) in pixels of the image shown; which way the text stands from there: -1, 0, 1 to the left
# and up, around it, to the right and down.
_Place = tuple[float, float, int, int]


def box_picture(
    image: np.ndarray, found: Sequence[Detection], class_names: Sequence[str], *, title: str
) -> Any:
    """An image with boxes; each has the color of its class, and its class and score in words.

    Args:
        image: The image.
        found: What was found, in pixels of the image.
        class_names: C names, which decide the colors.
        title: Above the picture.
    """
    small = _reduced(image)
    scale = np.array([small.shape[1] / image.shape[1], small.shape[0] / image.shape[0]] * 2)
    with _canvas(small, above=_TITLE) as (made, axes):
        made.suptitle(title, fontsize=9)
        show_image(axes, small)
        texts = []
        for each in found:
            box = np.array(each.box) * scale
            color = color_of(class_names.index(each.class_name))
            draw_outline(axes, box, color, halo=True)
            texts.append((f"{_short(each.class_name)} {each.score:.0%}", _around(box), color))
        _write(made, axes, texts)
    return made


def mask_picture(image: np.ndarray, mask: np.ndarray, names: Sequence[str]) -> Any:
    """An image in gray under the colors of its mask.

    The name of a class stands in the largest part that it has, so that color is not the only sign;
    below are the shares of all pixels.

    Args:
        image: The image.
        mask: `[height, width]` uint8, without 255.
        names: K names of mask values, the background first.
    """
    from matplotlib.patches import Patch

    small = _reduced(image)
    rows, columns = (
        ((np.arange(n) + 0.5) * whole / n).astype(np.int64)
        for n, whole in zip(small.shape, mask.shape)
    )
    seen = mask[rows][:, columns]
    counts = np.bincount(mask.ravel(), minlength=len(names))
    share = counts / mask.size
    order = [int(value) for value in np.argsort(-counts, kind="stable") if counts[value]]
    handles = [
        patch_of(value, f"{_short(names[value])} {share[value]:.1%}")
        for value in order[:_MOST_NAMED]
    ]
    if len(order) > _MOST_NAMED:
        more = f"and {len(order) - _MOST_NAMED} more"
        handles.append(Patch(facecolor="none", edgecolor="none", label=more))
    across = max(1, int(_size(small)[0] / _LEGEND_COLUMN))
    below = 0.1 + _LEGEND_ROW * -(-len(handles) // across)
    with _canvas(small, below=below) as (made, axes):
        show_image(axes, over(small, seen, enlarged=1))
        made.legend(
            handles=handles, loc="outside lower center", ncols=across, fontsize=7, frameon=False
        )
        named = [v for v in order if v != BACKGROUND and share[v] >= _LEAST_SHARE]
        _write(
            made,
            axes,
            [
                (_short(names[v]), [(*_middle(seen == v), 0, 0)], color_of(v - 1))
                for v in named
                if (seen == v).any()
            ],
        )
    return made


def _size(image: np.ndarray) -> tuple[float, float]:
    """Width and height of the picture of an image, in inches."""
    height, width = image.shape[:2]
    scale = min(PAGE_WIDTH / width, _TALLEST / height)
    return max(width * scale, _NARROWEST), max(height * scale, _LOWEST)


@contextlib.contextmanager
def _canvas(
    image: np.ndarray, *, above: float = 0.0, below: float = 0.0
) -> Iterator[tuple[Any, Any]]:
    """A Figure with one pair of axes for an image, and room for text above and below."""
    import matplotlib

    width, height = _size(image)
    with (
        figure(width=width, height=height + above + below) as made,
        # A class may be called $x$.
        matplotlib.rc_context({"text.parse_math": False}),
    ):
        yield made, made.subplots()


def _reduced(image: np.ndarray) -> np.ndarray:
    most = max(image.shape[:2])
    if most <= _MOST_PIXELS:
        return image
    height, width = (max(1, n * _MOST_PIXELS // most) for n in image.shape[:2])
    return resize_whole(image, (height, width), image.shape[2])


def _short(name: str) -> str:
    name = " ".join(name.split())
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _around(box: np.ndarray) -> list[_Place]:
    """Where the text of a box may stand, the best first: at a corner, outside or inside."""
    left, top, right, bottom = box - 0.5
    return [
        (left, top, 1, -1),
        (left, top, 1, 1),
        (left, bottom, 1, 1),
        (left, bottom, 1, -1),
        (right, top, -1, -1),
        (right, top, -1, 1),
        (right, bottom, -1, 1),
        (right, bottom, -1, -1),
    ]


def _middle(inside: np.ndarray) -> tuple[float, float]:
    """X and y of the point of the largest part of a region that is farthest from its outline."""
    from scipy import ndimage

    step = max(1, -(-max(inside.shape) // _COARSE))
    coarse = inside[::step, ::step]
    if not coarse.any():
        step, coarse = 1, inside
    parts, _ = ndimage.label(np.pad(coarse, 1))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    depth = ndimage.distance_transform_edt(parts == sizes.argmax())
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return float((x - 1) * step), float((y - 1) * step)


def _write(made: Any, axes: Any, texts: Sequence[tuple[str, list[_Place], str]]) -> None:
    """Writes texts, each at the first of its places that lies in the picture and on no other text.

    A text that fits nowhere goes where it covers the least of others.
    """
    from matplotlib.transforms import Bbox

    made.draw_without_rendering()
    # The layout must not give way to the texts, whose places depend on it.
    made.set_layout_engine("none")
    renderer = made.canvas.get_renderer()
    to_dots, to_pixels = axes.transData, axes.transData.inverted()
    taken = [each.get_window_extent(renderer) for each in (*made.texts, *made.legends)]
    for words, places, color in texts:
        text = axes.text(
            0,
            0,
            words,
            fontsize=_FONT,
            ha="left",
            va="bottom",
            color="black",
            bbox={"facecolor": "white", "edgecolor": color, "pad": 1.5, "linewidth": 1.5},
        )
        size = text.get_window_extent(renderer).size + 2 * _PAD
        best, least = None, np.inf
        for corner in _corners(places, size, to_dots):
            box = Bbox.from_bounds(*corner, *size)
            inside = made.bbox.containsx(box.x0) and made.bbox.containsx(box.x1)
            if not (inside and made.bbox.containsy(box.y0) and made.bbox.containsy(box.y1)):
                continue
            covered = sum(_shared(box, other) for other in taken)
            if covered < least:
                best, least = box, covered
            if not covered:
                break
        if best is None:
            # Longer than the picture is wide: from its left edge on.
            x, y, *_ = places[0]
            best = Bbox.from_bounds(0.0, to_dots.transform((x, y))[1], *size)
        text.set_position(to_pixels.transform((best.x0 + _PAD, best.y0 + _PAD)))
        taken.append(best)


def _corners(places: list[_Place], size: np.ndarray, to_dots: Any) -> Iterator[np.ndarray]:
    """Lower left corners of a text of this size: at its places, then a line further, and so on."""
    for lines in range(5):
        for x, y, right, down in places:
            at = to_dots.transform((x, y))
            # On the screen y grows upward.
            corner = at + (np.array([right, -down]) - 1) / 2 * size
            for way in (1, -1) if lines else (1,):
                yield corner + np.array([0, way * lines * size[1]])


def _shared(one: Any, other: Any) -> float:
    """The area that two boxes have in common."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return max(0.0, width) * max(0.0, height)
