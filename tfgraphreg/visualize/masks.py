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


def over(
    image: np.ndarray,
    mask: np.ndarray,
    *,
    striped: np.ndarray | None = None,
    enlarged: int = _ENLARGED,
) -> np.ndarray:
    """`[E height, E width, 3]` uint8: a mask in the colors of its classes over its image.

    Args:
        image: `[height, width, 1 or 3]` uint8.
        mask: `[height, width]` uint8.
        striped: `[height, width]` bool: pixels that get black and white stripes.
        enlarged: E, the side of a pixel in the result.
    """
    gray = image.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    picture = gray.copy()
    for value in np.unique(mask):
        if value != BACKGROUND:
            inside = mask == value
            picture[inside] = (1 - _OPACITY) * gray[inside] + _OPACITY * 255 * _rgb(int(value))
    large = picture.repeat(enlarged, 0).repeat(enlarged, 1)
    if striped is not None:
        marked = striped.repeat(enlarged, 0).repeat(enlarged, 1)
        y, x = np.indices(marked.shape)
        phase = (x + y) % _STRIPE
        large[marked & (phase < _STRIPE // 3)] = 0
        large[marked & (phase >= _STRIPE * 2 // 3)] = 255
    return large.astype(np.uint8)


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
