"""Draws a scene: clutter, and items at random places in front of it and of each other.

Shapes: S the side of a scene in pixels.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image, ImageDraw

from tfgraphreg.data.local import Objects

_MOST_ITEMS = 6
# Sides of an item as shares of S.
_SIDES = (0.3, 0.6)
# An item of which less than this is visible would be no object that anybody could name.
_VISIBLE = 0.75
_PLACES = 8
_CLUTTER = (4, 10)
_FRAGMENT = 0.12
_NOISE = 12


@dataclasses.dataclass(frozen=True)
class Items:
    """What scenes are made of.

    Attributes:
        images: `[K, h, w]` uint8.
        shapes: `[K, h, w]` bool: the pixels that belong to the item.
        classes: `[K]` int64.
    """

    images: np.ndarray
    shapes: np.ndarray
    classes: np.ndarray


def draw_scene(
    items: Items, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, Objects]:
    """A scene of one to six items.

    Later items are in front of earlier ones. A place where one would leave less than three quarters
    of another visible is not taken; an item for which none of eight random places is free is left
    out, so a scene may have fewer items than were drawn, but never none.

    Args:
        items: To choose from.
        size: S.
        rng: Decides everything.

    Returns:
        The image `[S, S, 3]` uint8; the mask `[S, S]` uint8, 0 or 1 + class number; and the
        objects, whose boxes hold exactly what is visible of each.
    """
    image = _background(items, size, rng)
    # 0 is the background, i the item that was placed as number i.
    owner = np.zeros((size, size), np.uint8)
    classes: list[int] = []
    whole = [0]
    for _ in range(rng.integers(1, _MOST_ITEMS + 1)):
        chosen = int(rng.integers(len(items.classes)))
        pixels, shape = _scaled(items, chosen, size, rng)
        area = int(shape.sum())
        place = _free_place(owner, shape, whole, rng) if area else None
        if place is None:
            continue
        image[place][shape] = _tinted(pixels[shape], rng)
        owner[place][shape] = len(whole)
        whole.append(area)
        classes.append(int(items.classes[chosen]))
    boxes = [_box(owner == number) for number in range(1, len(whole))]
    values = np.array([0, *(1 + c for c in classes)], np.uint8)
    return image, values[owner], Objects(np.array(boxes, np.float32), np.array(classes, np.int64))


def _scaled(
    items: Items, chosen: int, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The pixels and the shape of an item at a random scale, without margins."""
    side = round(rng.uniform(*_SIDES) * size)
    height, width = items.images.shape[1:]
    longest = max(height, width)
    target = (max(1, side * width // longest), max(1, side * height // longest))
    pixels = _resized(items.images[chosen], target)
    shape = _resized(items.shapes[chosen].astype(np.uint8) * 255, target) > 127
    rows, columns = np.flatnonzero(shape.any(1)), np.flatnonzero(shape.any(0))
    if not len(rows):
        return pixels, shape
    inside = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return pixels[inside], shape[inside]


def _resized(pixels: np.ndarray, target: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize(target, Image.Resampling.BILINEAR))


def _free_place(
    owner: np.ndarray, shape: np.ndarray, whole: list[int], rng: np.random.Generator
) -> tuple[slice, slice] | None:
    """Where an item leaves enough of all others visible, or None."""
    visible = np.bincount(owner.ravel(), minlength=len(whole))
    least = _VISIBLE * np.array(whole)
    for _ in range(_PLACES):
        top = int(rng.integers(owner.shape[0] - shape.shape[0] + 1))
        left = int(rng.integers(owner.shape[1] - shape.shape[1] + 1))
        place = np.s_[top : top + shape.shape[0], left : left + shape.shape[1]]
        covered = np.bincount(owner[place][shape], minlength=len(whole))
        if (visible - covered >= least)[1:].all():
            return place
    return None


def _tinted(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`[P, 3]` colors of `[P]` gray values: the same at random for the whole item."""
    color = rng.integers(140, 256, 3)
    return (values[:, None].astype(np.uint16) * color // 255).astype(np.uint8)


def _box(visible: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def _background(items: Items, size: int, rng: np.random.Generator) -> np.ndarray:
    """A gradient with noise, random figures and small fragments of items: nothing to be named."""
    ends = rng.integers(30, 200, (2, 3)).astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    line = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    share = 0.5 + (np.cos(angle) * line[:, None] + np.sin(angle) * line[None]) / np.sqrt(2)
    canvas = ends[0] + share[..., None] * (ends[1] - ends[0])
    picture = Image.fromarray(canvas.astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(rng.integers(*_CLUTTER)):
        _figure(draw, size, rng)
    image = np.asarray(picture).astype(np.int16)
    for _ in range(rng.integers(*_CLUTTER)):
        _fragment(image, items, size, rng)
    image += rng.integers(-_NOISE, _NOISE + 1, image.shape, np.int16)
    return np.clip(image, 0, 255).astype(np.uint8)


def _figure(draw: ImageDraw.ImageDraw, size: int, rng: np.random.Generator) -> None:
    """A filled ellipse or rectangle, or a line."""
    color = tuple(rng.integers(20, 230, 3).tolist())
    x, y = rng.uniform(0, size, 2)
    width, height = rng.uniform(0.05, 0.3, 2) * size
    form = rng.integers(3)
    if form == 0:
        draw.line((x, y, x + 2 * width - 0.3 * size, y + 2 * height - 0.3 * size), color, 2)
    elif form == 1:
        draw.ellipse((x, y, x + width, y + height), color)
    else:
        draw.rectangle((x, y, x + width, y + height), color)


def _fragment(image: np.ndarray, items: Items, size: int, rng: np.random.Generator) -> None:
    """A small square out of an item: texture that alone says nothing."""
    pixels = items.images[rng.integers(len(items.images))]
    # Half of an item's side at most, or a fragment of a small one could be named.
    side = max(2, min(int(_FRAGMENT * size), min(pixels.shape) // 2))
    y, x = (int(rng.integers(n - side + 1)) for n in pixels.shape)
    top, left = (int(v) for v in rng.integers(0, size - side + 1, 2))
    piece = pixels[y : y + side, x : x + side, None]
    image[top : top + side, left : left + side] = piece * (rng.integers(140, 256, 3) / 255)
