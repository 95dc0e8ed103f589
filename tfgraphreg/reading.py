"""The one reader of text formats from outside: what is wrong with a file is a ValueError.

Callers put the file's name and the cure around it. Sizes, depths and numbers are bounded, so that
no file can take the process with it.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import stat
import unicodedata
from collections.abc import Container, Iterable
from typing import Any, BinaryIO

# Larger settings, metrics and sweeps are none that this project or a person wrote.
_MOST_BYTES = 64 << 20
_MOST_DIGITS = 25
# Settings and sweeps nest three levels. PyYAML takes time quadratic in the depth.
_MOST_LEVELS = 50
NOT_DECIMAL = re.compile(r"[-+]?\d[\d_]*(:[0-5]?\d)+(\.[\d_]*)?|[-+]?0[\d_]+")
"""Texts that YAML 1.1 reads as another number: 1:30 as 90, 010 as 8."""


class NotOrdinaryError(ValueError):
    """A folder, a pipe or a device stands where a file should."""


def open_ordinary(path: os.PathLike[str] | str) -> BinaryIO:
    """An ordinary file, open for reading; a pipe is not waited for.

    Raises:
        NotOrdinaryError: If it is none.
        OSError: If it cannot be opened.
        ValueError: If the path holds a null character.
    """
    # Without O_NONBLOCK, opening a pipe would wait for its writer.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise NotOrdinaryError("it is no ordinary file")
    return open(handle, "rb")


def read_text(path: os.PathLike[str] | str) -> str:
    """A UTF-8 text file.

    Raises:
        ValueError: If it is no ordinary file, too large, cannot be read, or is no UTF-8.
    """
    try:
        with open_ordinary(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > _MOST_BYTES:
                raise ValueError(f"it has {size:,} bytes, more than {_MOST_BYTES:,}")
            return io.TextIOWrapper(file, encoding="utf-8").read()
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise ValueError(f"it cannot be read ({error.strerror or error})") from error


def known_as(name: str, known: Container[str]) -> str:
    """The name, or its Unicode NFC form if it is not known as it stands.

    File systems and editors also write NFD, in which a letter and its accent are two characters.
    """
    return name if name in known else unicodedata.normalize("NFC", name)


def read_json(path: os.PathLike[str] | str) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: As `read_text` and `parse_json` do, or if the file holds anything but one
            JSON object. NaN passes, as other programs write it.
    """
    value = parse_json(read_text(path))
    if not isinstance(value, dict):
        raise ValueError("it must hold one JSON object")
    return value


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: If it is no JSON, is nested too deeply, names a key twice, or holds a number
            that no float holds or of over 25 digits.
    """
    try:
        return json.loads(text, parse_int=_whole, parse_float=_finite, object_pairs_hook=_each_once)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_yaml(path: os.PathLike[str] | str) -> Any:
    """The value in a YAML file.

    Raises:
        ValueError: As `read_text` does, or if the file is no YAML, is nested too deeply, names a
            key twice, uses aliases, of which a short file can make an endless value, or holds a
            number of over 25 digits or to another base, as 1:30 and 010 are.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [key for key, _ in node.value if not key.tag.endswith(":merge")]
            _each_once((self.construct_object(key, deep=True), None) for key in keys)
            return super().construct_mapping(node, deep)

    text = read_text(path)
    try:
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("it uses aliases (*name)")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _MOST_LEVELS:
                raise ValueError(f"it is nested more than {_MOST_LEVELS} levels deep")
            if isinstance(event, yaml.ScalarEvent) and event.implicit[0]:
                _check_digits(event.value)
                if NOT_DECIMAL.fullmatch(event.value):
                    raise ValueError(
                        f"it holds {event.value[:30]}, which YAML reads as another number; write "
                        "it without leading zeros and colons, or in quotes"
                    )
        return yaml.load(text, Loader)
    # A date such as 2001-99-99 raises ValueError, a key that is a list TypeError.
    except (yaml.YAMLError, TypeError, OverflowError, AttributeError) as error:
        raise ValueError(" ".join(str(error).split())[:300]) from error


def _each_once(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """The mapping of these pairs; a key that is there twice would hide a value."""
    found: dict[Any, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"it names {str(key)[:60]!r} twice")
        found[key] = value
    return found


def _whole(text: str) -> int:
    _check_digits(text)
    return int(text)


def _check_digits(text: str) -> None:
    digits = text.lstrip("+-").replace("_", "")
    if len(digits) > _MOST_DIGITS and digits.isdigit():
        raise ValueError(f"it holds a number of {len(digits)} digits")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it holds a number that is too large ({text[:20]})")
    return value
