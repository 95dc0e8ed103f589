"""What the settings of every room are made of: fields that become flags, and their checks.

A room states its settings as a frozen dataclass that derives from `Settings`; `tfgraphreg.config`
composes them into `TrainConfig`.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from tfgraphreg.errors import ConfigError, did_you_mean

GIVEN = "given:"
"""Begins a setting whose value is an object that was passed to `train`, named by its content."""

TYPE_WORDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a word"}
"""What a value of each type is called in messages."""

_LONGEST, _FEW = 80, 8


def setting(default: Any, help: str, *, choices: tuple[str, ...] | None = None) -> Any:
    """A field of `Settings`.

    Args:
        default: Its default.
        help: What `help` prints.
        choices: All values that it may have, if they are few words.
    """
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


@dataclasses.dataclass(frozen=True)
class Effect:
    """Settings that act only together with others.

    Attributes:
        names: The settings.
        when: Whether they act, given all settings of a run.
        words: When they act, for messages.
    """

    names: tuple[str, ...]
    when: Callable[[Any], bool]
    words: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of the settings of a room."""

    EFFECTS: ClassVar[tuple[Effect, ...]] = ()

    def check(self) -> None:
        """Checks the ranges, and what must go together.

        Raises:
            ConfigError: If a value, or a combination of values, cannot work.
        """


def refuse(name: str, rule: str, value: Any, cure: str) -> typing.NoReturn:
    """Raises the `ConfigError` of one setting."""
    raise ConfigError(f"`{name}` {rule}.", received=shown(name, value), cure=cure)


def at_least(settings: Any, smallest: int, *names: str, most: int = 2**31 - 1) -> None:
    """Checks settings that are whole numbers or None.

    Raises:
        ConfigError: If one is below `smallest` or above `most`.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < smallest:
            refuse(name, f"must be at least {smallest}", value, f"Use {smallest} or more.")
        if value is not None and value > most:
            refuse(name, f"must be at most {most:,}", value, f"Use {most} or less.")


def check_choices(settings: Any) -> None:
    """Checks the settings whose values are a few words.

    Raises:
        ConfigError: If one has another value.
    """
    for field in dataclasses.fields(settings):
        choices = field.metadata.get("choices")
        value = getattr(settings, field.name)
        if choices and value not in choices and not (value is None and field.default is None):
            raise ConfigError(
                f"`{field.name}` must be one of {', '.join(choices)}.",
                received=shown(field.name, value),
                cure=did_you_mean(value, choices),
            )


# As long as a path may be on Linux.
_LONGEST_TEXT = 4096


def without_effect(settings: Any, effects: Iterable[Effect]) -> Iterable[tuple[str, Effect]]:
    """The settings that differ from their defaults and change nothing, each with its rule."""
    defaults = {field.name: field.default for field in dataclasses.fields(settings)}
    for effect in effects:
        if not effect.when(settings):
            for name in effect.names:
                if getattr(settings, name) != defaults[name]:
                    yield name, effect


def plain_values(settings: Any) -> dict[str, Any]:
    """The values of settings as plain Python values of the types that the fields state.

    A whole number also counts as a float, a path as a word, and a NumPy scalar as what it holds;
    a truth value is no number.

    Args:
        settings: A dataclass whose fields have annotations like `int`, `str | int` or
            `float | None`.

    Raises:
        ConfigError: If a value has another type.
    """
    known = types_of(settings.__class__)
    return {
        field.name: _plain(field, known[field.name], getattr(settings, field.name))
        for field in dataclasses.fields(settings)
    }


@functools.cache
def types_of(owner: type) -> dict[str, tuple[type, ...]]:
    """The types that each field takes. The first is the one that a value is kept in."""
    hints = typing.get_type_hints(owner)
    hints = {field.name: hints[field.name] for field in dataclasses.fields(owner)}
    return {name: typing.get_args(hint) or (hint,) for name, hint in hints.items()}


def shown(name: str, value: Any) -> str:
    """`name=value` in one short line; of an object that is no plain value only its type."""
    plain = (str, int, float, type(None))
    few = isinstance(value, (list, tuple)) and len(value) <= _FEW
    if not isinstance(value, plain) and not (few and all(isinstance(v, plain) for v in value)):
        return f"{name}=an object of type {type(value).__name__}"
    text = " ".join(repr(value).split())
    return f"{name}={text if len(text) <= _LONGEST else text[:_LONGEST] + '...'}"


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
    if isinstance(value, str) and ("\0" in value or len(value) > _LONGEST_TEXT):
        raise ConfigError(
            f"`{field.name}` must be text of at most {_LONGEST_TEXT:,} characters without NUL.",
            received=shown(field.name, given),
        )
    if any(_fits(value, kind) for kind in kinds):
        try:
            return kinds[0](value)
        except OverflowError:  # A whole number too large for a float.
            pass
    names = [TYPE_WORDS[kind] for kind in kinds if kind in TYPE_WORDS]
    raise ConfigError(
        f"`{field.name}` must be {' or '.join(names)}.",
        received=shown(field.name, given),
        cure="Leave it out for the default."
        if field.default is None
        else f"The default is {field.default}.",
    )


def _fits(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)
