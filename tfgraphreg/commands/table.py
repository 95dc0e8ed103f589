"""The commands: for each its flags, its help, and the one call that it makes.

Nothing heavy is imported before a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from jsonargparse import ArgumentParser

from tfgraphreg.commands import curation, handover, labels, results, show
from tfgraphreg.commands.flags import GRAPH_FIELDS, add_config, to_config
from tfgraphreg.commands.results import start_tensorflow
from tfgraphreg.compat import share_cores
from tfgraphreg.errors import ConfigError, did_you_mean
from tfgraphreg.progress import Progress

_TRAIN_EXAMPLES = """
examples:
  tfgraphreg train --dataset fashion_mnist               the main job, on 60,000 images
  tfgraphreg train --dataset digits --epochs 2           a try without any network
  tfgraphreg train --alpha 0                             plain training, to compare with
  tfgraphreg train --neighbors paired --alpha 0.5        graph regularization at plain cost
  tfgraphreg train --labels-per-class 10 --alpha 1       few labels: the others stay in the graph
  tfgraphreg train --graph my_edges.tsv --distance euclidean  a graph of your own
  tfgraphreg train --backbone resnet50 --weights imagenet --image-size 64 --warmup-epochs 1 \\
           --backbone-learning-rate 0.1                  fine-tuning of a pretrained network
  tfgraphreg train --strategy multiworker                on each worker, with its own TF_CONFIG
  tfgraphreg train --print_config > run.yaml; tfgraphreg train --config run.yaml
"""

_GRAPH_EXAMPLES = """
examples:
  tfgraphreg build-graph --dataset fashion_mnist --out graph          in this process
  tfgraphreg build-graph --dataset folder:PHOTOS --engine dask --workers 4
  tfgraphreg build-graph --dataset folder:PHOTOS --engine dask --scheduler tcp://10.0.0.1:8786
  tfgraphreg train --dataset folder:PHOTOS --graph graph/graph.npz    trains with it
"""


def _train_parser(parser: ArgumentParser) -> None:
    add_config(parser)


def _train(args: Any, progress: Progress) -> int:
    config = to_config(args)
    from tfgraphreg.recipes.train import check_names, train

    check_names(config)
    if config.task == "segment":
        share_cores(2)  # A step has two halves.
    # To list devices would start TensorFlow before its workers are known.
    start_tensorflow(devices=config.strategy != "multiworker")

    run = train(config, progress=progress)
    if run.metrics:
        show.trained(run.name, run.metrics)
    return 0


def _graph_parser(parser: ArgumentParser) -> None:
    add_config(parser, GRAPH_FIELDS)
    parser.add_argument("--out", type=str, default="graph", help="folder for the results")
    parser.add_argument(
        "--engine",
        type=str,
        default="local",
        help="who computes features and neighbors: local (this process, in memory) or dask "
        "(worker processes that need not hold all images, extra scale)",
    )
    parser.add_argument(
        "--scheduler",
        type=str,
        default=None,
        help="address of a Dask cluster, such as tcp://10.0.0.1:8786, whose workers see --out and "
        "the cache at the same paths. Default: a cluster on this machine",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=None,
        help="processes of a cluster on this machine. Default: one a core",
    )
    parser.add_argument(
        "--worker-memory",
        type=str,
        default=None,
        help="memory of each of them, such as 2GB. Default: an equal share",
    )
    parser.add_argument(
        "--pack",
        type=int,
        default=None,
        help="with an engine: also pack each image with at most so many neighbors, for `train "
        "--graph OUT/graph.npz --neighbors packed --packer stream`",
    )
    parser.add_argument(
        "--parquet",
        action="store_true",
        help="also write the edges to OUT/graph.parquet, a folder of Parquet files (source, "
        "target, weight) for Spark, DuckDB or pandas, and for --graph",
    )


def _build_graph(args: Any, progress: Progress) -> int:
    config = to_config(args)
    check_engine_flags(args)
    from tfgraphreg.recipes.build_graph import build_graph
    from tfgraphreg.recipes.train import check_names

    check_names(config)
    start_tensorflow()
    if args.engine == "local":
        build_graph(config, args.out, parquet=args.parquet, progress=progress)
        return 0
    from tfgraphreg.recipes.shard_graph import check_engine
    from tfgraphreg.shards.dask_engine import dask_engine

    check_engine(config, pack=args.pack)
    with dask_engine(args.scheduler, workers=args.workers, memory=args.worker_memory) as engine:
        build_graph(
            config,
            args.out,
            engine=engine,
            pack=args.pack,
            parquet=args.parquet,
            progress=progress,
        )
    return 0


def _backbones_parser(parser: ArgumentParser) -> None:
    parser.add_argument("pattern", type=str, nargs="?", default="*", help='such as "res*" or vit')
    parser.add_argument(
        "--max-parameters",
        type=float,
        default=None,
        help="only networks up to this size, in millions",
    )


def _backbones(args: Any, progress: Progress) -> int:
    from tfgraphreg.backbones.catalog import backbone_table

    limit = args.max_parameters
    if limit is not None:
        if not 0 < limit < 1e9:
            raise ConfigError(
                "`max_parameters` must be a number of millions above 0.",
                received=f"max_parameters={limit}",
            )
        limit = int(limit * 1e6)
    show.backbones(backbone_table(args.pattern, max_parameters=limit))
    return 0


def _benchmark_parser(parser: ArgumentParser) -> None:
    from tfgraphreg.benchmark.results import NAMES

    parser.add_argument(
        "name", type=str, nargs="?", default="all", help=f"{', '.join(NAMES)}, or all"
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


def _benchmark(args: Any, progress: Progress) -> int:
    from tfgraphreg.benchmark.run import benchmark, check_arguments

    check_arguments(args.name, json_path=args.json, page=args.page)
    start_tensorflow()
    worse = benchmark(
        args.name,
        quick=args.quick,
        json_path=args.json,
        check=args.check,
        page=args.page,
        show=show.benchmarked,
        progress=progress,
    )
    for sentence in worse:
        show.say(f"worse: {sentence}")
    if args.check and not worse:
        show.say(f"No ratio is worse than in {args.check} by more than 15%.")
    return 1 if worse else 0


def check_engine_flags(args: Any) -> None:
    """Refuses flags of an engine that is not used.

    Raises:
        ConfigError: If there is one, or the engine is unknown.
    """
    if args.engine not in ("local", "dask"):
        raise ConfigError(
            "`--engine` must be local or dask.",
            received=f"engine={args.engine[:80]}",
            cure=did_you_mean(args.engine, ("local", "dask")),
        )
    for name in ("scheduler", "workers", "worker_memory", "pack"):
        if args.engine == "local" and getattr(args, name) is not None:
            raise ConfigError(
                f"`--{name.replace('_', '-')}` has an effect only with `--engine dask`.",
                received=f"{name}={getattr(args, name)}",
                cure="Leave it out.",
            )


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of the program.

    Attributes:
        help: What it does, in a sentence.
        add_arguments: Adds its flags to a parser.
        run: Does it with the parsed flags, reporting progress; returns the exit status.
        epilog: Examples that stand below the flags in its help.
        repeated: What the same command does when it is given again after Ctrl-C.
    """

    help: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Any, Progress], int]
    epilog: str = ""
    repeated: str = "begins anew"


