"""Measures masks completed over superpixels on test scenes; fills "Few masks" of docs/local.md.

python tools/measure_few_masks.py                        4 minutes on one core
python tools/measure_few_masks.py --scenes 20 --draws 1 --print

Compared are: the class of the nearest given pixel of the image; superpixels that touch, and no
other edges; the same with neighbors found in each image by itself; and `complete_masks`, which
finds them in all images.
"""

import argparse

import numpy as np
from run_lines import ROOT, machine
from scipy import ndimage

from tfgraphreg import complete_masks, load_dataset
from tfgraphreg.benchmark.results import commit, fill_measured
from tfgraphreg.data.local import BACKGROUND, IGNORED, names_of_masks
from tfgraphreg.evaluation.segmentation import segmentation_report
from tfgraphreg.recipes.complete import kept_pixels

PAGE = ROOT / "docs" / "local.md"
DATA = ("scenes:digits?n=1&test={}&size=96", "scenes:fashion?n=1&test={}&size=96")
GIVEN = {
    "1 pixel of each class in each image": {"masks": None, "pixels_per_class": 1},
    "5 pixels of each class in each image": {"masks": None, "pixels_per_class": 5},
    "one mask of ten, whole": {"masks": 0.1, "pixels_per_class": None},
}


def background(images, seeds, classes):
    return np.zeros_like(seeds)


def nearest_pixel(images, seeds, classes):
    masks = np.zeros_like(seeds)
    for mask, given in zip(masks, seeds):
        if (given != IGNORED).any():
            where = ndimage.distance_transform_edt(
                given == IGNORED, return_distances=False, return_indices=True
            )
            mask[:] = given[tuple(where)]
    return masks


def touching(images, seeds, classes):
    return complete_masks(images, seeds, classes, neighbors=0).masks


def each_by_itself(images, seeds, classes):
    masks = np.full_like(seeds, IGNORED)
    for place in range(len(images)):
        one = np.s_[place : place + 1]
        if (seeds[one] != IGNORED).any():
            masks[one] = complete_masks(images[one], seeds[one], classes).masks
    return masks


def all_together(images, seeds, classes):
    return complete_masks(images, seeds, classes).masks


WAYS = {
    "background everywhere": background,
    "nearest given pixel of the image": nearest_pixel,
    "touching superpixels": touching,
    "and neighbors in the same image": each_by_itself,
    "and neighbors in all images": all_together,
}


def numbers(split, names, seeds, masks):
    """Pixel accuracy and mean IoU of pixels that were not given; without a label: background."""
    free = (seeds == IGNORED) & (split.masks != IGNORED)
    masks = np.where(masks == IGNORED, BACKGROUND, masks)
    report = segmentation_report(split.masks[free], masks[free], names)
    return report["pixel_accuracy"], report["mean_iou"]


def table(name, scenes, draws):
    """The rows of one dataset: means over the draws of given pixels."""
    data = load_dataset(name)
    split, names = data.test, names_of_masks(data)
    lines = [
        f"`{name}`, the {scenes} test scenes; draws of given pixels: {draws}",
        "",
        "| given | labels from | pixel accuracy | mean IoU |",
        "| --- | --- | ---: | ---: |",
    ]
    for title, budget in GIVEN.items():
        masks = budget["masks"] and max(1, round(budget["masks"] * scenes))
        for way, complete in WAYS.items():
            found = []
            for seed in range(draws):
                seeds = kept_pixels(
                    split.masks, masks=masks, pixels_per_class=budget["pixels_per_class"], seed=seed
                )
                masks_found = complete(split.images, seeds, len(names))
                found.append(numbers(split, names, seeds, masks_found))
            accuracy, iou = np.mean(found, axis=0)
            lines.append(f"| {title} | {way} | {accuracy:.3f} | {iou:.3f} |")
            print(lines[-1], flush=True)
    return [*lines, ""]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--print", action="store_true", help="leave docs/local.md as it is")
    args = parser.parse_args()
    lines = []
    for name in DATA:
        lines += table(name.format(args.scenes), args.scenes, args.draws)
    lines.append(f"Measured by `tools/measure_few_masks.py` on {machine()}, commit {commit()}.")
    if not args.print:
        fill_measured(PAGE, lines, mark="few_masks")


if __name__ == "__main__":
    main()
