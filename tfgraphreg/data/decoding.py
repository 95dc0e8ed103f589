"""The one reader of image files: training, prediction, search and evaluation see these pixels.

`tfgraphreg.data.decoding_graph` does the same in TensorFlow, for exported models.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import os
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from tfgraphreg.errors import first_line
from tfgraphreg.reading import NotOrdinaryError, open_ordinary

if TYPE_CHECKING:
    import PIL.Image

# An image with more pixels is refused before it is decoded: a file of a few kilobytes can
# otherwise ask for all the memory there is.
MAX_PIXELS = 64_000_000

# What a suffix promises, in Pillow's names. MPO is how some cameras write JPEG.
FORMATS = {
    ".jpg": ("JPEG", "MPO"),
    ".jpeg": ("JPEG", "MPO"),
    ".jpe": ("JPEG", "MPO"),
    ".jfif": ("JPEG", "MPO"),
    ".png": ("PNG",),
    ".bmp": ("BMP",),
    ".gif": ("GIF",),
    ".webp": ("WEBP",),
    ".tif": ("TIFF",),
    ".tiff": ("TIFF",),
    ".pbm": ("PPM",),
    ".pgm": ("PPM",),
    ".ppm": ("PPM",),
    ".pnm": ("PPM",),
}
_GRAY = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"}
# Where Pillow's mode "I" holds 16 bits. Elsewhere it holds 32, whose range nobody knows.
_SIXTEEN_BITS_AS_I = ("PNG", "PPM")


class BadImage(Exception):
    """An image that cannot be used; the message is the reason without the file's name."""


@dataclasses.dataclass(frozen=True)
class ImageFacts:
    """Facts about an image file: its size in pixels and whether it has color."""

    height: int
    width: int
    channels: int


def inspect_image(
    source: os.PathLike[str] | str | bytes, *, max_pixels: int = MAX_PIXELS
) -> ImageFacts:
    """Checks that a file, or its bytes, can be decoded; the pixels are discarded.

    Raises:
        BadImage: As `decode_image` does, or if the file is not of the format that its suffix
            promises. A file without a suffix may have any format.
    """
    suffix = "" if isinstance(source, bytes) else pathlib.Path(source).suffix
    with _opened(source, max_pixels) as image:
        if suffix and image.format not in FORMATS.get(suffix.lower(), ()):
            raise BadImage(f"is {image.format}, which its suffix {suffix} does not say")
        channels = 1 if image.mode in _GRAY else 3
        _levels(image)
        return ImageFacts(image.height, image.width, channels)


