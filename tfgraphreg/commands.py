"""The commands: for each its flags, its help, and the one call that it makes.

Nothing heavy is imported before a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Sequence
from typing import Any

from jsonargparse import ArgumentParser

from tfgraphreg import compat
from tfgraphreg import config as configs
from tfgraphreg.config import TrainConfig
from tfgraphreg.errors import ConfigError

# The first field of each group of flags in --help.
_GROUPS = {
    "dataset": "data",
    "backbone": "network",
    "alpha": "graph regularization",
    "objective": "training",
    "run_dir": "run",
}
_GRAPH_FIELDS = (
    "dataset",
    "data_dir",
    "limit",
    "labels_per_class",
    "validation_fraction",
    "on_bad_image",
    "cache_images",
    "image_size",
    "graph",
    "graph_features",
    "graph_metric",
    "graph_neighbors",
    "graph_weights",
    "graph_threshold",
    "symmetrize",
    "edge_kinds",
    "seed",
)

_TRAIN_EXAMPLES = """
examples:
  train.py --dataset fashion_mnist                       the main job, on 60,000 images
  train.py --dataset digits --epochs 2                   a try without any network
  train.py --alpha 0                                     plain training, to compare with
  train.py --neighbors paired --alpha 0.5                graph regularization at plain cost
  train.py --labels-per-class 10 --alpha 1               few labels: where a graph helps most
  train.py --graph my_edges.tsv --distance euclidean     a graph of your own
  train.py --print_config > run.yaml; train.py --config run.yaml
"""

_EVALUATE_EXAMPLES = """
examples:
  evaluate.py --run runs/NAME                            all numbers and figures
  evaluate.py --run runs/NAME --probes                   also what simple classifiers read off it
  evaluate.py --run runs/NAME --within all               each image among all the others
  evaluate.py --run runs/NAME --distance euclidean       search by another distance
"""

_EMBED_EXAMPLES = """
examples:
  embed.py --run runs/NAME                               test images, beside their raw pixels
  embed.py --run runs/NAME --dim 3                       to turn in report.html
  embed.py --run runs/NAME --source graph                the training graph itself
  embed.py --run runs/NAME --onto-train                  where test images fall among training ones
"""

_SEARCH_EXAMPLES = """
examples:
  search.py --run runs/NAME shoe.png bag.jpg             the five nearest training images of each
  search.py --run runs/NAME --add mine/1.png mine/2.png  more images, without building anew
  search.py --run runs/NAME --method hnsw shoe.png       approximate, with its measured recall
"""

_COMPARE_EXAMPLES = """
examples:
  compare.py runs/one runs/two                           these runs
  compare.py runs --out comparison                       all runs in a folder
  compare.py --sweep sweep.yaml                          make a grid of runs, then compare them

sweep.yaml, a value or a list for each flag of train.py; the same command goes on after a stop:
  out: runs/digits
  dataset: digits
  epochs: 1
  alpha: [0, 0.1]
  distance: [cosine, euclidean]
  seed: [0, 1, 2]