COMMANDS = {
    "train": Command(
        "Trains, evaluates and exports a graph-regularized classifier.",
        _train_parser,
        _train,
        _TRAIN_EXAMPLES,
        "with --resume goes on",
    ),
    "build-graph": Command(
        "Builds a similarity graph; writes TSV, npz and a report with pictures.",
        _graph_parser,
        _build_graph,
        _GRAPH_EXAMPLES,
    ),
    "propagate": Command(
        "Labels unlabeled images from a few labeled ones, along the graph.",
        labels.propagate_parser,
        labels.propagate,
        labels.EXAMPLES,
    ),
    "suggest": Command(
        "Chooses images that are worth a label, and makes a page to label them on.",
        curation.suggest_parser,
        curation.suggest,
        curation.SUGGEST_EXAMPLES,
    ),
    "audit": Command(
        "Finds likely label errors, copies, leaks and odd images; a page with pictures.",
        curation.audit_parser,
        curation.audit,
        curation.AUDIT_EXAMPLES,
    ),
    "evaluate": Command(
        "Measures the exported model of a run in every way, and draws figures.",
        results.evaluate_parser,
        results.evaluate,
        results.EVALUATE_EXAMPLES,
    ),
    "embed": Command(
        "Draws a run's embedding in two or three dimensions (extra mde).",
        results.embed_parser,
        results.embed,
        results.EMBED_EXAMPLES,
    ),
    "search": Command(
        "Finds the images that a run's model holds nearest to image files.",
        results.search_parser,
        results.search,
        results.SEARCH_EXAMPLES,
    ),
    "export": Command(
        "Writes a run's model as TFLite or ONNX, and compares its answers.",
        handover.export_parser,
        handover.export,
        handover.EXPORT_EXAMPLES,
    ),
    "embeddings": Command(
        "Writes embeddings, labels, predictions and edges of a run as Parquet or npz.",
        handover.embeddings_parser,
        handover.embeddings,
        handover.EMBEDDINGS_EXAMPLES,
    ),
    "serve": Command(
        "Answers over HTTP on this machine, in TensorFlow Serving's form, with a page.",
        handover.serve_parser,
        handover.serve,
        handover.SERVE_EXAMPLES,
    ),
    "predict": Command(
        "Asks an exported model about image files: their classes, boxes or masks.",
        results.predict_parser,
        results.predict,
        results.PREDICT_EXAMPLES,
    ),
    "compare": Command(
        "Puts runs, or a sweep that it makes first, into one table and one page.",
        results.compare_parser,
        results.compare,
        results.COMPARE_EXAMPLES,
        "goes on where a sweep stopped",
    ),
    "benchmark": Command(
        "Measures speed beside NSL and beside plain training.", _benchmark_parser, _benchmark
    ),
    "backbones": Command(
        "Lists the networks that --backbone takes.", _backbones_parser, _backbones
    ),
}
