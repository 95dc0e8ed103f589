"""ONNX: converted by tf2onnx, asked by ONNX Runtime, which needs no TensorFlow."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

import numpy as np

from tfgraphreg.compat import load_optional, quietly, tf
from tfgraphreg.errors import ModelError, first_line

if TYPE_CHECKING:
    from tfgraphreg.export import Predictor
    from tfgraphreg.formats.catalog import Answer

# The first with layer normalization as one operation.
_OPSET = 17
_BATCH = 256
_MISSING = re.compile(r"No Op registered for (\w+)")


def convert(predictor: Predictor, *, weights: str) -> bytes:
    """See `tfgraphreg.formats.convert`."""
    converter = load_optional("tf2onnx", "onnx", "`export_format=onnx`")
    onnx = load_optional("onnx", "onnx", "`export_format=onnx`")
    network, _ = predictor.network
    pixels = tf.TensorSpec([None, *predictor.image_shape], tf.uint8, name="image")
    function = tf.function(lambda image: network(image), input_signature=[pixels])
    content, failed = b"", None
    with quietly():
        logger = logging.getLogger("tf2onnx")
        level = logger.level
        logger.setLevel(logging.CRITICAL)
        try:
            made, _ = converter.convert.from_function(
                function, input_signature=[pixels], opset=_OPSET
            )
            # What tf2onnx does not know, it writes down as an operation that nobody has.
            onnx.checker.check_model(made)
            content = made.SerializeToString()
        # tf2onnx and protobuf raise of every class.
        except Exception as error:
            failed = error
        finally:
            logger.setLevel(level)
    if failed is not None:
        missing = _MISSING.search(str(failed))
        why = f"it has no {missing[1]}" if missing else first_line(failed)
        raise ModelError(
            f"This network cannot be converted to ONNX ({why}).",
            cure="Use the SavedModel, try `export_format=tflite`, or train another backbone.",
        ) from failed
    return content


def load(content: bytes) -> Answer:
    """See `tfgraphreg.formats.load`."""
    runtime = load_optional("onnxruntime", "onnx", "An ONNX model")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    # ONNX Runtime has an error class for each status, of no common base but Exception.
    except Exception as error:
        raise ModelError(
            f"This is no ONNX model that can be loaded ({first_line(error)}).",
            cure="Convert it again.",
        ) from error
    names = [output.name for output in session.get_outputs()]

    def answer(images: np.ndarray) -> dict[str, np.ndarray]:
        starts = range(0, len(images), _BATCH)
        parts = [session.run(None, {"image": images[s : s + _BATCH]}) for s in starts]
        return {name: np.concatenate(columns) for name, columns in zip(names, zip(*parts))}

    return answer
