"""The command about labels from the graph: propagate."""

from __future__ import annotations

from typing import Any

from jsonargparse import ArgumentParser

from tfgraphreg.commands import show
from tfgraphreg.commands.flags import GRAPH_FIELDS, add_config, to_config
from tfgraphreg.commands.results import start_tensorflow
from tfgraphreg.config import TrainConfig
from tfgraphreg.errors import ConfigError
from tfgraphreg.graph.settings import GraphSettings, kinds
from tfgraphreg.progress import Progress

LOCAL_WEIGHTS = "local_gaussian"
"""Edge weights that commands take which carry labels along edges."""

EXAMPLES = """
examples:
  tfgraphreg propagate --dataset folder:photos           photos/CLASS/... and photos/_unlabeled/...
  tfgraphreg propagate --dataset fashion_mnist --labels-per-class 10 --class-sizes equal
                                                         hide all labels but 10 a class, then count
                                                         how many come back
  tfgraphreg propagate --dataset digits --labels-per-class 1 --method poisson
  tfgraphreg propagate --dataset digits --labels-per-class 5 --method-settings alpha=0.9
  tfgraphreg propagate --dataset digits --labels-per-class 5 --graph graph/graph.npz

the table, a row for each training image:
  id, label, probability   the image, its class and how likely that is against the other classes
  certainty                1 - entropy / log(classes): 1 for one sure class, 0 for all alike
  source                   the labeled image it came from: the nearest of that class along the edges
  given                    whether the label was given
  true                     the class, where it is known

--class-sizes is a prior: what you know of how many images belong to each class. Without any such
knowledge leave it out.
"""


def propagate_parser(parser: ArgumentParser) -> None:
    """Adds the flags of `propagate`."""
    from tfgraphreg.propagation import METHODS

    add_graph_flags(parser)
    words = "; ".join(f"{name}: {METHODS.get(name).summary}" for name in METHODS)
    group = parser.add_argument_group("propagation")
    group.add_argument("--method", type=str, default="spreading", help=words)
    group.add_argument(
        "--class-sizes",
        type=str,
        default=None,
        help="prior: equal, labeled (shares among the labeled images), or numbers with commas "
        "between, in the order of the classes. Default: unknown",
    )
    group.add_argument(
        "--method-settings",
        type=str,
        nargs="*",
        default=[],
        metavar="NAME=NUMBER",
        help="settings of the method: alpha=0.99 of spreading; rounds=20 steps=40 fidelity=1 of "
        "poisson-mbo",
    )
    group.add_argument(
        "--out", type=str, default="labels.tsv", help="file for the table, .tsv or .csv"
    )


def propagate(args: Any, progress: Progress) -> int:
    """Runs `propagate` and returns its exit status."""
    config = graph_config(args)
    sizes, settings = _sizes(args.class_sizes), _settings(args.method_settings)
    from tfgraphreg.propagation import METHODS
    from tfgraphreg.recipes.propagate import propagate_labels
    from tfgraphreg.recipes.train import check_names

    METHODS.get(args.method)
    check_names(config)
    start_tensorflow()
    labeling = propagate_labels(
        config,
        method=args.method,
        class_sizes=sizes,
        out=args.out,
        progress=progress,
        **settings,
    )
    show.propagated(labeling)
    return 0


def add_graph_flags(parser: ArgumentParser) -> None:
    """Adds the flags of data and graph, with the defaults that carry labels farthest."""
    add_config(parser, GRAPH_FIELDS)
    parser.set_defaults(graph_features="auto", graph_weights=LOCAL_WEIGHTS)


def graph_config(args: Any) -> TrainConfig:
    """The config of these flags; a file of edges has its own weights and not the default's."""
    if not kinds(args) and args.graph_weights == LOCAL_WEIGHTS:
        args.graph_weights = GraphSettings.graph_weights
    return to_config(args, GRAPH_FIELDS)


def _sizes(text: str | None) -> str | list[float] | None:
    if text is None or "," not in text:
        return text
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            "`class_sizes` must be equal, labeled, or numbers with commas between.",
            received=f"class_sizes={text}",
        ) from None


def _settings(pairs: list[str]) -> dict[str, float]:
    found = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        try:
            number = float(text)
        except ValueError:
            raise ConfigError(
                "`method_settings` must be pairs NAME=NUMBER.", received=pair, cure="Try alpha=0.9."
            ) from None
        found[name] = int(number) if number.is_integer() else number
    return found
