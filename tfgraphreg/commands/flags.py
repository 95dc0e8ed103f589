"""Settings as command-line flags: made from the fields of `TrainConfig`, and put into messages."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from jsonargparse import ArgumentParser, get_loader, set_loader

from tfgraphreg import config as configs
from tfgraphreg.config import SECTIONS, TrainConfig
from tfgraphreg.data.settings import DataSettings
from tfgraphreg.errors import ConfigError
from tfgraphreg.graph.settings import GraphSettings
from tfgraphreg.reading import NOT_DECIMAL

GRAPH_FIELDS = (*configs.names_of(DataSettings), *configs.names_of(GraphSettings), "seed")
"""The settings of commands that build a graph and train nothing."""

RECIPE = "--recipe"

# `name` or `name=value`, as messages of the library write settings.
_SETTING = re.compile(r"`([a-z_]\w*)(?:=([^`]*))?`")


def flag(name: str) -> str:
    """The command-line flag of a setting: `data_dir` gives `--data-dir`."""
    return "--" + name.replace("_", "-")


def add_config(parser: ArgumentParser, names: Sequence[str] | None = None) -> None:
    """Adds a flag for each setting of a run, or for those named, and `--config`."""
    set_loader("tfgraphreg", _load_yaml)
    parser.parser_mode = "tfgraphreg"
    parser.add_argument("--config", action="config", help="YAML file with values for these flags")
    if names is None:
        listed = ", ".join(configs.recipes())
        parser.add_argument(
            RECIPE, metavar="NAME", help=f"values for these flags that go together: {listed}"
        )
    hints = typing.get_type_hints(TrainConfig)
    for title, section in SECTIONS.items():
        group = parser.add_argument_group(title.replace("_", " "))
        for field in dataclasses.fields(section):
            if names is None or field.name in names:
                _add_setting(group, field, hints[field.name])


def _add_setting(group: Any, field: dataclasses.Field, kind: Any) -> None:
    text = in_flags(field.metadata["help"], {name: flag(name) for name in _names()})
    if field.metadata["choices"]:
        text += f" ({', '.join(field.metadata['choices'])})"
    if field.default is None and type(None) not in typing.get_args(kind):
        kind = kind | None
    if kind is bool:
        group.add_argument(flag(field.name), action="store_true", help=text)
        return
    group.add_argument(
        flag(field.name), type=kind, default=field.default, metavar=field.name.upper(), help=text
    )


def with_recipe(argv: Sequence[str]) -> list[str]:
    """The arguments with the file of `--recipe NAME` put first, where all others overrule it.

    Raises:
        UnknownNameError: If there is no such recipe.
        ConfigError: If several are named.
    """
    argv = [part for text in argv for part in (_split(text))]
    places = [i for i, text in enumerate(argv) if text == RECIPE]
    if not places:
        return argv
    if len(places) > 1 or places[0] + 1 == len(argv):
        raise ConfigError(
            "`recipe` must name one recipe.", received=" ".join(argv[places[0] :])[:80]
        )
    file = configs.recipe_file(argv[places[0] + 1])
    rest = [*argv[: places[0]], *argv[places[0] + 2 :]]
    return ["--config", str(file), *rest]


def _split(text: str) -> list[str]:
    return text.split("=", 1) if text.startswith(f"{RECIPE}=") else [text]


def check_numbers(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """Refuses a number that the parser, which reads YAML, would take for another.

    Raises:
        ConfigError: If a flag of numbers alone is given as 1:30, which YAML reads as 90, or 010.
    """
    for word, following in zip(argv, [*argv[1:], ""]):
        name, joined, value = word.partition("=")
        value = value if joined else following
        action = parser._option_string_actions.get(name)
        hint = getattr(action, "_typehint", getattr(action, "type", None))
        kinds = set(typing.get_args(hint) or (hint,))
        if NOT_DECIMAL.fullmatch(value) and kinds & {int, float} and str not in kinds:
            raise ConfigError(
                f"`{name}` must be a decimal number.",
                received=value,
                cure="Write it without colons and leading zeros.",
            )


def to_config(args: Any, names: Sequence[str] | None = None) -> TrainConfig:
    """The config of parsed flags: of all settings, or of those named as in `add_config`."""
    names = _names() if names is None else names
    return TrainConfig(**{k: v for k, v in vars(args).items() if k in names})


def flags_of(parser: ArgumentParser) -> dict[str, str]:
    """The flag of each argument of a parser that has one."""
    return {action.dest: text for text, action in parser._option_string_actions.items()}


def in_flags(text: str, flags: Mapping[str, str]) -> str:
    """A message of the library with its settings written as flags.

    `alpha` becomes `--alpha`, `alpha=0` becomes `--alpha 0` and `symmetrize=True` `--symmetrize`,
    each where `flags` has the name.
    """

    def one(found: re.Match[str]) -> str:
        name, value = found.groups()
        if name not in flags:
            return found.group()
        return f"`{flags[name]}`" if value in (None, "True") else f"`{flags[name]} {value}`"

    return _SETTING.sub(one, text)


def _names() -> tuple[str, ...]:
    return configs.names_of(TrainConfig)


def _load_yaml(text: str) -> Any:
    """The content of a YAML file or of a flag; settings that stand in sections are taken out."""
    value = get_loader("yaml")(text)
    # A file may be called #1.
    if value is None and text.startswith("#"):
        return text
    nested = isinstance(value, dict) and any(
        key in SECTIONS and isinstance(inside, dict) for key, inside in value.items()
    )
    return configs.flat(value) if nested else value
