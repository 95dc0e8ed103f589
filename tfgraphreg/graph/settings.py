"""The graph of a run."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

from tfgraphreg.settings import GIVEN, Effect, Settings, at_least, refuse, setting

GRAPH_KINDS = ("knn", "mutual", "threshold", "radius", "class", "random")
SEARCHES = ("auto", "exact", "ivf", "hnsw")
WEIGHTINGS = ("cosine", "gaussian", "local_gaussian", "shared_neighbors", "binary")
FILES = (".tsv", ".txt", ".npz", ".parquet")


def kinds(all: Any) -> set[str]:
    """The kinds of graph that are built; none for a file of edges or a graph that was passed.

    An unknown name may be a file, or a mistake that is reported when files are opened; until then
    it counts as every kind.
    """
    if all.graph.endswith(FILES) or all.graph.startswith(GIVEN):
        return set()
    found = set(all.graph.split(","))
    return found if found <= set(GRAPH_KINDS) else set(GRAPH_KINDS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphSettings(Settings):
    """The graph over the training images; see `tfgraphreg.build_graph`."""

    graph: str = setting(
        "knn",
        f"graph: one of {', '.join(GRAPH_KINDS)}, or a TSV, npz or Parquet file (or a folder "
        "NAME.parquet) of your own edges",
    )
    graph_features: str = setting(
        "pca",
        "what the graph compares: auto (patches, or pca of images under 6 pixels a side), pixels, "
        "pca, patches, color, texture, shape, global, sgt, model:PATH, backbone:NAME, file:PATH "
        "(vectors of your own: .npy, .npz, .parquet)",
    )
    graph_metric: str = setting("cosine", "distance that makes the graph")
    graph_neighbors: int = setting(10, "neighbors of a node in the graph")
    graph_search: str = setting(
        "auto",
        "how neighbors are found: exact, or by inverted lists (ivf) or HNSW with a stated recall; "
        "auto: exact for small sets",
        choices=SEARCHES,
    )
    graph_weights: str = setting("cosine", "edge weights", choices=WEIGHTINGS)
    graph_threshold: float = setting(0.9, "smallest weight of an edge in a threshold graph")
    graph_radius: float | None = setting(
        None, "largest distance, by the metric, of an edge in a radius graph"
    )
    symmetrize: bool = setting(False, "add the reverse of every edge")
    edge_kinds: str = setting(
        "ll,lu,uu", "edges kept, by their ends: labeled-labeled, labeled-unlabeled, both unlabeled"
    )

    # Features and metric also serve the comparison of the embedding with what the graph compares.
    EFFECTS: ClassVar[tuple[Effect, ...]] = (
        Effect(
            ("graph_neighbors",),
            lambda all: bool(kinds(all) & {"knn", "mutual", "random", "class"}),
            "a graph of k neighbors",
        ),
        Effect(
            ("graph_search",),
            lambda all: bool(kinds(all) & {"knn", "mutual", "random"}),
            "`graph` knn, mutual or random",
        ),
        Effect(("graph_weights",), lambda all: bool(kinds(all)), "a graph that is built"),
        Effect(("graph_threshold",), lambda all: "threshold" in kinds(all), "`graph=threshold`"),
        Effect(("graph_radius",), lambda all: "radius" in kinds(all), "`graph=radius`"),
    )

    def check(self) -> None:
        """Checks the ranges.

        Raises:
            ConfigError: If a value is out of range, or a radius graph has no radius.
        """
        at_least(self, 1, "graph_neighbors")
        radius = self.graph_radius
        if radius is not None and not (math.isfinite(radius) and radius > 0):
            refuse("graph_radius", "must be a finite number > 0", radius, "Try 1.")
        if "radius" in self.graph.split(",") and radius is None:
            refuse("graph_radius", "must be given for a radius graph", None, "Try 1.")
        if not 0 < self.graph_threshold <= 1:
            refuse("graph_threshold", "must be in (0, 1]", self.graph_threshold, "Try 0.9.")
        ends = [k for k in self.edge_kinds.split(",") if k]
        if not ends or set(ends) - {"ll", "lu", "uu"}:
            refuse(
                "edge_kinds", "must name some of ll, lu and uu", self.edge_kinds, "Try ll,lu,uu."
            )
