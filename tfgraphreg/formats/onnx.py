"""ONNX: converted by tf2onnx, asked by ONNX Runtime, which needs no TensorFlow."""

from __future__ import annotations

import contextlib
import logging
import re
import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from tfgraphreg.compat import load_optional, quietly, tf
from tfgraphreg.errors import ModelError, first_line
from tfgraphreg.formats.onnx_graph import HANDLERS, frozen

if TYPE_CHECKING:
    from tfgraphreg.export import Predictor
    from tfgraphreg.formats.catalog import Answer

# The first with layer normalization as one operation.
_OPSET = 17
_BATCH = 256
_IMAGE = "image"
_MISSING = re.compile(r"No Op registered for (\w+)")


def convert(predictor: Predictor, *, weights: str) -> bytes:
    """See `tfgraphreg.formats.convert`."""
    converter = load_optional("tf2onnx", "onnx", "`export_format=onnx`")
    onnx = load_optional("onnx", "onnx", "`export_format=onnx`")
    function = _function(predictor)
    content, failed = b"", None
    with quietly(), _silent("tf2onnx"):
        try:
            made = _converted(converter, function)
            # What tf2onnx does not know, it writes down as an operation that nobody has.
            onnx.checker.check_model(made)
            content = made.SerializeToString()
        # TensorFlow, tf2onnx and protobuf raise of every class.
        except Exception as error:
            failed = error
    if failed is not None:
        missing = _MISSING.search(str(failed))
        why = f"it has no {missing[1]}" if missing else first_line(failed)
        raise ModelError(
            f"This network cannot be converted to ONNX ({why}).",
            cure="Use the SavedModel, try `export_format=tflite`, or train another backbone.",
        ) from failed
    return content


def _function(predictor: Predictor) -> Any:
    """From `image` to answers by name, of which tf2onnx takes the names of inputs and outputs."""
    network, _ = predictor.network
    pixels = tf.TensorSpec([None, *predictor.image_shape], tf.uint8, name=_IMAGE)
    function = tf.function(lambda image: network(image), input_signature=[pixels])
    return function.get_concrete_function()


def _converted(converter: types.ModuleType, function: Any) -> Any:
    """The ONNX model of a concrete function whose one input is the image."""
    answers = {tensor.name: name for name, tensor in function.structured_outputs.items()}
    made, _ = converter.convert.from_graph_def(
        frozen(function),
        input_names=[f"{_IMAGE}:0"],
        output_names=list(answers),
        tensors_to_rename={f"{_IMAGE}:0": _IMAGE, **answers},
        custom_op_handlers=dict(HANDLERS),
        opset=_OPSET,
    )
    return made


@contextlib.contextmanager
def _silent(name: str) -> Iterator[None]:
    """Keeps a logger quiet in the block."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


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
        parts = [session.run(None, {_IMAGE: images[s : s + _BATCH]}) for s in starts]
        return {name: np.concatenate(columns) for name, columns in zip(names, zip(*parts))}

    return answer
