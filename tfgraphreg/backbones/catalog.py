"""The registry of backbones: a table that is read without TensorFlow."""

from __future__ import annotations

import functools
from typing import Any

from tfgraphreg.backbones import applications, kecam, kerascv, own, small
from tfgraphreg.backbones.records import Backbone
from tfgraphreg.registry import Registry


class _Backbones(Registry[Backbone]):
    """Networks by name; the name of a family stands for its smallest network."""

    def get(self, name: str) -> Backbone:
        if name not in self:
            name = smallest_networks().get(name, name)
        return super().get(name)


BACKBONES = _Backbones("backbone")

for _record in (
    *small.RECORDS,
    *applications.RECORDS,
    *kerascv.RECORDS,
    *kecam.RECORDS,
    *own.RECORDS,
):
    BACKBONES.register(_record.name, _record)


@functools.cache
def smallest_networks() -> dict[str, str]:
    """From each family to the name of its network with the fewest parameters, sorted."""
    best: dict[str, Backbone] = {}
    for name in BACKBONES:
        record = Registry.get(BACKBONES, name)
        if record.parameters < best.setdefault(record.family, record).parameters:
            best[record.family] = record
    return {family: best[family].name for family in sorted(best)}


def list_backbones(pattern: str = "*", *, max_parameters: int | None = None) -> list[str]:
    """Names of backbones that match a shell pattern or contain a text, sorted.

    Args:
        pattern: A pattern such as ``"res*"``, matched against the name; a text without
            wildcards matches wherever name, family or library contains it.
        max_parameters: The largest number of trainable parameters; None for any.
    """
    return [row["name"] for row in backbone_table(pattern, max_parameters=max_parameters)]


def backbone_table(
    pattern: str = "*", *, max_parameters: int | None = None
) -> list[dict[str, Any]]:
    """What the registry knows about each backbone, one dictionary a backbone, sorted by name.

    Args:
        pattern: As in `list_backbones`.
        max_parameters: As in `list_backbones`.

    Returns:
        Rows with name, family, library, parameters, width, min_size, default_size, channels
        (None: any), learning_rate, preprocessing, pretrained, timm and paper.
    """
    pattern = pattern.lower()
    if any(sign in pattern for sign in "*?["):
        names = BACKBONES.names(pattern)
    else:
        names = [name for name in BACKBONES if _mentions(BACKBONES.get(name), pattern)]
    records = [BACKBONES.get(name) for name in names]
    return [
        {column: getattr(record, column) for column in COLUMNS}
        for record in records
        if max_parameters is None or record.parameters <= max_parameters
    ]


COLUMNS = (
    "name",
    "family",
    "library",
    "parameters",
    "width",
    "min_size",
    "default_size",
    "channels",
    "learning_rate",
    "preprocessing",
    "pretrained",
    "timm",
    "paper",
)


def _mentions(record: Backbone, text: str) -> bool:
    return any(text in field.lower() for field in (record.name, record.family, record.library))
