"""What a config must fulfill: the type of each value, its range, and what goes together.

`TrainConfig` calls these at its birth. They stand apart from it so that its fields, which make
flags and files, can be read on their own.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import os
import sys
import types
import typing
from collections.abc import Iterable
from typing import Any

from tfgraphreg.errors import ConfigError

# What a value of each type is called in messages.
KINDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a word"}

_LABEL_MIXING = ("mixup", "cutmix")
# Of the others, KerasCV's layers hold operations without an XLA kernel on any device:
# ImageProjectiveTransformV3 (translation), HistogramFixedWidth (RandAugment), RandomGamma (mixing).
_COMPILED_AUGMENTATIONS = ("none", "flip")


def flag(name: str) -> str:
    """The command-line flag of a field: `data_dir` gives `--data-dir`."""
    return "--" + name.replace("_", "-")


def nearest(value: Any, choices: Iterable[str]) -> str | None:
    """A question that offers the choices spelled like `value`, or None if there are none."""
    near = difflib.get_close_matches(str(value), list(choices), n=2)
    return f"Did you mean {' or '.join(near)}?" if near else None


def plain_values(config: Any) -> dict[str, Any]:
    """The values of a config as plain Python values of the types that its fields state.

    A whole number also counts as a float, a path as a word, and a NumPy scalar as what it holds;
    a truth value is no number.

    Args:
        config: A dataclass whose fields have annotations like `int`, `str | int`, `float | None`.

    Raises:
        ConfigError: If a value has another type.
    """
    return {
        field.name: _plain(field, _kinds(type(config))[field.name], getattr(config, field.name))
        for field in dataclasses.fields(config)
    }


@functools.cache
def _kinds(owner: type) -> dict[str, tuple[type, ...]]:
    """The types that each field takes. The first is the one that a value is kept in."""
    hints = typing.get_type_hints(owner)
    return {name: typing.get_args(hint) or (hint,) for name, hint in hints.items()}


def _plain(field: dataclasses.Field, kinds: tuple[type, ...], given: Any) -> Any:
    value = given
    # Imported here, NumPy would slow --help down; without it there are none of its scalars.
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        value = value.item()
    if isinstance(value, os.PathLike) and str in kinds:
        value = os.fspath(value)
    if value is None and types.NoneType in kinds:
        return None
    if any(_fits(value, kind) for kind in kinds):
        try:
            return kinds[0](value)
        except OverflowError:  # A whole number too large for a float.
            pass
    names = [KINDS[kind] for kind in kinds if kind in KINDS]
    raise ConfigError(
        f"`{flag(field.name)}` must be {' or '.join(names)}.",
        received=" ".join(f"{field.name}={given!r}".split()),
        cure="Leave it out for the default."
        if field.default is None
        else f"The default is {field.default}.",
    )


def _fits(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def check(config: Any) -> None:
    """Checks a `TrainConfig` whose values have their types.

    Raises:
        ConfigError: If a value, or a combination of values, cannot work.
    """
    _check_choices(config)
    _check_numbers(config)
    _check_rates(config)
    _check_graph(config)
    _check_freeze(config)
    _check_augmentation(config)
    _check_pairs(config)
    _check_warmup(config)


def _check_choices(config: Any) -> None:
    for field in dataclasses.fields(config):
        choices = field.metadata.get("choices")
        value = getattr(config, field.name)
        if choices and value not in choices:
            raise ConfigError(
                f"`{flag(field.name)}` must be one of {', '.join(choices)}.",
                received=repr(value),
                cure=nearest(value, choices),
            )


def _check_numbers(config: Any) -> None:
    if not math.isfinite(config.alpha) or config.alpha < 0:
        _refuse("alpha", "must be a finite number >= 0", config.alpha, "Use 0 for plain training.")
    for name in ("embedding_dim", "epochs", "graph_neighbors"):
        _at_least(name, getattr(config, name), 1)
    for name in ("limit", "labels_per_class", "image_size", "batch_size"):
        if getattr(config, name) is not None:
            _at_least(name, getattr(config, name), 1)
    if config.alpha > 0 and config.max_neighbors < 1:
        _refuse(
            "max_neighbors",
            "must be at least 1 when alpha > 0",
            config.max_neighbors,
            "Use alpha=0 to train without neighbors.",
        )
    _at_least("max_neighbors", config.max_neighbors, 0)
    _at_least("warmup_epochs", config.warmup_epochs, 0)
    _at_least("seed", config.seed, 0)
    if config.seed >= 2**31:
        _refuse("seed", "must be smaller than 2**31", config.seed, "Use a smaller seed.")


def _check_rates(config: Any) -> None:
    for name in ("learning_rate", "backbone_learning_rate"):
        value = getattr(config, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            _refuse(name, "must be a finite number > 0", value, "Try 0.001.")
    if not 0 < config.stage_decay <= 1:
        _refuse("stage_decay", "must be in (0, 1]", config.stage_decay, "Try 0.7.")
    if not 0 <= config.validation_fraction < 1:
        _refuse("validation_fraction", "must be in [0, 1)", config.validation_fraction, "Try 0.1.")


def _check_graph(config: Any) -> None:
    if config.graph_radius is not None and not (
        math.isfinite(config.graph_radius) and config.graph_radius > 0
    ):
        _refuse("graph_radius", "must be a finite number > 0", config.graph_radius, "Try 1.")
    if "radius" in config.graph.split(",") and config.graph_radius is None:
        _refuse("graph_radius", "must be given for a radius graph", None, "Try 1.")
    if not 0 < config.graph_threshold <= 1:
        _refuse("graph_threshold", "must be in (0, 1]", config.graph_threshold, "Try 0.9.")
    kinds = [k for k in config.edge_kinds.split(",") if k]
    if not kinds or set(kinds) - {"ll", "lu", "uu"}:
        _refuse("edge_kinds", "must name some of ll, lu and uu", config.edge_kinds, "Try ll,lu,uu.")


def _check_freeze(config: Any) -> None:
    if config.freeze not in ("none", "backbone") and not config.freeze.isdecimal():
        _refuse(
            "freeze",
            "must be none, backbone or a number of stages",
            config.freeze,
            "Try backbone.",
        )


def _check_augmentation(config: Any) -> None:
    if config.jit_compile and config.augment not in _COMPILED_AUGMENTATIONS:
        raise ConfigError(
            f"XLA cannot compile the random changes of --augment {config.augment}: it lacks some "
            "of their operations.",
            received=f"augment={config.augment}, jit_compile={config.jit_compile}",
            cure="Leave --jit-compile out, or use --augment flip.",
        )
    if config.augment in _LABEL_MIXING and config.alpha > 0:
        raise ConfigError(
            f"--augment {config.augment} mixes the labels of two images, and an edge between "
            "mixtures has no meaning.",
            received=f"augment={config.augment}, alpha={config.alpha}",
            cure="Use --alpha 0, or an augmentation that keeps labels, such as rand_augment.",
        )
    if config.augment in _LABEL_MIXING and config.labels_per_class is not None:
        raise ConfigError(
            f"--augment {config.augment} mixes labels, and unlabeled images have none.",
            received=f"labels_per_class={config.labels_per_class}",
            cure="Use all labels, or an augmentation that keeps labels.",
        )


def _check_pairs(config: Any) -> None:
    if config.neighbors == "paired" and config.alpha > 0 and (config.batch_size or 0) % 2:
        _refuse(
            "batch_size",
            "must be even with --neighbors paired",
            config.batch_size,
            f"Use {config.batch_size + 1}.",
        )
    paired_only = config.pair_correction or config.pairing != "uniform"
    if config.alpha > 0 and config.neighbors != "paired" and paired_only:
        raise ConfigError(
            "--pairing and --pair-correction change how pairs are made, and only "
            "--neighbors paired makes pairs.",
            received=f"neighbors={config.neighbors}",
            cure="Add --neighbors paired, or leave them out.",
        )


def _check_warmup(config: Any) -> None:
    if config.warmup_epochs and config.freeze == "backbone":
        raise ConfigError(
            "`--warmup-epochs` trains the head alone at the start, and `--freeze backbone` to "
            "the end.",
            received=f"warmup_epochs={config.warmup_epochs}, freeze={config.freeze}",
            cure="Leave one of them out.",
        )
    if config.warmup_epochs >= config.epochs and config.warmup_epochs:
        _refuse(
            "warmup_epochs",
            "must be smaller than epochs",
            config.warmup_epochs,
            f"Use at most {config.epochs - 1}.",
        )


def _at_least(name: str, value: int, smallest: int) -> None:
    if value < smallest:
        _refuse(name, f"must be at least {smallest}", value, f"Use {smallest} or more.")


def _refuse(name: str, rule: str, value: Any, cure: str) -> None:
    raise ConfigError(f"`{flag(name)}` {rule}.", received=f"{name}={value}", cure=cure)
