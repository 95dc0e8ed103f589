"""The formats by name: their files, the packages that they need, who converts and who asks them."""

from __future__ import annotations

import dataclasses
import importlib
import types
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfgraphreg.compat import check_optional
from tfgraphreg.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from tfgraphreg.export import Predictor

SAVED_MODEL = "saved_model"

Answer = Callable[[np.ndarray], dict[str, np.ndarray]]
"""Gives `probabilities` `[N, C]` and `embedding` `[N, D]` of uint8 images."""


@dataclasses.dataclass(frozen=True)
class Format:
    """A form of an exported model beside the SavedModel.

    Attributes:
        name: What it is called in `export_format`.
        file: The file in the SavedModel's folder.
        packages: What converts and asks it.
        extra: The extra of tfgraphreg that brings these.
        module: The module of this room that does.
        weights: How weights are kept: float32, float16 or int8.
    """

    name: str
    file: str
    packages: tuple[str, ...]
    extra: str
    module: str
    weights: str = "float32"

    @property
    def exact(self) -> bool:
        """Whether it must answer as the SavedModel does; rounded weights need not."""
        return self.weights == "float32"


_LITERT = ("ai_edge_litert",)
_ONNX = ("tf2onnx", "onnx", "onnxruntime")
FORMATS: dict[str, Format] = {
    found.name: found
    for found in (
        Format("tflite", "model.tflite", _LITERT, "tflite", "tflite"),
        Format("tflite_float16", "model_float16.tflite", _LITERT, "tflite", "tflite", "float16"),
        Format("tflite_int8", "model_int8.tflite", _LITERT, "tflite", "tflite", "int8"),
        Format("onnx", "model.onnx", _ONNX, "onnx", "onnx"),
    )
}


def parse_formats(text: str) -> tuple[str, ...]:
    """The names in text such as ``"saved_model,tflite,onnx"``, without `saved_model`, each once.

    Raises:
        ConfigError: If one is unknown.
    """
    names = dict.fromkeys(part.strip() for part in text.split(","))
    known = (SAVED_MODEL, *FORMATS)
    for name in names:
        if name not in known:
            raise ConfigError(
                f"`export_format` must be names with commas between, of {', '.join(known)}.",
                received=f"export_format={text[:200]}",
                cure=did_you_mean(name, known),
            )
    return tuple(name for name in names if name != SAVED_MODEL)


def named_formats(text: str) -> tuple[str, ...]:
    """The formats of a command that writes nothing else.

    Raises:
        ConfigError: If none is named, or one is unknown.
    """
    names = parse_formats(text)
    if not names:
        raise ConfigError(
            "`export_format` must name a format beside the SavedModel, which every run has.",
            received=f"export_format={text}",
            cure=f"There are {', '.join(FORMATS)}.",
        )
    return names


def check_formats(names: Sequence[str]) -> None:
    """Refuses formats whose packages are not installed.

    Raises:
        MissingExtraError: If one lacks a package.
    """
    for name in names:
        for package in FORMATS[name].packages:
            check_optional(package, FORMATS[name].extra, f"`export_format={name}`")


def convert(predictor: Predictor, name: str) -> bytes:
    """The content of a file: an exported model in another format.

    The file takes `image`, uint8 `[B, height, width, channels]` for any B of at least 1, and gives
    `probabilities` `[B, C]` and `embedding` `[B, D]`, as the SavedModel does.

    Args:
        predictor: The exported model.
        name: Of `FORMATS`.

    Raises:
        MissingExtraError: If a package is not installed.
        ModelError: If the network has an operation that the format lacks.
    """
    check_formats([name])
    return _room(name).convert(predictor, weights=FORMATS[name].weights)


def load(name: str, content: bytes) -> Answer:
    """A converted model that can be asked, without TensorFlow.

    Raises:
        MissingExtraError: If a package is not installed.
        ModelError: If the content is no such model.
    """
    check_formats([name])
    return _room(name).load(content)


def _room(name: str) -> types.ModuleType:
    return importlib.import_module(f"tfgraphreg.formats.{FORMATS[name].module}")
