"""Weights of a timm model, copied into a Keras model with the same architecture.

The layers of the family files are named by the module path of the same layer in timm
(``"layer1.0.conv1"``), so the mapping from Keras to timm is mechanical: slashes become dots, and
the last part is translated by `SUFFIXES`. Only safetensors files are read: a pickled checkpoint
can run code when it is opened.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tfgraphreg.errors import DataError, ModelError

# The last part of a Keras weight's name, and what PyTorch calls it.
SUFFIXES = {
    "kernel": "weight",
    "depthwise_kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# Counters and constants that PyTorch stores and no Keras layer has.
_IGNORED_ENDINGS = ("num_batches_tracked",)
_SHOWN = 8


def weight_path(weight: Any) -> str:
    """The name of a Keras weight without the ``:0`` that TensorFlow adds."""
    return weight.name.split(":")[0]


def mechanical_names(model: Any) -> dict[str, str]:
    """Maps each weight of `model` to the state dict key that its layer names imply.

    ``"blocks.0.conv/kernel"`` becomes ``"blocks.0.conv.weight"``; a weight whose last part is
    not in `SUFFIXES` keeps that part.

    Args:
        model: A Keras model whose layers are named by timm's module paths.

    Returns:
        From the weight's name (without ``:0``) to the key of the state dict.

    Raises:
        ModelError: If two weights have one name.
    """
    names: dict[str, str] = {}
    for weight in model.weights:
        path = weight_path(weight)
        if path in names:
            raise ModelError(
                "Each weight must have a name of its own to be matched with a state dict.",
                received=f"two weights named {path!r}",
                cure="Name the layers differently.",
            )
        *parents, last = path.split("/")
        names[path] = ".".join([*parents, SUFFIXES.get(last, last)])
    return names


def load_timm_weights(
    model: Any,
    source: str | os.PathLike[str] | Mapping[str, Any],
    mapping: Mapping[str, str],
    *,
    classifier: Sequence[str] = ("classifier", "head", "fc"),
) -> None:
    """Fills every weight of `model` from a timm state dict.

    Args:
        model: A Keras model of one of the families.
        source: A ``.safetensors`` file, or a state dict: key to array (NumPy, or anything
            that NumPy can convert, such as a CPU tensor).
        mapping: From each weight's name to its key, as the family's ``timm_names(model)`` gives.
        classifier: Prefixes of keys that belong to the classifier and stay unused.

    Raises:
        DataError: If the file is missing or is not a safetensors file.
        ModelError: If a weight finds no entry of its size, or an entry is left over. The model
            is unchanged then.
    """
    state = _read_state(source)
    weights = {weight_path(weight): weight for weight in model.weights}
    _check_keys(weights, state, mapping, tuple(classifier))
    arrays = {path: _convert(path, weights[path], state[mapping[path]]) for path in weights}
    for path, array in arrays.items():
        weights[path].assign(array)


def _read_state(source: str | os.PathLike[str] | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(source, Mapping):
        return source
    path = check_file(source)
    from safetensors.numpy import load_file

    with _readable(path):
        return load_file(path)


def check_file(source: str | os.PathLike[str]) -> str:
    """The path of a safetensors file whose table of contents can be read.

    Raises:
        DataError: If the file is missing or is not a safetensors file.
    """
    path = os.fspath(source)
    if not path.endswith(".safetensors"):
        raise DataError(
            "timm weights are read from safetensors files only.",
            received=path,
            cure="Save them with safetensors.torch.save_file(model.state_dict(), path).",
        )
    if not os.path.isfile(path):
        raise DataError("The weight file does not exist.", received=path, cure="Check the path.")
    from safetensors import safe_open

    with _readable(path), safe_open(path, "np"):
        return path


@contextlib.contextmanager
def _readable(path: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # The library raises an error of its own and whatever it meets.
        raise DataError(
            f"The weight file cannot be read as safetensors ({error}).",
            received=path,
            cure="Download or convert it again.",
        ) from error


def _check_keys(
    weights: Mapping[str, Any],
    state: Mapping[str, Any],
    mapping: Mapping[str, str],
    classifier: tuple[str, ...],
) -> None:
    unmapped = [path for path in weights if path not in mapping]
    missing = [mapping[path] for path in weights if path in mapping and mapping[path] not in state]
    used = {mapping[path] for path in weights if path in mapping}
    unused = [
        key
        for key in state
        if key not in used
        and not key.endswith(_IGNORED_ENDINGS)
        and not any(key == prefix or key.startswith(f"{prefix}.") for prefix in classifier)
    ]
    problems = [
        f"{what}: {_some(keys)}"
        for what, keys in (
            ("weights without a key in the mapping", unmapped),
            ("keys that the state dict lacks", missing),
            ("keys that the model does not use", unused),
        )
        if keys
    ]
    if problems:
        raise ModelError(
            "The state dict must be that of the same model, weight for weight.",
            received="; ".join(problems),
            cure="Use the weights of the timm model that this variant names.",
        )


def _some(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more


def _convert(path: str, weight: Any, value: Any) -> np.ndarray:
    """Brings one entry from PyTorch's layout to the layout of `weight`."""
    array = np.asarray(value)
    last = path.rsplit("/", 1)[-1]
    shape = tuple(weight.shape)
    if last == "depthwise_kernel" and array.ndim == 4:
        # PyTorch's output channel is c * multiplier + m; Keras has [h, w, c, m].
        height, width, channels, multiplier = shape
        if array.shape == (channels * multiplier, 1, height, width):
            array = array.reshape(channels, multiplier, height, width).transpose(2, 3, 0, 1)
    elif last == "kernel" and array.ndim == 4 and len(shape) == 4:
        array = array.transpose(2, 3, 1, 0)
    elif last == "kernel" and array.ndim == 4 and len(shape) == 2:
        array = array.reshape(array.shape[:2]).T if array.shape[2:] == (1, 1) else array
    elif last == "kernel" and array.ndim == 2:
        array = array.T
        if len(shape) == 4 and shape[:2] == (1, 1):
            array = array[None, None]
    elif array.size == np.prod(shape, dtype=int) and _squeeze(array.shape) == _squeeze(shape):
        # Layer scales, tokens and tables may differ in axes of length one.
        array = array.reshape(shape)
    if array.shape != shape:
        raise ModelError(
            "An entry of the state dict must have the size of its weight.",
            received=f"{path}: shape {np.shape(value)} for {shape}",
            cure="Use the weights of the timm model that this variant names. Position embeddings "
            "fit one image size: use `image_size` with that of the weights, such as 224.",
        )
    return array


def _squeeze(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)