def decode_image(
    source: os.PathLike[str] | str | bytes,
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
        source: The file, or its bytes.
        size: `(height, width)`.
        channels: 1 or 3.
        max_pixels: Refuse larger images.

    Returns:
        `[height, width, channels]` uint8.

    Raises:
        BadImage: If the file is empty, no ordinary file, no image, larger than `max_pixels`,
            truncated, or holds 32-bit or floating-point numbers.
    """
    with _opened(source, max_pixels) as image:
        return resize_pillow(_levels(image), size, channels)


def decode_whole(
    source: os.PathLike[str] | str | bytes, *, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """The pixels of a file at its own size, otherwise as `decode_image` gives them.

    Args:
        source: The file, or its bytes.
        max_pixels: Refuse larger images.

    Returns:
        `[height, width, 1]` uint8 of a gray image, `[height, width, 3]` of one in color.

    Raises:
        BadImage: As `decode_image` does.
    """
    with _opened(source, max_pixels) as image:
        pixels = np.asarray(_levels(image), np.uint8)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def resize_whole(pixels: np.ndarray, size: tuple[int, int], channels: int) -> np.ndarray:
    """What `decode_image` gives of a file whose `decode_whole` is `pixels`."""
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    return resize_pillow(image, size, channels)


def is_image(path: os.PathLike[str] | str) -> bool:
    """Whether a file starts with the signature of a readable image format."""
    try:
        with _opened(path, MAX_PIXELS):
            return True
    except BadImage as error:
        return not isinstance(error, _NoImage)


def resize_pillow(image: PIL.Image.Image, size: tuple[int, int], channels: int) -> np.ndarray:
    """A Pillow image as `[height, width, channels]` uint8."""
    from PIL import Image

    image = image.convert("L" if channels == 1 else "RGB")
    # One direction at a time: which comes first decides the rounding, and Pillow's choice differs
    # from version to version.
    for shape in ((size[1], image.height), (size[1], size[0])):
        if shape != image.size:
            image = image.resize(shape, Image.Resampling.BILINEAR)
    pixels = np.asarray(image, np.uint8)
    return pixels[..., None] if channels == 1 else pixels


def resize_array(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`[N, H, W, C]` uint8 images resized to `[N, height, width, C]` as `decode_image` does."""
    channels = images.shape[-1]
    if images.shape[1:3] == tuple(size):
        return images
    out = np.empty((len(images), *size, channels), np.uint8)
    for i, pixels in enumerate(images):
        out[i] = resize_whole(pixels, size, channels)
    return out


@functools.cache
def _readable_formats() -> list[str]:
    """The formats of `FORMATS` that this build of Pillow has; it reads MPO as JPEG."""
    from PIL import Image

    Image.init()
    names = {name for names in FORMATS.values() for name in names}
    return sorted(names & set(Image.OPEN) - {"MPO"})


class _NoImage(BadImage):
    """No image in a known format at all."""


@contextlib.contextmanager
def _opened(source: os.PathLike[str] | str | bytes, max_pixels: int) -> Iterator:
    from PIL import Image

    with _file(source) as file:
        try:
            image = Image.open(file, formats=_readable_formats())
        except Image.DecompressionBombError as error:
            raise BadImage(f"has more than {max_pixels:,} pixels") from error
        except Image.UnidentifiedImageError as error:
            raise _NoImage("is no image that can be read") from error
        except Exception as error:  # decoders of foreign bytes raise whatever they like
            raise BadImage(f"cannot be read ({first_line(error)[:120]})") from error
        if image.height * image.width > max_pixels:
            raise BadImage(f"has {image.width} x {image.height} pixels, more than {max_pixels:,}")
        yield image


@contextlib.contextmanager
def _file(source: os.PathLike[str] | str | bytes) -> Iterator[BinaryIO]:
    if isinstance(source, bytes):
        if not source:
            raise _NoImage("is empty")
        yield io.BytesIO(source)
        return
    try:
        file = open_ordinary(source)
    except NotOrdinaryError as error:
        raise _NoImage("is no ordinary file") from error
    except (OSError, ValueError) as error:
        raise _NoImage(f"cannot be read ({getattr(error, 'strerror', None) or error})") from error
    with file:
        if os.fstat(file.fileno()).st_size == 0:
            raise _NoImage("is empty")
        yield file


def _levels(image):
    """The decoded image in 8 bits, gray (`L`) or color (`RGB`)."""
    try:
        image.load()
        if image.mode == "F":
            raise BadImage("holds floating-point numbers; save it with 8 or 16 bits a channel")
        if image.mode == "I" and image.format not in _SIXTEEN_BITS_AS_I:
            raise BadImage("holds 32-bit numbers; save it with 8 or 16 bits a channel")
        if image.mode == "I" or image.mode.startswith("I;16"):
            return _upper_bytes(image)
        if image.mode == "CMYK":
            return _ink_to_light(image)
        return image.convert("L" if image.mode in _GRAY else "RGB")
    except BadImage:
        raise
    except Exception as error:  # decoders of foreign bytes raise whatever they like
        raise BadImage(f"cannot be decoded ({first_line(error)[:120]})") from error


def _upper_bytes(image):
    from PIL import Image

    values = np.asarray(image).astype(np.int64)
    if 0 < values.max() < 256:
        raise BadImage(
            f"has 16 bits and no value above {values.max()}, so it would be black; "
            "save it with 8 bits"
        )
    return Image.fromarray((values >> 8).astype(np.uint8))


def _ink_to_light(image):
    """CMYK to RGB with the rounding of `tf.io.decode_jpeg`, from which Pillow's differs by one."""
    from PIL import Image

    ink = np.asarray(image).astype(np.int32)
    if image.format == "JPEG" and "adobe" not in image.info:
        # Pillow takes it for granted that a JPEG holds inverted values; only Adobe's do.
        ink = 255 - ink
    light = 255 - ink
    return Image.fromarray((light[..., :3] * light[..., 3:] // 255).astype(np.uint8))
