"""Sends a generated folder of JPEGs through graph building and packing; measures peak memory.

python tools/measure_large_folder.py --work /tmp/large [--images 100000] [--side 64]
"""

import argparse
import dataclasses
import os
import pathlib
import platform
import resource
import sys
import time

import numpy as np
from PIL import Image

CLASSES = 10


def generate(folder, count, side):
    """`count` different JPEGs in ten class folders: a color a class, a random pattern an image."""
    rng = np.random.default_rng(0)
    for number in range(CLASSES):
        (folder / f"class_{number}").mkdir(parents=True, exist_ok=True)
    for i in range(count):
        path = folder / f"class_{i % CLASSES}" / f"{i:06d}.jpg"
        color = np.array([i % CLASSES * 25, 255 - i % CLASSES * 25, i % CLASSES % 3 * 100])
        small = rng.normal(color, 60, (8, 8, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(path)
        if (i + 1) % 20_000 == 0:
            print(f"generated {i + 1} of {count}", flush=True)


def peak_megabytes():
    """Largest memory of this process or of one that it started, so far."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(w).ru_maxrss for w in who) / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder for everything")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--cache-images", action="store_true")
    options = parser.parse_args()
    folder = options.work / f"images-{options.images}-{options.side}"
    if not folder.exists():
        # In a process of its own, so that its memory is not counted.
        pid = os.fork()
        if pid == 0:
            generate(folder, options.images, options.side)
            os._exit(0)
        os.waitpid(pid, 0)
    os.environ["TFGRAPHREG_CACHE"] = str(options.work / f"cache-{os.getpid()}")

    from tfgraphreg import __version__, compat
    from tfgraphreg.config import TrainConfig

    compat.prepare_environment()
    compat.load_nsl()
    from tfgraphreg.commands.terminal import attached
    from tfgraphreg.recipes.batches import batch_source
    from tfgraphreg.recipes.material import prepare

    config = TrainConfig(dataset=f"folder:{folder}", epochs=1, cache_images=options.cache_images)
    print(f"TensorFlow and all imports: {peak_megabytes():.0f} MB")
    start = time.perf_counter()
    with attached() as progress:
        material = prepare(config, progress)
    print(f"data and graph: {time.perf_counter() - start:.0f} s, {peak_megabytes():.0f} MB")
    start = time.perf_counter()
    batches = batch_source(config, material.dataset, material.graph)(0)
    print(f"packing: {time.perf_counter() - start:.0f} s, {peak_megabytes():.0f} MB")
    start = time.perf_counter()
    seen = sum(len(labels) for _, labels in batches)
    print(f"an epoch of {seen} images with neighbors: {time.perf_counter() - start:.0f} s")
    images = material.dataset.train.images
    print(
        f"peak memory {peak_megabytes() / 1024:.2f} GB; {options.images} JPEGs, of them "
        f"{len(images)} for training, {np.prod(images.shape) / 2**30:.2f} GB decoded; settings: "
        f"{dataclasses.asdict(config)['graph_features']} features, "
        f"{config.graph_neighbors} neighbors, packer {config.packer}; {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, tfgraphreg {__version__}"
    )


if __name__ == "__main__":
    sys.exit(main())
