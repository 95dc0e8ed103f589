"""The command about labels from the graph: propagate."""

from __future__ import annotations

import dataclasses
from typing import Any

from jsonargparse import ArgumentParser

from tfgraphreg.commands import show
from tfgraphreg.commands.flags import GRAPH_FIELDS, add_config, to_config
from tfgraphreg.commands.results import start_tensorflow
from tfgraphreg.config import TrainConfig
from tfgraphreg.errors import ConfigError, did_you_mean
from tfgraphreg.graph.settings import GraphSettings, kinds
from tfgraphreg.progress import Progress

CLASSIFY, SEGMENT = "classify", "segment"
LOCAL_WEIGHTS = "local_gaussian"
"""Edge weights that commands take which carry labels along edges."""
_GRAPH_DEFAULTS = {"graph_features": "auto", "graph_weights": LOCAL_WEIGHTS}

# Defaults where the parser's is None, so that a flag without effect for the task is noticed.
_OUT = {CLASSIFY: "labels.tsv", SEGMENT: "masks"}
_METHOD = {CLASSIFY: "spreading", SEGMENT: "laplace"}
# Flags that say what is kept of masks, and how images are divided.
_OF_MASKS = ("masks", "pixels_per_class", "superpixel_size")
# Of the flags of data and graph, those that act on masks; the others concern whole images.
_ON_MASKS = (
    "dataset",
    "data_dir",
    "limit",
    "validation_fraction",
    "on_bad_image",
    "cache_images",
    "drop",
    "graph_neighbors",
    "seed",
)

EXAMPLES = """
examples:
  tfgraphreg propagate --dataset folder:photos           photos/CLASS/... and photos/_unlabeled/...
  tfgraphreg propagate --dataset fashion_mnist --labels-per-class 10 --class-sizes equal
                                                         hide all labels but 10 a class, then count
                                                         how many come back
  tfgraphreg propagate --dataset digits --labels-per-class 1 --method poisson
  tfgraphreg propagate --dataset digits --labels-per-class 5 --method-settings alpha=0.9
  tfgraphreg propagate --dataset digits --labels-per-class 5 --graph graph/graph.npz
  tfgraphreg propagate --task segment --dataset "scenes?n=200" --pixels-per-class 1
                                                         masks from one pixel of each class in each
                                                         image; also --masks 10: only ten masks

the table, a row for each training image:
  id, label, probability   the image, its class and how likely that is against the other classes
  certainty                1 - entropy / log(classes): 1 for one sure class, 0 for all alike
  source                   the labeled image it came from: the nearest of that class along the edges
  given                    whether the label was given
  true                     the class, where it is known

of --task segment a folder: masks.npz (ids, names, masks, confidence, seeds), masks.png, masks.svg

--class-sizes is a prior: what you know of how many images belong to each class. Without any such
knowledge leave it out.
"""


def propagate_parser(parser: ArgumentParser) -> None:
    """Adds the flags of `propagate`."""
    from tfgraphreg.features.superpixels import SUPERPIXEL_SIZE
    from tfgraphreg.propagation import METHODS

    add_graph_flags(parser)
    words = "; ".join(f"{name}: {METHODS.get(name).summary}" for name in METHODS)
    group = parser.add_argument_group("propagation")
    group.add_argument(
        "--task",
        type=str,
        default=CLASSIFY,
        help="what is labeled: classify: whole images; segment: pixels, over superpixels",
    )
    group.add_argument(
        "--method",
        type=str,
        default=None,
        help=f"{words}. Default: spreading; of `--task segment` laplace",
    )
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
        "--out",
        type=str,
        default=None,
        help="file for the table, .tsv or .csv. Default: labels.tsv; of `--task segment` the "
        "folder masks",
    )
    group = parser.add_argument_group("masks: with --task segment")
    group.add_argument(
        "--masks", type=int, default=None, help="keep N masks, drawn at random. Default: all"
    )
    group.add_argument(
        "--pixels-per-class",
        type=int,
        default=None,
        help="keep N pixels of each class, and of the background, in each of these masks. "
        "Default: all",
    )
    group.add_argument(
        "--superpixel-size",
        type=int,
        default=None,
        help=f"pixels that a superpixel has at least. Default: {SUPERPIXEL_SIZE}",
    )


def propagate(args: Any, progress: Progress) -> int:
    """Runs `propagate` and returns its exit status."""
    _check_task(args)
    method = _METHOD[args.task] if args.method is None else args.method
    out = _OUT[args.task] if args.out is None else args.out
    config = graph_config(args)
    sizes, settings = _sizes(args.class_sizes), _settings(args.method_settings)
    from tfgraphreg.propagation import METHODS
    from tfgraphreg.recipes.propagate import propagate_labels
    from tfgraphreg.recipes.train import check_names

    # They become arguments, and must not be taken for others.
    METHODS.get(method).check_names(settings)
    check_names(config)
    start_tensorflow()
    if args.task == SEGMENT:
        from tfgraphreg.recipes.complete import propagate_masks

        own: dict[str, Any] = {name: getattr(args, name) for name in _OF_MASKS}
        own = {name: value for name, value in own.items() if value is not None}
        completed = propagate_masks(
            config, method=method, out=out, progress=progress, **own | settings
        )
        show.completed(completed)
        return 0
    labeling = propagate_labels(
        config,
        method=method,
        class_sizes=sizes,
        out=out,
        progress=progress,
        **settings,
    )
    show.propagated(labeling)
    return 0


def _check_task(args: Any) -> None:
    """Refuses an unknown task, and flags that have no effect for it.

    Raises:
        ConfigError: If there is one.
    """
    if args.task not in _OUT:
        raise ConfigError(
            f"`task` must be {CLASSIFY} or {SEGMENT}.",
            received=f"task={args.task}",
            cure=did_you_mean(args.task, tuple(_OUT)),
        )
    defaults: dict[str, Any] = dict.fromkeys(_OF_MASKS)
    if args.task == SEGMENT:
        known = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
        known |= {"class_sizes": None, **_GRAPH_DEFAULTS}
        names = ("class_sizes", *(name for name in GRAPH_FIELDS if name not in _ON_MASKS))
        defaults = {name: known[name] for name in names}
    other = SEGMENT if args.task == CLASSIFY else CLASSIFY
    for name, default in defaults.items():
        value = getattr(args, name)
        if value != default:
            raise ConfigError(
                f"`{name}` has an effect only with `task={other}`.",
                received=f"{name}={value}, task={args.task}",
                cure="Leave it out.",
            )


def add_graph_flags(parser: ArgumentParser) -> None:
    """Adds the flags of data and graph, with the defaults that carry labels farthest."""
    add_config(parser, GRAPH_FIELDS)
    parser.set_defaults(**_GRAPH_DEFAULTS)


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
