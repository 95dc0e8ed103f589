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
from tfgraphreg.visualize.labels import Place, Text, around, write_apart
from tfgraphreg.visualize.masks import over, patch_of
from tfgraphreg.visualize.style import PAGE_WIDTH, color_of, draw_outline, figure, show_image

if TYPE_CHECKING:
    from tfgraphreg.export import Detection

# Of a picture, in inches.
_TALLEST, _LOWEST, _NARROWEST = 9.0, 1.0, 3.0
_TITLE, _LEGEND_ROW, _LEGEND_COLUMN = 0.3, 0.17, 1.75
# More pixels a side than a picture has dots show nothing more.
_MOST_PIXELS = 1350
_FONT, _PAD, _FRAME = 8.0, 1.5, 1.5
_LONGEST = 40
# A part of fewer pixels has its class named below the picture alone.
_LEAST_SHARE = 0.005
_MOST_NAMED = 24
# Where a text finds its place no more pixels a side are needed.
_COARSE = 300


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
            words = f"{_short(each.class_name)} {each.score:.0%}"
            texts.append(_text(axes, words, around(box), color))
        write_apart(made, texts, room=made.bbox)
    return made


def mask_picture(image: np.ndarray, mask: np.ndarray, names: Sequence[str]) -> Any:
    """An image in gray under the colors of its mask.

    The name of a class stands in every part of it that is not small, so that color is not the only
    sign; below are the shares of all pixels.

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
        texts = []
        for value in order:
            if value != BACKGROUND and share[value] >= _LEAST_SHARE:
                words, color = _short(names[value]), color_of(value - 1)
                for x, y in _middles(seen == value):
                    texts.append(_text(axes, words, [(x, y, 0, 0)], color))
        write_apart(made, texts, room=made.bbox)
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
    width, height = _size(image)
    with figure(width=width, height=height + above + below) as made:
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


def _text(axes: Any, words: str, places: list[Place], color: str) -> Text:
    return Text(axes, words, places, color, font=_FONT, pad=_PAD, frame=_FRAME)


def _middles(inside: np.ndarray) -> list[tuple[float, float]]:
    """Points (x, y) deep inside the parts of a region that are not small, the largest first."""
    from scipy import ndimage

    step = max(1, -(-max(inside.shape) // _COARSE))
    coarse = np.pad(inside[::step, ::step], 1)
    parts, count = ndimage.label(coarse)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    order = 1 + np.argsort(-sizes[1:], kind="stable")
    large = [int(part) for part in order if sizes[part] >= _LEAST_SHARE * coarse.size]
    depth = ndimage.distance_transform_edt(coarse)
    places = ndimage.maximum_position(depth, parts, large)
    return [(float((x - 1) * step), float((y - 1) * step)) for y, x in places]
