"""One self-contained HTML page about a graph, without scripts.

Shapes: N nodes, E edges, C classes.
"""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfgraphreg.errors import GraphError
from tfgraphreg.graph.diagnostics import diagnose, edge_agreement
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.storage import write_text

_PAIRS = 12
_STYLE = """body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse}
td,th{padding:.2rem .8rem;text-align:left;border-bottom:1px solid #ddd}
img{max-width:100%}.warning{background:#fde8e8;padding:.6rem 1rem}"""


def write_report(
    graph: SimilarityGraph,
    images: Any,
    labels: np.ndarray | None,
    class_names: Sequence[str] | None,
    path: os.PathLike[str] | str,
) -> dict[str, Any]:
    """Writes a page with numbers, histograms, and the best and worst edges as pairs of images.

    Best are the heaviest edges; worst are the heaviest between different classes, or the lightest
    where labels do not tell.

    Args:
        graph: N nodes.
        images: `[N, H, W, C]` uint8; only the shown ones are read.
        labels: `[N]` or `[N, C]` as in `diagnose`, or None.
        class_names: C names, or None.
        path: The HTML file to write.

    Returns:
        What `diagnose` gives.

    Raises:
        GraphError: If there is not one image and one label for every node.
    """
    if len(images) != graph.num_nodes:
        raise GraphError(
            "There must be one image for every node.",
            received=f"{len(images)} images, {graph.num_nodes} nodes",
        )
    facts = diagnose(graph, labels)
    best, worst, what = _chosen_edges(graph, labels)
    parts = [f"<h1>Similarity graph of {graph.num_nodes:,} images</h1>"]
    if facts["why_zero"]:
        parts.append(f'<p class="warning">{html.escape(facts["why_zero"])}</p>')
    parts.append(_table(facts))
    parts.append(_section("How many neighbors", _histograms(graph)))
    per_class = facts.get("edge_label_agreement_per_class")
    if per_class:
        names = [str(n) for n in class_names or range(len(per_class))]
        parts.append(_section("Edges that stay in their class", _bars(per_class, names)))
    if graph.num_edges:
        for title, edges in (("Best edges: the heaviest", best), (f"Worst edges: {what}", worst)):
            if len(edges):
                picture = _pairs(graph, images, labels, class_names, edges)
                parts.append(_section(title, picture))
    body = "\n".join(parts)
    write_text(
        path,
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>Similarity graph</title><style>{_STYLE}</style></head>\n"
        f"<body>{body}</body></html>\n",
    )
    return facts


def _table(facts: dict[str, Any]) -> str:
    rows = []
    shown = {k: v for k, v in facts.items() if k not in ("about", "why_zero")}
    shown.pop("edge_label_agreement_per_class", None)
    for name, value in {**shown, **facts["about"]}.items():
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        label = html.escape(str(name).replace("_", " "))
        rows.append(f"<tr><th>{label}</th><td>{html.escape(text)}</td></tr>")
    return f"<table>{''.join(rows)}</table>"


def _section(title: str, picture: str) -> str:
    name = html.escape(title)
    return f'<h2>{name}</h2><img alt="{name}" src="data:image/png;base64,{picture}">'


def _png(figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, bbox_inches="tight", metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode()


def _figure(*arguments, **options):
    """A figure and axes outside pyplot, so that nothing of the caller's is touched."""
    from matplotlib.figure import Figure

    size = options.pop("figsize")
    figure = Figure(figsize=size)
    return figure, figure.subplots(*arguments, squeeze=False, **options)


def _histograms(graph: SimilarityGraph) -> str:
    figure, axes = _figure(1, 2, figsize=(10, 3))
    kinds = (("out-neighbors of an image", graph.degrees()), ("times chosen", graph.in_degrees()))
    for axis, (name, values) in zip(axes[0], kinds):
        axis.hist(values, bins=min(50, int(values.max(initial=0)) + 1), color="#33658a")
        axis.set(xlabel=name, ylabel="images", yscale="symlog")
    return _png(figure)


def _bars(values: Sequence[float | None], names: Sequence[str]) -> str:
    height = max(2.0, 0.3 * len(values))
    figure, axes = _figure(1, 1, figsize=(8, height))
    axes[0, 0].barh(names, [v or 0 for v in values], color="#33658a")
    axes[0, 0].set(xlim=(0, 1), xlabel="share of edges within the class")
    axes[0, 0].invert_yaxis()
    return _png(figure)


def _chosen_edges(
    graph: SimilarityGraph, labels: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, str]:
    """Numbers of the best edges, of the worst, and in words which the worst are."""
    sources = graph.sources()
    order = np.argsort(-graph.weights, kind="stable")
    # Of an edge in both directions one is enough.
    reverse = np.isin(
        sources * graph.num_nodes + graph.indices,
        graph.indices.astype(np.int64) * graph.num_nodes + sources,
    )
    order = order[(~reverse | (sources < graph.indices))[order]]
    if labels is not None:
        both, same = edge_agreement(graph, labels)
        wrong = order[(both & ~same)[order]]
        if len(wrong):
            return order[:_PAIRS], wrong[:_PAIRS], "the heaviest between different classes"
    return order[:_PAIRS], order[::-1][:_PAIRS], "the lightest"


def _pairs(
    graph: SimilarityGraph,
    images: Any,
    labels: np.ndarray | None,
    class_names: Sequence[str] | None,
    edges: np.ndarray,
) -> str:
    sources = graph.sources()
    figure, axes = _figure(2, len(edges), figsize=(1.2 * len(edges), 3))
    for column, edge in enumerate(edges):
        for row, node in enumerate((int(sources[edge]), int(graph.indices[edge]))):
            axis = axes[row, column]
            image = np.asarray(images[node : node + 1])[0]
            axis.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray")
            axis.set(xticks=[], yticks=[])
            axis.set_xlabel(_class_of(node, labels, class_names)[:14], fontsize=7)
        axes[0, column].set_title(f"{graph.weights[edge]:.3f}", fontsize=8)
    return _png(figure)


def _class_of(node: int, labels: np.ndarray | None, class_names: Sequence[str] | None) -> str:
    if labels is None:
        return ""
    found = np.asarray(labels[node])
    numbers = [int(found)] if found.ndim == 0 else np.flatnonzero(found > 0).tolist()
    if not numbers or numbers[0] < 0 or (found.ndim and (found < 0).any()):
        return "unlabeled"
    return ", ".join(str(class_names[c]) if class_names is not None else str(c) for c in numbers)
