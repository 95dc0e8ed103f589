"""Measures how fast each backbone trains here and writes docs/backbones.md.

    python scripts/measure_backbones.py                 # every network: some hours on 2 cores
    python scripts/measure_backbones.py --quick         # the smallest of each family
    python scripts/measure_backbones.py --only 'vit*'   # some; prints, writes only with --output

Speeds are training steps (forward, backward, Adam) on random images at the network's smallest
size, compiled, relative to ResNet50 in the same run.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import os
import pathlib
import platform
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tfgraphreg.backbones.catalog import BACKBONES, list_backbones  # noqa: E402
from tfgraphreg.errors import TFGraphRegError  # noqa: E402
from tfgraphreg.storage import write_text  # noqa: E402

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

    step()
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < seconds or steps < 2:
        step()
        steps += 1
    return steps * batch / (time.perf_counter() - start)


def smallest_of_each_family() -> list[str]:
    best: dict[str, str] = {}
    for name in sorted(BACKBONES, key=lambda name: BACKBONES.get(name).parameters):
        best.setdefault(BACKBONES.get(name).family, name)
    return list(best.values())


def measure(names: list[str], *, batch: int, seconds: float) -> dict[str, float | str]:
    from rich.progress import track

    speeds: dict[str, float | str] = {}
    for name in track([BASELINE, *(n for n in names if n != BASELINE)], "Measuring"):
        try:
            speeds[name] = images_per_second(name, batch=batch, seconds=seconds)
        except TFGraphRegError as error:
            speeds[name] = str(error)
        except Exception as error:  # A network that fails must not end hours of measuring.
            speeds[name] = f"failed: {type(error).__name__}"
        print(name, speeds[name], flush=True)
    return speeds


def page(names: list[str], speeds: dict[str, float | str], args: argparse.Namespace) -> str:
    import tensorflow as tf

    base = float(speeds[BASELINE])
    lines = [
        "# Backbones",
        "",
        "Every name can be given to `--backbone`. Parameters are trainable ones without a",
        "classifier, at the default size. The smallest size is in pixels a side; smaller images",
        "are enlarged inside the model. Speed is training images per second at the smallest size,",
        f"relative to `{BASELINE}` at {BACKBONES.get(BASELINE).min_size} pixels in the same run",
        f"({base:.0f} images/s).",
        "",
        f"Made by `python scripts/measure_backbones.py` on {datetime.date.today()}: TensorFlow "
        f"{tf.__version__}, Python {platform.python_version()}, {os.cpu_count()} CPU cores, batch "
        f"{args.batch}, {args.seconds:g} s each, one run.",
        "",
        "| family | variant | library | parameters | features | smallest | default "
        "| learning rate | speed |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name in sorted(names, key=lambda n: (BACKBONES.get(n).family, BACKBONES.get(n).parameters)):
        record, speed = BACKBONES.get(name), speeds[name]
        shown = f"{speed / base:.2f}" if isinstance(speed, float) else speed
        lines.append(
            f"| {record.family} | `{name}` | {record.library} | {record.parameters:,} "
            f"| {record.width} | {record.min_size} | {record.default_size} "
            f"| {record.learning_rate:g} | {shown} |"
        )
    papers = sorted({(BACKBONES.get(n).family, BACKBONES.get(n).paper) for n in names})
    lines += ["", "## Papers", "", *(f"- {family}: {paper}" for family, paper in papers), ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help="a pattern or a text that the names must match")
    parser.add_argument("--quick", action="store_true", help="the smallest of each family")
    parser.add_argument("--max-parameters", type=int, help="leave out larger networks")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each network")
    parser.add_argument("--output", type=pathlib.Path, help="default: docs/backbones.md")
    args = parser.parse_args()
    names = list_backbones(args.only or "*", max_parameters=args.max_parameters)
    if args.quick:
        names = [name for name in smallest_of_each_family() if name in names]
    text = page(names, measure(names, batch=args.batch, seconds=args.seconds), args)
    partial = args.only or args.quick or args.max_parameters
    if partial and args.output is None:
        print(text)
    else:
        write_text(args.output or ROOT / "docs" / "backbones.md", text)


if __name__ == "__main__":
    main()
