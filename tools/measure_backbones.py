"""Measures how fast backbones train here; writes docs/backbones_table.md and .json.

    python tools/measure_backbones.py                  # the smallest network of each family
    python tools/measure_backbones.py --only vit beit  # some families or networks
    python tools/measure_backbones.py --all            # every network: hours on 2 cores

Speeds are training steps (forward, backward, Adam) on random images at the network's smallest
size, compiled, relative to ResNet50, which every run measures first. Networks measured before
keep their lines, so that the table can be made in parts.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import os
import pathlib
import platform
import sys
import time
from importlib.metadata import version

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tfgraphreg.backbones.catalog import BACKBONES, smallest_networks  # noqa: E402
from tfgraphreg.benchmark.results import commit  # noqa: E402
from tfgraphreg.cli import exit_status  # noqa: E402
from tfgraphreg.errors import TFGraphRegError  # noqa: E402
from tfgraphreg.storage import write_json, write_text  # noqa: E402

BASELINE = "resnet50"


def images_per_second(name: str, *, batch: int, seconds: float) -> float:
    import numpy as np

    from tfgraphreg.backbones.build import build_backbone
    from tfgraphreg.compat import keras, tf

    side = BACKBONES.get(name).min_size
    keras.backend.clear_session()
    gc.collect()
    backbone = build_backbone(name, input_shape=(side, side, 3))
    logits = keras.layers.Dense(10)(backbone.output)
    model = keras.Model(backbone.input, logits)
    optimizer = keras.optimizers.Adam(BACKBONES.get(name).learning_rate)
    optimizer.build(model.trainable_weights)
    images = tf.constant(
        np.random.default_rng(0).uniform(0, 255, (batch, side, side, 3)), "float32"
    )
    labels = tf.range(batch) % 10

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels, model(images, training=True)
            )
        gradients = tape.gradient(losses, model.trainable_weights)
        optimizer.apply_gradients(zip(gradients, model.trainable_weights))

    step()  # traces and compiles
    step()
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < seconds or steps < 2:
        step()
        steps += 1
    return steps * batch / (time.perf_counter() - start)


def provenance(args: argparse.Namespace) -> dict[str, object]:
    return {
        "commit": commit() or "unknown",
        "date": str(datetime.date.today()),
        "tensorflow": version("tensorflow"),
        "python": platform.python_version(),
        "cpu_cores": os.cpu_count(),
        "batch": args.batch,
        "seconds": args.seconds,
        "load_before": os.getloadavg()[0],
    }


def page(measured: dict[str, dict], about: dict[str, object]) -> str:
    lines = [
        "# Backbones: sizes and speeds",
        "",
        "One network of each family; `tfgraphreg backbones` lists all. Parameters are trainable",
        "ones without a classifier, at the default size. The smallest size is in pixels a side;",
        "smaller images are enlarged inside the model. Speed is training images per second at the",
        f"smallest size, relative to `{BASELINE}` at {BACKBONES.get(BASELINE).min_size} pixels in",
        "the same run: below 1 is slower.",
        "",
        f"Made by `python tools/measure_backbones.py`, last on {about['date']} at commit "
        f"{about['commit']}: TensorFlow {about['tensorflow']}, Python {about['python']}, "
        f"{about['cpu_cores']} CPU cores, no GPU, float32, batch {about['batch']}, random images, "
        f"{about['seconds']:g} s each after two steps of warm-up, one run, so the second digit "
        "is noise.",
        "",
        "| family | variant | library | parameters | features | smallest | default "
        "| learning rate | images/s | relative |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name in sorted(measured, key=lambda n: (BACKBONES.get(n).family, n)):
        record, row = BACKBONES.get(name), measured[name]
        speed = row.get("error", "") + " |"
        if "images_per_second" in row:
            speed = f"{row['images_per_second']:.0f} | {row['relative']:.2f}"
        lines.append(
            f"| {record.family} | `{name}` | {record.library} | {record.parameters:,} "
            f"| {record.width} | {record.min_size} | {record.default_size} "
            f"| {record.learning_rate:g} | {speed} |"
        )
    papers = sorted({(BACKBONES.get(n).family, BACKBONES.get(n).paper) for n in measured})
    lines += ["", "## Papers", "", *(f"- {family}: {paper}" for family, paper in papers), ""]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", help="names of families or networks")
    parser.add_argument("--all", action="store_true", help="every network")
    parser.add_argument("--missing", action="store_true", help="only those not measured yet")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each network")
    parser.add_argument("--most", type=float, default=1e9, help="stop after so many seconds")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "docs" / "backbones_table")
    args = parser.parse_args()
    started = time.perf_counter()
    path = args.output.with_suffix(".json")
    measured = json.loads(path.read_text())["networks"] if path.exists() else {}
    chosen = args.only or (list(BACKBONES) if args.all else smallest_networks().values())
    names = [BACKBONES.get(name).name for name in chosen]
    if args.missing:
        names = [name for name in names if "images_per_second" not in measured.get(name, {})]
    about = provenance(args)
    base = None
    for name in [BASELINE, *(n for n in names if n != BASELINE)]:
        if time.perf_counter() - started > args.most:
            break
        row: dict[str, object] = {"commit": about["commit"], "date": about["date"]}
        try:
            row["images_per_second"] = images_per_second(
                name, batch=args.batch, seconds=args.seconds
            )
            base = base or row["images_per_second"]
            row["relative"] = row["images_per_second"] / base
            row["baseline_images_per_second"] = base
        except TFGraphRegError as error:
            row["error"] = str(error)
        except Exception as error:  # A network that fails must not end an hour of measuring.
            row["error"] = f"{type(error).__name__}"
        measured[name] = row
        print(name, row, flush=True)
        write_json(path, {"about": about, "networks": measured})
        write_text(args.output.with_suffix(".md"), page(measured, about))
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main, repeated="with --missing goes on"))
