"""TFLite: converted by TensorFlow, asked by LiteRT, which needs no TensorFlow."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import numpy as np

from tfgraphreg.compat import load_optional, quietly, tf
from tfgraphreg.errors import ModelError, first_line

if TYPE_CHECKING:
    from tfgraphreg.export import Predictor
    from tfgraphreg.formats.catalog import Answer

_MISSING = re.compile(r"'tf\.(\w+)' op is neither")
# LiteRT keeps the memory of the largest batch that it has seen.
_BATCH = 32


def convert(predictor: Predictor, *, weights: str) -> bytes:
    """See `tfgraphreg.formats.convert`; int8 is dynamic: weights alone are rounded."""
    function, owner = predictor.network
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function()], owner
    )
    if weights != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if weights == "float16":
        converter.target_spec.supported_types = [tf.float16]
    content, failed = None, None
    with quietly():
        try:
            content = converter.convert()
        # Of the converter's own, and RuntimeError, ValueError and others from below it.
        except Exception as error:
            failed = error
    if failed is not None or not content:
        raise _refused(failed or RuntimeError("it gave nothing")) from failed
    return content


def _refused(error: Exception) -> ModelError:
    missing = sorted(set(_MISSING.findall(str(error))))
    why = f"it has no {', '.join(missing)}" if missing else first_line(error)
    return ModelError(
        f"This network cannot be converted to TFLite ({why}).",
        cure="Use the SavedModel, try `export_format=onnx`, or train another backbone.",
    )


def load(content: bytes) -> Answer:
    """See `tfgraphreg.formats.load`."""
    interpreter = load_optional("ai_edge_litert.interpreter", "tflite", "A TFLite model")
    with quietly():
        try:
            model = interpreter.Interpreter(model_content=content, num_threads=os.cpu_count())
            ask = model.get_signature_runner("serving_default")
        except (ValueError, RuntimeError, KeyError) as error:
            raise ModelError(
                f"This is no TFLite model that can be loaded ({first_line(error)}).",
                cure="Convert it again.",
            ) from error

    def answer(images: np.ndarray) -> dict[str, np.ndarray]:
        starts = range(0, len(images), _BATCH)
        parts = [ask(image=np.ascontiguousarray(images[s : s + _BATCH])) for s in starts]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return answer
