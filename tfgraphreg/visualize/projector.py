"""Files for the embedding projector of TensorBoard, with thumbnails. Needs no TensorBoard."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from tfgraphreg.errors import DataError
from tfgraphreg.search.measured import as_matrix
from tfgraphreg.storage import atomic_path, write_text

# The projector shows no sprite above 8192 x 8192 pixels.
_SPRITE_SIDE = 8192
_THUMBNAIL = 64


def write_projector(
    folder: os.PathLike[str] | str,
    embedding: np.ndarray,
    *,
    metadata: Mapping[str, Sequence[object] | np.ndarray] | None = None,
    images: np.ndarray | None = None,
    name: str = "embedding",
) -> pathlib.Path:
    """Writes what `tensorboard --logdir FOLDER` shows under Projector.

    The files are <name>.tsv, <name>_metadata.tsv, <name>_sprite.png and
    projector_config.pbtxt, which replaces an earlier one.

    Args:
        folder: A log folder.
        embedding: `[N, D]`.
        metadata: Columns of N values by name, such as class names and ids.
        images: `[N, height, width, 1 or 3]` uint8, shown as thumbnails of at most 64 pixels a
            side, and smaller where N of them would not fit into the 8192 x 8192 pixels that a
            browser takes.
        name: Of the tensor; also the start of the file names.

    Returns:
        The path of projector_config.pbtxt.

    Raises:
        DataError: If arrays do not fit together or there are more images than pixels.
    """
    folder = pathlib.Path(folder)
    embedding = as_matrix("embedding", embedding)
    lines = ["embeddings {", f'  tensor_name: "{name}"', f'  tensor_path: "{name}.tsv"']
    rows = ("\t".join(f"{value:.6g}" for value in row) for row in embedding)
    write_text(folder / f"{name}.tsv", "\n".join(rows) + "\n")
    if metadata:
        write_text(folder / f"{name}_metadata.tsv", _table(metadata, len(embedding)))
        lines.append(f'  metadata_path: "{name}_metadata.tsv"')
    if images is not None:
        sprite, (height, width) = sprite_image(images, items=len(embedding))
        _write_png(folder / f"{name}_sprite.png", sprite)
        lines += [
            "  sprite {",
            f'    image_path: "{name}_sprite.png"',
            f"    single_image_dim: {width}",
            f"    single_image_dim: {height}",
            "  }",
        ]
    path = folder / "projector_config.pbtxt"
    write_text(path, "\n".join([*lines, "}"]) + "\n")
    return path


def sprite_image(images: np.ndarray, *, items: int) -> tuple[np.ndarray, tuple[int, int]]:
    """All thumbnails in one square of rows, first image at the top left.

    Args:
        images: `[N, height, width, 1 or 3]` uint8.
        items: N, as a check.

    Returns:
        `[height, width, 1 or 3]` uint8, and the height and width of one thumbnail.
    """
    count, height, width, channels = np.shape(images)
    side = max(1, int(np.ceil(np.sqrt(count))))
    limit = min(_THUMBNAIL, _SPRITE_SIDE // side)
    if count != items or limit < 1:
        raise DataError(
            "A sprite needs one image for each item, and at most 67 million.",
            received=f"{count} images, {items} items",
        )
    step = max(1, -(-max(height, width) // limit))
    sheet = None
    for number in range(count):
        image = np.asarray(images[number])
        small = _shrink(image, step)
        if sheet is None:
            height, width = small.shape[:2]
            sheet = np.zeros((side * height, side * width, channels), np.uint8)
        top, left = number // side * height, number % side * width
        sheet[top : top + height, left : left + width] = small
    if sheet is None:
        sheet = np.zeros((1, 1, channels), np.uint8)
    return sheet, (height, width)


def _shrink(image: np.ndarray, step: int) -> np.ndarray:
    """Means of `step` x `step` pixels; what is left over at the edges is cut off."""
    if step == 1:
        return image
    height, width = max(1, image.shape[0] // step), max(1, image.shape[1] // step)
    cut = image[: height * step, : width * step]
    blocks = cut.reshape(height, cut.shape[0] // height, width, cut.shape[1] // width, -1)
    return np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)


def _table(columns: Mapping[str, Sequence[object] | np.ndarray], count: int) -> str:
    for column, values in columns.items():
        if len(values) != count:
            raise DataError(
                "Every column of `metadata` needs one value for each item.",
                received=f"{len(values)} values of {column!r} for {count} items",
            )
    rows = ["\t".join(_cell(value) for value in row) for row in zip(*columns.values())]
    # The projector takes a file of one column to have no header.
    head = ["\t".join(_cell(column) for column in columns)] if len(columns) > 1 else []
    return "\n".join(head + rows) + "\n"


def _cell(value: object) -> str:
    return " ".join(str(value).split())


def _write_png(path: pathlib.Path, image: np.ndarray) -> None:
    from PIL import Image

    with atomic_path(path) as part:
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(part, format="PNG")
