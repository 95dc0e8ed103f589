"""How neighbors take part in the training steps of a run."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from tfgraphreg.settings import Effect, Settings, at_least, setting

NEIGHBOR_MODES = ("packed", "gathered", "paired", "bank")
SAMPLINGS = ("top", "uniform", "weight")
PAIRINGS = ("uniform", "weight")
PACKERS = ("auto", "nsl", "stream")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeighborSettings(Settings):
    """How neighbors reach a batch."""

    neighbors: str = setting(
        "packed",
        "how neighbors reach a batch: packed by nsl.tools.pack_nbrs, gathered by index, "
        "paired in one batch (cost of plain training), or from a bank of embeddings",
        choices=NEIGHBOR_MODES,
    )
    max_neighbors: int = setting(1, "neighbors of an image in a batch")
    neighbor_sampling: str = setting(
        "uniform",
        "which of its neighbors an image brings along, with gathered and bank: always the top "
        "ones as packed does, or others each epoch",
        choices=SAMPLINGS,
    )
    pairing: str = setting(
        "uniform",
        "how paired picks among free neighbors: all alike, or by weight",
        choices=PAIRINGS,
    )
    pair_correction: bool = setting(
        False, "with paired: weigh edges so that all count alike, however often they are drawn"
    )
    packer: str = setting(
        "auto",
        "who packs: nsl.tools.pack_nbrs, which holds all images in memory, or the streaming "
        "packer, which writes the same examples; auto: nsl up to 256 MB of images",
        choices=PACKERS,
    )

    # The first rule also decides what the others see: without a graph term there is no mode.
    EFFECTS: ClassVar[tuple[Effect, ...]] = (
        Effect(
            ("neighbors", "neighbor_sampling", "pairing", "pair_correction", "packer"),
            lambda all: all.alpha > 0,
            "`alpha` above 0",
        ),
        Effect(
            ("max_neighbors",),
            lambda all: all.max_neighbors == 0 or (all.alpha > 0 and all.neighbors != "paired"),
            "`alpha` above 0 and `neighbors` packed, gathered or bank",
        ),
        Effect(
            ("neighbor_sampling",),
            lambda all: all.neighbors in ("gathered", "bank"),
            "`neighbors=gathered` or `neighbors=bank`",
        ),
        Effect(
            ("pairing", "pair_correction"),
            lambda all: all.neighbors == "paired",
            "`neighbors=paired`",
        ),
        Effect(("packer",), lambda all: all.neighbors == "packed", "`neighbors=packed`"),
    )

    def check(self) -> None:
        """Checks the ranges.

        Raises:
            ConfigError: If a value is out of range.
        """
        at_least(self, 0, "max_neighbors")
