"""A small table of named records, with an answer for misspelled names."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from typing import Generic, TypeVar

from tfgraphreg.errors import ConfigError, UnknownNameError, did_you_mean

Record = TypeVar("Record")


class Registry(Generic[Record]):
    """Named records of one kind.

    Args:
        kind: What the records are, for messages: ``"distance"``.
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._records: dict[str, Record] = {}

    def register(self, name: str, record: Record, *, replace: bool = False) -> Record:
        """Adds `record` under `name` and returns it.

        Raises:
            ConfigError: If the name is taken and `replace` is false.
        """
        if name in self._records and not replace:
            raise ConfigError(
                f"A {self.kind} named {name!r} is registered already.",
                cure="Choose another name or pass replace=True.",
            )
        self._records[name] = record
        return record

    def get(self, name: str) -> Record:
        """Returns the record of `name`.

        Raises:
            UnknownNameError: If there is none; the message gives the nearest names.
        """
        try:
            return self._records[name]
        except KeyError:
            raise self._unknown(name) from None

    def names(self, pattern: str = "*") -> list[str]:
        """Names that match a shell `pattern`, sorted."""
        return sorted(n for n in self._records if fnmatch.fnmatchcase(n, pattern))

    def __contains__(self, name: object) -> bool:
        return name in self._records

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self._records)

    def _unknown(self, name: str) -> UnknownNameError:
        cure = did_you_mean(name, self._records)
        if cure is None:
            known = self.names()
            shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
            cure = f"Known names: {shown}."
        return UnknownNameError(f"Unknown {self.kind}.", received=repr(name), cure=cure)