"""


def _add_config(parser: ArgumentParser, fields: Sequence[str] | None = None) -> None:
    hints = typing.get_type_hints(TrainConfig)
    group: Any = parser
    for field in dataclasses.fields(TrainConfig):
        if field.name in _GROUPS:
            group = parser.add_argument_group(_GROUPS[field.name])
        if fields is not None and field.name not in fields:
            continue
        text = field.metadata["help"]
        choices = field.metadata["choices"]
        if choices:
            text += f" ({', '.join(choices)})"
        if hints[field.name] is bool:
            group.add_argument(configs.flag(field.name), action="store_true", help=text)
        else:
            group.add_argument(
                configs.flag(field.name),
                type=hints[field.name],
                default=field.default,
                metavar=field.name.upper(),
                help=text,
            )


def _start_tensorflow() -> None:
    with compat.quiet_start():
        compat.load_nsl()
        compat.tf.config.list_logical_devices()


def _to_config(args: Any) -> TrainConfig:
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    return TrainConfig(**{k: v for k, v in vars(args).items() if k in names})


def _train_parser(parser: ArgumentParser) -> None:
    parser.add_argument("--config", action="config", help="YAML file with values for these flags")
    _add_config(parser)


def _train(args: Any) -> int:
    config = _to_config(args)
    from tfgraphreg.pipeline.train import check_names, train

    check_names(config)
    _start_tensorflow()

    train(config)
    return 0


def _graph_parser(parser: ArgumentParser) -> None:
    parser.add_argument("--config", action="config", help="YAML file with values for these flags")
    parser.add_argument("--out", type=str, default="graph", help="folder for the results")
    _add_config(parser, _GRAPH_FIELDS)


def _build_graph(args: Any) -> int:
    config = _to_config(args)
    from tfgraphreg.pipeline.build_graph import build_graph
    from tfgraphreg.pipeline.train import check_names

    check_names(config)
    _start_tensorflow()

    build_graph(config, args.out)
    return 0


def _evaluate_parser(parser: ArgumentParser) -> None:
    _add_run(parser)
    parser.add_argument(
        "--distance",
        type=str,
        default=None,
        help="distance by which the embedding is searched. Default: the run's",
    )
    parser.add_argument(
        "--within",
        type=str,
        default=None,
        help="also search every image among the others of: train, test, all",
    )
    parser.add_argument(
        "--probes",
        action="store_true",
        help="also train simple classifiers on the frozen embedding, three seeds each",
    )
    parser.add_argument("--no-figures", action="store_true", help="numbers only")


def _add_run(parser: ArgumentParser) -> None:
    parser.add_argument("--run", type=str, required=True, help="run folder, such as runs/NAME")


def _evaluate(args: Any) -> int:
    from tfgraphreg.distances import DISTANCES
    from tfgraphreg.pipeline.runs import read_run

    if args.distance is not None:
        DISTANCES.get(args.distance)
    run = read_run(args.run)
    _start_tensorflow()
    from tfgraphreg.pipeline.evaluate import evaluate_run

    evaluate_run(
        run,
        distance=args.distance,
        within=args.within,
        probes=args.probes,
        figures=not args.no_figures,
    )
    return 0


def _embed_parser(parser: ArgumentParser) -> None:
    _add_run(parser)
    parser.add_argument("--dim", type=int, default=2, help="dimensions of the picture: 2 or 3")
    parser.add_argument(
        "--variant",
        type=str,
        default="neighbors",
        help="kind of minimum-distortion embedding: neighbors, standardized, quadratic",
    )
    parser.add_argument(
        "--source",
        type=str,
        default="embedding",
        help="what is drawn: the neighbors in the embedding (beside those of raw pixels), or the "
        "run's training graph",
    )
    parser.add_argument("--split", type=str, default="test", help="images drawn: test or train")
    parser.add_argument("--limit", type=int, default=10_000, help="at most N images, by chance")
    parser.add_argument(
        "--onto-train",
        action="store_true",
        help="place test images among training images that stay where they are",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of choice and picture")


def _embed(args: Any) -> int:
    from tfgraphreg.pipeline.embed import EmbedOptions, embed_run
    from tfgraphreg.pipeline.runs import read_run

    names = [field.name for field in dataclasses.fields(EmbedOptions)]
    options = EmbedOptions(**{name: getattr(args, name) for name in names})
    run = read_run(args.run)
    _start_tensorflow()
    embed_run(run, options)
    return 0


def _search_parser(parser: ArgumentParser) -> None:
    parser.add_argument("images", type=str, nargs="*", help="JPEG or PNG files to search with")
    _add_run(parser)
    parser.add_argument("--k", type=int, default=5, help="images found for each query")
    parser.add_argument(
        "--method", type=str, default=None, help="exact (default), or hnsw: fast, approximate"
    )
    parser.add_argument("--distance", type=str, default=None, help="cosine or euclidean")
    parser.add_argument(
        "--add", type=str, nargs="+", default=[], help="image files to add to the index first"
    )
    parser.add_argument("--rebuild", action="store_true", help="build the index again")


def _search(args: Any) -> int:
    from tfgraphreg.pipeline.runs import read_run

    run = read_run(args.run)
    _start_tensorflow()
    from tfgraphreg.pipeline.find import search_run

    problems = search_run(
        run,
        args.images,
        k=args.k,
        method=args.method,
        distance=args.distance,
        add=args.add,
        rebuild=args.rebuild,
    )
    return 2 if problems else 0


def _predict_parser(parser: ArgumentParser) -> None:
    parser.add_argument("images", type=str, nargs="+", help="JPEG or PNG files")
    parser.add_argument("--run", type=str, default=None, help="run folder whose model is asked")
    parser.add_argument(
        "--model", type=str, default=None, help="SavedModel folder. Default: the newest"
    )
    parser.add_argument("--top", type=int, default=3, help="classes shown for an image")


def _predict(args: Any) -> int:
    if args.top < 1:
        raise ConfigError("`--top` must be at least 1.", received=f"top={args.top}")
    _start_tensorflow()
    from tfgraphreg.pipeline.serve import predict

    found = predict(args.images, run_dir=args.run, model_dir=args.model, top=args.top)
    return 2 if any(p.error for p in found) else 0


def _backbones_parser(parser: ArgumentParser) -> None:
    parser.add_argument("pattern", type=str, nargs="?", default="*", help='such as "res*" or vit')
    parser.add_argument(
        "--max-parameters",
        type=float,
        default=None,
        help="only networks up to this size, in millions",
    )


def _backbones(args: Any) -> int:
    from rich.console import Console
    from rich.table import Table

    from tfgraphreg.backbones.catalog import backbone_table

    limit = None if args.max_parameters is None else int(args.max_parameters * 1e6)
    rows = backbone_table(args.pattern, max_parameters=limit)
    shown = (
        "name",
        "family",
        "library",
        "parameters",
        "width",
        "min_size",
        "default_size",
        "learning_rate",
        "paper",
    )
    table = Table(title=f"{len(rows)} backbones")
    for name in shown:
        table.add_column(name.replace("_", " "), justify="right" if name in shown[3:8] else "left")
    for row in rows:
        table.add_row(*(f"{row[n]:,}" if n == "parameters" else str(row[n]) for n in shown))
    console = Console()
    if not console.is_terminal:
        console = Console(width=180)
    console.print(table)
    return 0


def _compare_parser(parser: ArgumentParser) -> None:
    parser.add_argument("runs", type=str, nargs="*", help="run folders, or folders of them")
    parser.add_argument("--sweep", type=str, default=None, help="YAML file: a grid of runs to make")
    parser.add_argument(
        "--out",
        type=str,
        default=None,
        help="folder for table.csv, table.md and report.html. Default: the sweep's, or comparison",
    )


def _compare(args: Any) -> int:
    from tfgraphreg.pipeline.page import compare_runs

    return 2 if compare_runs(args.runs, sweep=args.sweep, out=args.out).problems else 0


def _benchmark_parser(parser: ArgumentParser) -> None:
    parser.add_argument(
        "name",
        type=str,
        nargs="?",
        default="all",
        help="graph, packing, epoch, step, inference, startup, quality, or all",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, under three minutes")
    parser.add_argument("--json", type=str, default=None, help="file to merge the results into")
    parser.add_argument(
        "--check",
        type=str,
        default=None,
        help="file of stored results; fails if a ratio is worse by more than 15%",
    )
    parser.add_argument(
        "--page", type=str, default=None, help="Markdown page to make from the --json file"
    )


def _benchmark(args: Any) -> int:
    from tfgraphreg.benchmark.run import benchmark, check_arguments

    check_arguments(args.name, json_path=args.json, page=args.page)
    _start_tensorflow()
    worse = benchmark(
        args.name, quick=args.quick, json_path=args.json, check=args.check, page=args.page
    )
    for sentence in worse:
        print(f"worse: {sentence}")
    if args.check and not worse:
        print(f"No ratio is worse than in {args.check} by more than 15%.")
    return 1 if worse else 0


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of the program."""

    help: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Any], int]
    epilog: str = ""


