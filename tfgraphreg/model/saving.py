"""The config of a wrapper, for either Keras."""

from __future__ import annotations

from typing import Any

from tfgraphreg.distances import DISTANCES, Distance
from tfgraphreg.errors import ConfigError
from tfgraphreg.model.regularizer import Regularizer
from tfgraphreg.neighbors import modes


def wrapper_config(regularizer: Regularizer, keras: Any) -> dict[str, Any]:
    """The base model's config and the arguments of the wrapper, as plain values.

    Raises:
        ConfigError: If the distance is not registered, or a function has no name.
    """
    mode = regularizer.mode
    return {
        "base_model": keras.saving.serialize_keras_object(regularizer.readout.base_model),
        "alpha": regularizer.alpha,
        "distance": _registered_name(regularizer.term.distance),
        "embedding": _saved(regularizer.readout.embedding, keras),
        "mode": None if mode is None else modes.to_config(mode),
        "augmenter": _saved(regularizer.augmenter, keras),
        "contrast": regularizer.contrast,
    }


def wrapper_arguments(
    config: dict[str, Any], keras: Any, custom_objects: dict[str, Any] | None
) -> dict[str, Any]:
    """The arguments of the wrapper, from `wrapper_config`."""
    found = dict(config)
    for name in ("base_model", "embedding", "augmenter"):
        if isinstance(found.get(name), dict):
            found[name] = keras.saving.deserialize_keras_object(
                found[name], custom_objects=custom_objects
            )
    if found["mode"] is not None:
        found["mode"] = modes.from_config(found["mode"])
    return found


def _registered_name(distance: Distance) -> str:
    if distance.name in DISTANCES and DISTANCES.get(distance.name) is distance:
        return distance.name
    raise ConfigError(
        "Only a registered distance can be saved in a config.",
        received=distance.name,
        cure="Register it with register_distance and pass its name.",
    )


def _saved(value: Any, keras: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    if getattr(value, "__name__", "") == "<lambda>":
        raise ConfigError(
            "A lambda cannot be saved in a config.",
            cure="Use a named function, registered by keras.saving.register_keras_serializable.",
        )
    return keras.saving.serialize_keras_object(value)
