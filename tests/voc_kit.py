"""A VOCdevkit of ten images, drawn here: ids, sizes, objects and masks with every oddity."""

import numpy as np
from PIL import Image, ImageDraw

SIZE = (120, 80)  # width, height
# Of each image: class, box as in the files (pixels from 1, both ends inside), flags.
OBJECTS = {
    f"2008_00000{i}": [
        ("person", (11 + i, 11, 50 + i, 70), {}),
        ("car", (61, 21, 110, 60), {"truncated": 1}),
    ]
    for i in range(8)
}
OBJECTS["2008_000008"] = [("person", (1, 1, 120, 80), {"difficult": 1, "occluded": 1})]
OBJECTS["2008_000009"] = []
TRAIN, VAL = list(OBJECTS)[:6], list(OBJECTS)[6:]
COLORS = {"person": (230, 60, 40), "car": (40, 80, 220)}
NUMBERS = {"person": 15, "car": 7}


def annotation(name, objects, *, size=SIZE):
    """The XML of an image, as the kit writes it."""
    parts = [
        f"<annotation>\n<folder>VOC2012</folder>\n<filename>{name}.jpg</filename>\n<size>\n"
        f"<width>{size[0]}</width>\n<height>{size[1]}</height>\n<depth>3</depth>\n</size>\n"
    ]
    for kind, box, flags in objects:
        corners = "".join(
            f"<{n}>{v}</{n}>\n" for n, v in zip(("xmin", "ymin", "xmax", "ymax"), box)
        )
        marks = "".join(f"<{n}>{v}</{n}>\n" for n, v in flags.items())
        head = "<part>\n<name>head</name>\n<bndbox>\n" + corners + "</bndbox>\n</part>\n"
        parts.append(
            f"<object>\n<name>{kind}</name>\n<pose>Left</pose>\n{marks}<bndbox>\n{corners}"
            f"</bndbox>\n{head if kind == 'person' else ''}</object>\n"
        )
    return "".join([*parts, "</annotation>\n"])


def draw(root, *, seed=0):
    """Writes the kit below `root`, and gives the folder of its year."""
    year = root / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "Annotations", "SegmentationClass"):
        (year / folder).mkdir(parents=True)
    for folder, lists in (
        ("Main", {"train": TRAIN, "val": VAL}),
        ("Segmentation", {"train": TRAIN[:4], "val": VAL[:2]}),
    ):
        (year / "ImageSets" / folder).mkdir(parents=True)
        for name, ids in lists.items():
            (year / "ImageSets" / folder / f"{name}.txt").write_text("\n".join(ids) + "\n")
    rng = np.random.default_rng(seed)
    palette = [value for i in range(256) for value in (i, (i * 7) % 256, (i * 31) % 256)]
    for name, objects in OBJECTS.items():
        noise = rng.integers(90, 160, (SIZE[1], SIZE[0], 3)).astype(np.uint8)
        image, mask = Image.fromarray(noise), Image.new("P", SIZE)
        mask.putpalette(palette)
        for kind, (x0, y0, x1, y1), _ in objects:
            inside = (x0 - 1, y0 - 1, x1 - 1, y1 - 1)
            ImageDraw.Draw(image).rectangle(inside, COLORS[kind])
            # The border of an object is ignored, as in the kit.
            ImageDraw.Draw(mask).rectangle(inside, NUMBERS[kind], 255)
        image.save(year / "JPEGImages" / f"{name}.jpg", quality=95)
        if name in TRAIN[:4] + VAL[:2]:
            mask.save(year / "SegmentationClass" / f"{name}.png")
        (year / "Annotations" / f"{name}.xml").write_text(annotation(name, objects))
    return year