COMMANDS = {
    "train": Command(
        "Trains, evaluates and exports a graph-regularized classifier.",
        _train_parser,
        _train,
        _TRAIN_EXAMPLES,
    ),
    "build-graph": Command(
        "Builds a similarity graph; writes TSV, npz and a report with pictures.",
        _graph_parser,
        _build_graph,
    ),
    "evaluate": Command(
        "Measures the exported model of a run in every way, and draws figures.",
        _evaluate_parser,
        _evaluate,
        _EVALUATE_EXAMPLES,
    ),
    "embed": Command(
        "Draws a run's embedding in two or three dimensions (extra mde).",
        _embed_parser,
        _embed,
        _EMBED_EXAMPLES,
    ),
    "search": Command(
        "Finds the images that a run's model holds nearest to image files.",
        _search_parser,
        _search,
        _SEARCH_EXAMPLES,
    ),
    "predict": Command("Classifies image files with an exported model.", _predict_parser, _predict),
    "compare": Command(
        "Puts runs, or a sweep that it makes first, into one table and one page.",
        _compare_parser,
        _compare,
        _COMPARE_EXAMPLES,
    ),
    "benchmark": Command(
        "Measures speed beside NSL and beside plain training.", _benchmark_parser, _benchmark
    ),
    "backbones": Command(
        "Lists the networks that --backbone takes.", _backbones_parser, _backbones
    ),
}
