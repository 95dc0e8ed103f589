"""One self-contained HTML page about a graph, without scripts.

Shapes: N nodes, E edges, C classes.
"""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfgraphreg.errors import GraphError
from tfgraphreg.graph.diagnostics import diagnose, edge_agreement
from tfgraphreg.graph.similarity import SimilarityGraph
from tfgraphreg.storage import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PAIRS = 12
_PAIRS_A_ROW = 4
_COLOR = "#33658a"
_STYLE = """body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{margin-bottom:.2rem}h2{margin:2rem 0 .4rem;font-size:1.15rem}p{max-width:46rem}
table{border-collapse:collapse}
td,th{padding:.25rem 1rem .25rem 0;text-align:left;border-bottom:1px solid #ddd;font-weight:normal}
td{font-variant-numeric:tabular-nums}.note{color:#666;font-size:.9rem}
img{max-width:100%}.warning{background:#fde8e8;padding:.6rem 1rem}"""
# What the table calls a value of `diagnose`, and what it means.
_SHOWN = (
    ("nodes", "nodes", "images"),
    ("edges", "edges", "directed, from an image to a neighbor"),
    ("degree_mean", "neighbors of a node", None),
    ("isolated", "isolated nodes", "without any edge"),
    ("components", "components", None),
    ("hubness_skew", "hubness", None),
    ("weight_mean", "weight of an edge", None),
    ("edge_label_agreement", "edge label agreement", "edges that join images of one class"),
)


def write_report(
    graph: SimilarityGraph,
    images: Any,
    labels: np.ndarray | None,
    class_names: Sequence[str] | None,
    path: os.PathLike[str] | str,
) -> dict[str, Any]:
    """Writes a page with numbers, histograms, and the best and worst edges as pairs of images.

    Best are the heaviest edges; worst are the heaviest between different classes, or the lightest
    if there are no labels.

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
    parts.append(f'<p class="note">{html.escape(_how(facts["about"]))}</p>')
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


def _how(about: Mapping[str, Any]) -> str:
    """How the graph was made, in a line."""
    words = [
        f"{str(name).replace('_', ' ')}: {_number(value)}"
        for name, value in about.items()
        if name != "parts" and not (name == "recall" and value == 1)
    ]
    parts = [f"({_how(part)})" for part in about.get("parts", ())]
    return ", ".join(words + parts)


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _table(facts: dict[str, Any]) -> str:
    notes = {
        "degree_mean": f"on average; {facts['degree_min']:,} to {facts['degree_max']:,}",
        "components": f"the largest has {facts['largest_component']:,} nodes",
        "hubness_skew": f"skewness of how often a node is chosen; most often: "
        f"{facts['largest_hub']:,} times",
    }
    if facts["weight_mean"] is not None:
        low, high = facts["weight_min"], facts["weight_max"]
        notes["weight_mean"] = f"on average; {low:.3g} to {high:.3g}"
    rows = []
    for name, label, note in _SHOWN:
        value = facts.get(name)
        if value is None:
            continue
        text = f"{value:.2%}" if name == "edge_label_agreement" else _number(value)
        note = html.escape(notes.get(name) or note or "")
        rows.append(f'<tr><th>{label}</th><td>{text}</td><td class="note">{note}</td></tr>')
    return f"<table>{''.join(rows)}</table>"


def _section(title: str, picture: str) -> str:
    name = html.escape(title)
    return f'<h2>{name}</h2><img alt="{name}" src="data:image/png;base64,{picture}">'


def _png(figure: Figure) -> str:
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
    kinds = (("neighbors", graph.degrees()), ("times chosen as a neighbor", graph.in_degrees()))
    for axis, (name, values) in zip(axes[0], kinds):
        most = int(values.max(initial=0))
        # Whole numbers in the middle of their bars, few enough bars to see.
        step = most // 50 + 1
        axis.hist(values, bins=np.arange(-0.5, most + step + 0.5, step), color=_COLOR)
        axis.set(xlabel=name, ylabel="images", yscale="symlog", xlim=(-0.5 - step, most + step))
        axis.xaxis.get_major_locator().set_params(integer=True)
        _plain(axis)
    figure.tight_layout()
    return _png(figure)


def _bars(values: Sequence[float | None], names: Sequence[str]) -> str:
    height = max(2.0, 0.3 * len(values))
    figure, axes = _figure(1, 1, figsize=(8, height))
    axis = axes[0, 0]
    axis.barh(range(len(names)), [v or 0 for v in values], color=_COLOR)
    for place, value in enumerate(values):
        text = "no edges" if value is None else f"{value:.1%}"
        share = value or 0.0
        inside = share > 0.5
        where, align = (share - 0.01, "right") if inside else (share + 0.01, "left")
        color = "white" if inside else "#222"
        axis.text(where, place, text, va="center", ha=align, color=color, fontsize=9)
    axis.set(xlim=(0, 1), xlabel="share of edges within the class")
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    _plain(axis)
    return _png(figure)


def _plain(axis: Any) -> None:
    axis.spines[["top", "right"]].set_visible(False)


def _chosen_edges(
    graph: SimilarityGraph, labels: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, str]:
    """Numbers of the best and the worst edges, and a phrase for what the worst ones are."""
    sources = graph.sources()
    order = np.argsort(-graph.weights, kind="stable")
    # Of an edge in both directions only one is shown.
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
    """Two images side by side for every edge, with its weight above and its classes below."""
    sources = graph.sources()
    rows = -(-len(edges) // _PAIRS_A_ROW)
    # Two images and a narrow gap for every pair.
    shares = {"width_ratios": [1, 1, 0.3] * _PAIRS_A_ROW}
    size = (10, 1.6 * rows + 0.2)
    figure, axes = _figure(rows, 3 * _PAIRS_A_ROW, figsize=size, gridspec_kw=shares)
    for axis in axes.flat:
        axis.set_axis_off()
    for place, edge in enumerate(edges):
        row, column = divmod(place, _PAIRS_A_ROW)
        nodes = (int(sources[edge]), int(graph.indices[edge]))
        for side, node in enumerate(nodes):
            axis = axes[row, 3 * column + side]
            image = np.asarray(images[node : node + 1])[0]
            axis.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray")
            name = _class_of(node, labels, class_names)
            short = name if len(name) <= 13 else name[:12] + "\u2026"
            axis.text(
                0.5, -0.06, short, transform=axis.transAxes, ha="center", va="top", fontsize=7
            )
        axes[row, 3 * column].set_title(f"weight {graph.weights[edge]:.4f}", fontsize=8, loc="left")
    figure.subplots_adjust(wspace=0.05, hspace=0.35)
    return _png(figure)


def _class_of(node: int, labels: np.ndarray | None, class_names: Sequence[str] | None) -> str:
    if labels is None:
        return ""
    found = np.asarray(labels[node])
    numbers = [int(found)] if found.ndim == 0 else np.flatnonzero(found > 0).tolist()
    if not numbers or numbers[0] < 0 or (found.ndim and (found < 0).any()):
        return "unlabeled"
    return ", ".join(str(class_names[c]) if class_names is not None else str(c) for c in numbers)
