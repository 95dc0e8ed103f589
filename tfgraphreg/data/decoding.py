"""Reading one image file, with bounds on what it may do to us."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib

import numpy as np

from tfgraphreg.errors import first_line

# An image with more pixels is refused before it is decoded: a file of a few kilobytes can
# otherwise ask for all the memory there is.
MAX_PIXELS = 64_000_000

# What a suffix promises, in Pillow's names. MPO is how some cameras write JPEG.
FORMATS = {
    ".jpg": ("JPEG", "MPO"),
    ".jpeg": ("JPEG", "MPO"),
    ".png": ("PNG",),
    ".bmp": ("BMP",),
    ".gif": ("GIF",),
    ".webp": ("WEBP",),
    ".tif": ("TIFF",),
    ".tiff": ("TIFF",),
}
_GRAY = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"}


class BadImage(Exception):
    """An image that cannot be used; the message is the reason without the file's name."""


@dataclasses.dataclass(frozen=True)
class ImageFacts:
    """What a look at a whole image file tells: its size in pixels and whether it has color."""

    height: int
    width: int
    channels: int


def inspect_image(path: os.PathLike[str] | str, *, max_pixels: int = MAX_PIXELS) -> ImageFacts:
    """Decodes a file to see that it can be decoded, and forgets the pixels.

    Raises:
        BadImage: If the file is empty, no image, larger than `max_pixels`, truncated, or not of
            the kind that its suffix promises.
    """
    path = pathlib.Path(path)
    with _opened(path, max_pixels) as image:
        expected = FORMATS.get(path.suffix.lower(), ())
        if image.format not in expected:
            raise BadImage(f"is {image.format}, which its suffix {path.suffix} does not say")
        height, width = image.height, image.width
        channels = 1 if image.mode in _GRAY else 3
        _load(image)
    return ImageFacts(height, width, channels)


def decode_image(
    path: os.PathLike[str] | str,
    size: tuple[int, int],
    channels: int,
    *,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """The pixels of a file, resized with an antialiasing bilinear filter.

    The aspect ratio is not kept. Of an animation the first frame counts; transparency is
    dropped; 16-bit gray values keep their upper byte. The orientation tag of cameras is not
    applied, because a served model that gets the file's bytes does not apply it either.

    Args:
        path: The file.
        size: `(height, width)`.
        channels: 1 or 3.
        max_pixels: Refuse larger images.

    Returns:
        `[height, width, channels]` uint8.

    Raises:
        BadImage: If the file cannot be decoded.
    """
    with _opened(pathlib.Path(path), max_pixels) as image:
        height, width = size
        # A JPEG can be decoded at 1/2, 1/4 or 1/8: twice the wanted size leaves the filter
        # enough to average.
        image.draft("L" if channels == 1 else "RGB", (2 * width, 2 * height))
        _load(image)
        return resize_pillow(_eight_bit(image), size, channels)


def resize_pillow(image, size: tuple[int, int], channels: int) -> np.ndarray:
    """A Pillow image as `[height, width, channels]` uint8."""
    from PIL import Image

    image = image.convert("L" if channels == 1 else "RGB")
    if (image.height, image.width) != tuple(size):
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, np.uint8)
    return pixels[..., None] if channels == 1 else pixels


def resize_array(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`[N, H, W, C]` uint8 images resized to `[N, height, width, C]` as `decode_image` does."""
    from PIL import Image

    channels = images.shape[-1]
    if images.shape[1:3] == tuple(size):
        return images
    out = np.empty((len(images), *size, channels), np.uint8)
    for i, pixels in enumerate(images):
        image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
        out[i] = resize_pillow(image, size, channels)
    return out


@functools.cache
def _readable_formats() -> list[str]:
    """The formats of `FORMATS` that this build of Pillow has; it reads MPO as JPEG."""
    from PIL import Image

    Image.init()
    names = {name for names in FORMATS.values() for name in names}
    return sorted(names & set(Image.OPEN) - {"MPO"})


def _opened(path: pathlib.Path, max_pixels: int):
    from PIL import Image

    try:
        if path.stat().st_size == 0:
            raise BadImage("is empty")
        image = Image.open(path, formats=_readable_formats())
    except Image.DecompressionBombError as error:
        raise BadImage(f"has more than {max_pixels:,} pixels") from error
    except Image.UnidentifiedImageError as error:
        raise BadImage("is no image that can be read") from error
    except BadImage:
        raise
    except OSError as error:
        raise BadImage(f"cannot be read ({error.strerror or error})") from error
    except Exception as error:  # decoders of foreign bytes raise whatever they like
        raise BadImage(f"cannot be read ({error})") from error
    if image.height * image.width > max_pixels:
        text = f"has {image.width} x {image.height} pixels, more than {max_pixels:,}"
        image.close()
        raise BadImage(text)
    return image


def _load(image) -> None:
    try:
        image.load()
    except Exception as error:  # decoders of foreign bytes raise whatever they like
        raise BadImage(f"cannot be decoded ({first_line(error)[:120]})") from error


def _eight_bit(image):
    from PIL import Image

    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray((values >> 8).astype(np.uint8))
    return image
