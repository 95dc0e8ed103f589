"""Figures of masks over images.

Images are `[N, height, width, 1 or 3]` uint8, masks `[N, height, width]` uint8: 0 background,
1 + class number, 255 ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfgraphreg.data.local import BACKGROUND, IGNORED
from tfgraphreg.visualize.style import PAGE_WIDTH, color_of, figure, show_image

_PANELS = ("image", "true", "predicted")
_ACROSS = 2
_SEED_PANELS = ("image", "given pixels", "completed", "true")
# More given pixels than this are drawn as areas.
_MOST_DOTS = 400
# Of a mask over its image.
_OPACITY = 0.75
# Sides of a pixel's stripes, in pixels of the picture.
_ENLARGED, _STRIPE = 4, 6


def mask_sheet(
    images: np.ndarray,
    masks: np.ndarray,
    predictions: np.ndarray,
    names: Sequence[str],
) -> Any:
    """For each image the image, its true mask and the predicted one; two images in a row.

    Pixels of which the prediction is wrong have black and white stripes, so that color is not the
    only sign; above each prediction stands the share of right pixels. Ignored pixels are gray in
    the true mask and count neither way.

    Args:
        images: N images, at most about 12 for a page.
        masks: Their true masks.
        predictions: What was predicted, without 255.
        names: K names of mask values, the background first.
    """
    rows = max(1, -(-len(images) // _ACROSS))
    columns = _ACROSS * len(_PANELS)
    cell = PAGE_WIDTH / columns
    with figure(height=rows * (cell + 0.22) + 0.9) as made:
        cells = made.subplots(rows, columns, squeeze=False)
        made.suptitle("Masks of test images; stripes: wrongly named pixels", fontsize=10)
        for axes in cells.ravel():
            axes.axis("off")
        for place, (image, true, found) in enumerate(zip(images, masks, predictions)):
            first = place % _ACROSS * len(_PANELS)
            panels = cells[place // _ACROSS, first : first + len(_PANELS)]
            counted = true != IGNORED
            wrong = counted & (true != found)
            share = 1 - wrong.sum() / max(counted.sum(), 1)
            pictures = (image, over(image, true), over(image, found, striped=wrong))
            for axes, picture, title in zip(
                panels, pictures, (*_PANELS[:2], f"{share:.1%} right"), strict=True
            ):
                show_image(axes, picture)
                axes.set_title(title, fontsize=7, pad=2)
        _legend(made, np.unique([*np.unique(masks), *np.unique(predictions)]), names)
    return made


def seed_sheet(
    images: np.ndarray,
    seeds: np.ndarray,
    completed: np.ndarray,
    masks: np.ndarray,
    names: Sequence[str],
) -> Any:
    """For each image a row: the image, the pixels that were given, their completion, the truth.

    Up to 400 given pixels are dots, white for the background; more are areas, and what was not
    given is then gray. Pixels that were completed wrongly have black and white stripes; above
    stands the share of right ones among those that were not given. Pixels of unknown truth are
    gray there and count neither way.

    Args:
        images: N images, at most about 6 for a page.
        seeds: `[N, height, width]` uint8, 255 where not given.
        completed: Masks of the same size, 255 where a pixel has no label.
        masks: The true masks.
        names: K names of mask values, the background first.
    """
    cell = PAGE_WIDTH / len(_SEED_PANELS)
    with figure(height=max(1, len(images)) * (cell + 0.22) + 0.9) as made:
        cells = made.subplots(max(1, len(images)), len(_SEED_PANELS), squeeze=False)
        made.suptitle("Masks completed from given pixels; stripes: wrong pixels", fontsize=10)
        for axes in cells.ravel():
            axes.axis("off")
        for panels, image, given, found, true in zip(cells, images, seeds, completed, masks):
            counted = (true != IGNORED) & (given == IGNORED)
            wrong = counted & (true != found)
            share = 1 - wrong.sum() / max(counted.sum(), 1)
            titles = [*_SEED_PANELS]
            titles[1] = f"{(given != IGNORED).sum():,} {titles[1]}"
            if counted.any():
                titles[2] = f"{titles[2]}, {share:.1%} right"
            few = (given != IGNORED).sum() <= _MOST_DOTS
            shown = np.full_like(given, BACKGROUND) if few else given
            pictures = (image, over(image, shown), over(image, found, striped=wrong))
            for axes, picture, title in zip(panels, (*pictures, over(image, true)), titles):
                show_image(axes, picture)
                axes.set_title(title, fontsize=7, pad=2)
            if few:
                _dots(panels[1], given)
        values = np.unique([*np.unique(masks), *np.unique(completed), *np.unique(seeds)])
        _legend(made, values, names)
    return made


def _dots(axes: Any, given: np.ndarray) -> None:
    """A dot in the middle of each given pixel of an enlarged image."""
    rows, columns = np.nonzero(given != IGNORED)
    colors = ["white" if v == BACKGROUND else tuple(_rgb(int(v))) for v in given[rows, columns]]
    x, y = (_ENLARGED * (place + 0.5) - 0.5 for place in (columns, rows))
    axes.scatter(x, y, s=14, c=colors, edgecolors="black", linewidths=0.7)


def over(
    image: np.ndarray,
    mask: np.ndarray,
    *,
    striped: np.ndarray | None = None,
    enlarged: int = _ENLARGED,
) -> np.ndarray:
    """`[E height, E width, 3]` uint8: a mask in the colors of its classes over its image.

    A black line runs along the inside of every area: no color stands out from every image.

    Args:
        image: `[height, width, 1 or 3]` uint8.
        mask: `[height, width]` uint8.
        striped: `[height, width]` bool: pixels that get black and white stripes.
        enlarged: E, the side of a pixel in the result.
    """
    from skimage.segmentation import find_boundaries

    gray = image.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    picture = gray.copy()
    for value in np.unique(mask):
        if value != BACKGROUND:
            inside = mask == value
            picture[inside] = (1 - _OPACITY) * gray[inside] + _OPACITY * 255 * _rgb(int(value))
    large = _enlarged(picture, enlarged)
    outlines = find_boundaries(_enlarged(mask, enlarged), mode="inner", background=BACKGROUND)
    large[outlines] = 0
    if striped is not None:
        marked = _enlarged(striped, enlarged)
        y, x = np.indices(marked.shape)
        phase = (x + y) % _STRIPE
        large[marked & (phase < _STRIPE // 3)] = 0
        large[marked & (phase >= _STRIPE * 2 // 3)] = 255
    return large.astype(np.uint8)


def _enlarged(pixels: np.ndarray, times: int) -> np.ndarray:
    return pixels.repeat(times, 0).repeat(times, 1)


def patch_of(value: int, label: str) -> Any:
    """What a legend shows of a mask value."""
    from matplotlib.patches import Patch

    color = "white" if value == BACKGROUND else tuple(_rgb(value))
    return Patch(facecolor=color, edgecolor="#808080", linewidth=0.6, label=label)


def _rgb(value: int) -> np.ndarray:
    from matplotlib.colors import to_rgb

    return np.array(to_rgb("#808080" if value == IGNORED else color_of(value - 1)))


def _legend(made: Any, values: np.ndarray, names: Sequence[str]) -> None:
    from matplotlib.patches import Patch

    shown = [int(value) for value in values if value not in (BACKGROUND, IGNORED)]
    handles = [patch_of(value, names[value]) for value in shown]
    handles.append(
        Patch(facecolor="white", edgecolor="black", hatch="//////", label="wrong (any class)")
    )
    made.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=7, frameon=False)
