"""From the body of a request to images: TensorFlow Serving's rows and columns, checked.

Whatever is wrong with a body is a `BadRequest`; nothing in it is believed.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
from typing import Any

import numpy as np

from tfgraphreg.data.decoding import BadImage, decode_image
from tfgraphreg.reading import parse_json
from tfgraphreg.serving.limits import Limits

PIXELS, FILES = "serving_default", "serving_encoded"
_INPUTS = {PIXELS: "image", FILES: "encoded_image"}


class BadRequest(Exception):
    """What is wrong with a request, in a sentence, and the HTTP status to say it with."""

    def __init__(self, message: str, status: int = 400):
        super().__init__(message)
        self.status = status


@dataclasses.dataclass(frozen=True)
class Question:
    """Images to ask about, `[B, height, width, channels]` uint8, and how to answer.

    `rows` says whether each image gets a row (TensorFlow Serving's `instances`) or each output a
    column (`inputs`).
    """

    images: np.ndarray
    rows: bool
    options: dict[str, Any]


def parse(
    body: bytes, shape: tuple[int, ...], limits: Limits, options: tuple[str, ...] = ()
) -> Question:
    """The images of a body.

    Args:
        body: JSON with `instances` (one image a row, or ``{"image": ...}``) or `inputs` (all
            images, or ``{"image": [...]}``), and perhaps `signature_name`. An image is nested
            lists of whole numbers from 0 to 255, or ``{"b64": FILE}``.
        shape: `(height, width, channels)` of the model's images.
        limits: Bounds of a request.
        options: Further keys that may stand in the body.

    Raises:
        BadRequest: If it is anything else.
    """
    try:
        found = parse_json(body.decode("utf-8"))
    except UnicodeDecodeError:
        raise BadRequest("The body is no UTF-8 text.") from None
    except ValueError as error:
        raise BadRequest(f"The body is no JSON ({' '.join(str(error).split())[:200]}).") from None
    if not isinstance(found, dict):
        raise BadRequest("The body must be a JSON object.")
    unknown = set(found) - {"instances", "inputs", "signature_name", *options}
    if unknown:
        raise BadRequest(f"The body has an unknown key: {min(unknown)[:80]!r}.")
    rows = "instances" in found
    if rows == ("inputs" in found):
        raise BadRequest("The body must have `instances` or `inputs`, one of them.")
    signature = found.get("signature_name")
    if signature is not None and signature not in tuple(_INPUTS):
        raise BadRequest(f"`signature_name` must be {PIXELS} or {FILES}.")
    values = _rows(found["instances"]) if rows else _columns(found["inputs"])
    if not isinstance(values, list) or not values:
        raise BadRequest("There must be a list of at least one image.")
    if len(values) > limits.batch:
        raise BadRequest(f"A request may have {limits.batch} images, this one has {len(values)}.")
    files = isinstance(values[0], dict)
    if signature is not None and files != (signature == FILES):
        raise BadRequest(
            f'{PIXELS} takes lists of numbers and {FILES} {{"b64": FILE}}; this is the other.'
        )
    images = _decoded(values, shape, limits) if files else _pixels(values, shape)
    return Question(images, rows, {name: found[name] for name in options if name in found})


def _named(value: Any) -> Any:
    """The value of ``{"image": value}``, or the value itself."""
    if isinstance(value, dict) and len(value) == 1:
        name, inside = next(iter(value.items()))
        if name in _INPUTS.values():
            return inside
    return value


def _rows(instances: Any) -> Any:
    return [_named(value) for value in instances] if isinstance(instances, list) else instances


def _columns(inputs: Any) -> Any:
    return _named(inputs)


def _pixels(values: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    try:
        images = np.array(values)
    except (ValueError, TypeError, OverflowError):  # Lists of several lengths.
        images = np.empty(0)
    if images.shape[1:] != shape or images.dtype.kind not in "iu":
        raise BadRequest(
            f"An image must be nested lists of whole numbers, {' x '.join(map(str, shape))}."
        )
    if images.min() < 0 or images.max() > 255:
        raise BadRequest("Pixels must be from 0 to 255.")
    return images.astype(np.uint8)


def _decoded(values: list[Any], shape: tuple[int, ...], limits: Limits) -> np.ndarray:
    images = np.empty((len(values), *shape), np.uint8)
    for place, value in enumerate(values):
        text = value.get("b64") if isinstance(value, dict) and len(value) == 1 else None
        if not isinstance(text, str):
            raise BadRequest(f'Image {place} must be {{"b64": FILE}}, as the first is.')
        try:
            content = base64.b64decode(text, validate=True)
            height, width, channels = shape
            images[place] = decode_image(
                content, (height, width), channels, max_pixels=limits.pixels
            )
        except (binascii.Error, ValueError):
            raise BadRequest(f"Image {place} is no base64.") from None
        except BadImage as error:
            raise BadRequest(f"Image {place} {' '.join(str(error).split())[:200]}.") from None
    return images
