"""Pascal VOC from a folder: a kit of ten images drawn here, and files that are broken."""

import numpy as np
import pytest
import voc_kit

from tfgraphreg.data.catalog import load_dataset
from tfgraphreg.data.local import local_splits
from tfgraphreg.data.voc_folder import CLASSES, parse_name
from tfgraphreg.data.voc_xml import read_annotation
from tfgraphreg.errors import DataError
from tfgraphreg.evaluation.average_precision import FoundBoxes, detection_report
from tfgraphreg.evaluation.detection import best_overlaps

PERSON, CAR = CLASSES.index("person"), CLASSES.index("car")


@pytest.fixture(scope="module")
def year(tmp_path_factory):
    return voc_kit.draw(tmp_path_factory.mktemp("voc"))


def load(year, query="", **options):
    return load_dataset(f"voc:{year}{query}", image_size=options.pop("image_size", 40), **options)


def test_boxes_flags_and_masks_are_those_of_the_files(year):
    data = load(year.parent, image_size=(80, 120))
    train, _, test = local_splits(data, masks=True)
    assert train.ids.tolist() == voc_kit.TRAIN and test.ids.tolist() == voc_kit.VAL
    assert data.class_names == CLASSES and data.image_shape == (80, 120, 3)
    assert len(CLASSES) == 20 and list(CLASSES) == sorted(CLASSES)
    # From pixels that count from 1, both ends inside, to edges.
    np.testing.assert_array_equal(train.objects[2].boxes, [[12, 10, 52, 70], [60, 20, 110, 60]])
    assert train.objects[2].classes.tolist() == [PERSON, CAR]
    assert train.extras["truncated"][2].tolist() == [False, True]
    hard = test.objects[2]
    assert hard.difficult.tolist() == [True] and hard.boxes.tolist() == [[0, 0, 120, 80]]
    assert test.extras["occluded"][2].tolist() == [True, False]
    # Difficult alone: neither positive nor negative; without objects: negative.
    assert test.labels[2].sum() == 0 and test.extras["difficult"][2, PERSON]
    assert not test.extras["difficult"][3].any() and len(test.objects[3]) == 0
    image, mask = train.images[1], train.masks[1]
    left, top, right, bottom = train.objects[1].boxes[0].astype(int)
    assert (mask[top + 1 : bottom - 1, left + 1 : right - 1] == PERSON + 1).all()
    assert (mask[top, left:right] == 255).all() and mask[0, 0] == 0
    assert image[top + 3 : bottom - 3, left + 3 : right - 3, 0].min() > 200
    assert (train.masks[4] == 255).all(), "an image without a mask"


def test_boxes_and_masks_follow_the_size(year):
    data = load(year, image_size=40)
    train = local_splits(data, masks=True)[0]
    np.testing.assert_allclose(train.objects[0].boxes[0], [10 / 3, 5, 50 / 3, 35], rtol=1e-6)
    assert train.masks.shape == (6, 40, 40) and set(np.unique(train.masks[0])) == {0, 7, 15, 255}
    assert any("resized to 40 x 40" in note for note in data.notes)


def test_the_list_of_segmentation(year):
    data = load(year, "?set=Segmentation")
    train, _, test = local_splits(data, masks=True)
    assert train.ids.tolist() == voc_kit.TRAIN[:4] and test.ids.tolist() == voc_kit.VAL[:2]
    assert all((mask != 255).any() for mask in [*train.masks, *test.masks])


def test_trainval_and_test_as_in_2007(tmp_path):
    year = voc_kit.draw(tmp_path)
    lists = year / "ImageSets" / "Main"
    (lists / "test.txt").write_text("\n".join(voc_kit.VAL))
    (lists / "val.txt").write_text(f"{voc_kit.TRAIN[5]} \n\n")
    (lists / "train.txt").write_text("\n".join(voc_kit.TRAIN[:5]))
    data = load(year)
    assert sorted(data.train.ids) == voc_kit.TRAIN and data.test.ids.tolist() == voc_kit.VAL
    (lists / "trainval.txt").write_text("\n".join(voc_kit.TRAIN[:3]))
    assert load(year).train.ids.tolist() == voc_kit.TRAIN[:3]


OBJECT = "<object><name>cat</name><bndbox>{}</bndbox></object>"
BOX = "<xmin>1</xmin>\n<ymin>2</ymin>\n<xmax>{}</xmax>\n<ymax>9</ymax>"
SIZE = "<size><width>20</width><height>10</height></size>\n"


def xml(body):
    return f"<annotation>\n{SIZE}{body}\n</annotation>"


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ('<!DOCTYPE a [<!ENTITY b "c">]>\n<annotation/>', 1, "no document type and no entities"),
        ('<?xml version="1.0"?>\n<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', 2, "document type"),
        ("<annotation>\n&passwd;</annotation>", 2, "it is no XML"),
        ("<annotation>\n<size>", 2, "it is no XML"),
        ("", 1, "it is no XML"),
        ("<html/>", 1, "must be <annotation>"),
        ("<annotation>\n</annotation>", 1, "must have one <size>. Received: none"),
        (xml(SIZE), 1, "must have one <size>. Received: 2 of them"),
        (xml("<object>\n</object>"), 3, "must have one <name>"),
        (xml("<object><name>unicorn</name></object>"), 3, "one of Pascal VOC's"),
        (xml("<object>\n<name>Person</name></object>"), 4, "Did you mean person"),
        (xml("<object><name>cat</name></object>"), 3, "must have one <bndbox>"),
        (xml(OBJECT.format(BOX.replace("<ymin>2</ymin>", ""))), 3, "must have one <ymin>"),
        (xml(OBJECT.format(BOX.format(0))), 3, "end after it begins. Received: xmin=1"),
        (xml(OBJECT.format(BOX.format(22))), 3, "in the image of 20 x 10"),
        (xml(OBJECT.format(BOX.format("nan"))), 5, "<xmax> must be a number"),
        (xml(OBJECT.format(BOX.format("1e3"))), 5, "<xmax> must be a number"),
        (xml(OBJECT.format(BOX.format("-3"))), 5, "<xmax> must be a number"),
        (xml(OBJECT.format(BOX.format("9" * 500))), 5, "<xmax> must be a number"),
        (xml("<object><name>cat</name><difficult>yes</difficult></object>"), 3, "must be 0 or 1"),
        (xml("<a>" * 12 + "</a>" * 12), 3, "nested too deeply"),
        (xml("<object/>" * 1001), 1, "at most 1000 objects"),
        (xml("").replace("20", "0"), 2, "<width> must be a whole number"),
    ],
)
def test_broken_annotations_are_named_by_file_and_line(tmp_path, content, line, words):
    path = tmp_path / "x.xml"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        read_annotation(path, CLASSES)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{path}, line {line}: "), caught.value
    assert "\n" not in str(caught.value)


def test_unreadable_annotations_are_named(tmp_path):
    large, binary = tmp_path / "large.xml", tmp_path / "binary.xml"
    large.write_bytes(b"<a>" + b" " * (1 << 20))
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (large, binary, tmp_path / "missing.xml"):
        with pytest.raises(DataError, match=rf"The annotation {path} cannot be read"):
            read_annotation(path, CLASSES)


def test_published_oddities_load(tmp_path):
    path = tmp_path / "x.xml"
    box = "<xmin>0</xmin><ymin>1</ymin>\n<xmax>21</xmax><ymax>9.70000012</ymax>"
    path.write_text(xml(OBJECT.format(box)))
    found = read_annotation(path, CLASSES)
    assert found.objects[0].box == (0, 0, 20, 10) and found.rounded == (4,)


def test_coordinates_that_were_rounded_are_named(tmp_path):
    year = voc_kit.draw(tmp_path)
    path = year / "Annotations" / f"{voc_kit.TRAIN[3]}.xml"
    path.write_text(path.read_text().replace("<ymax>60</ymax>", "<ymax>59.6</ymax>"))
    data = load(year)
    note = next(note for note in data.notes if "rounded" in note)
    assert f"{voc_kit.TRAIN[3]}.xml, line" in note
    assert data.train.objects[3].boxes[1, 3] == 30


def _break(year, what):
    first = voc_kit.TRAIN[0]
    image, note = year / "JPEGImages" / f"{first}.jpg", year / "Annotations" / f"{first}.xml"
    mask, lists = year / "SegmentationClass" / f"{first}.png", year / "ImageSets" / "Main"
    if what == "image":
        image.write_bytes(b"no image")
    elif what == "size":
        note.write_text(note.read_text().replace("<width>120", "<width>121"))
    elif what == "annotation":
        note.unlink()
    elif what == "mask":
        mask.write_bytes(image.read_bytes())
    elif what == "mask size":
        from PIL import Image

        Image.new("L", (5, 5)).save(mask)
    elif what == "mask class":
        from PIL import Image

        Image.new("L", voc_kit.SIZE, 21).save(mask)
    elif what == "twice":
        (lists / "train.txt").write_text(f"{first}\n{first}\n")
    elif what == "path":
        (lists / "train.txt").write_text("a\n../../etc/passwd\n")
    elif what == "both":
        (lists / "val.txt").write_text(f"{first}\n")
    elif what == "lists":
        (lists / "val.txt").unlink()


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("image", r"1 file\(s\).*2008_000000.jpg' is no image"),
        ("size", r"2008_000000.xml must have the size of its image. Received: 121 x 80"),
        ("annotation", r"The annotation .*2008_000000.xml cannot be read"),
        ("mask", r"The mask .*2008_000000.png"),
        ("mask size", r"Received: 5 x 5, mode L"),
        ("mask class", r"values up to 21"),
        ("twice", r"train.txt, line 2: '2008_000000' is listed twice"),
        ("path", r"train.txt, line 2: .* is no name of an image"),
        ("both", r"for training and for the test. Received: 2008_000000"),
        ("lists", r"train.txt with val.txt"),
    ],
)
def test_broken_kits_are_named(tmp_path, what, words):
    year = voc_kit.draw(tmp_path)
    _break(year, what)
    with pytest.raises(DataError, match=words):
        load(year)


def test_an_unusable_image_can_be_skipped(tmp_path):
    year = voc_kit.draw(tmp_path)
    _break(year, "image")
    data = load(year, on_bad_image="skip")
    assert data.left_out == (voc_kit.TRAIN[0],) and len(data.train) == 5
    assert any("left out" in note for note in data.notes)


def test_names_are_checked(tmp_path):
    assert parse_name("voc:a?set=Segmentation") == ("a", "Segmentation")
    for name, words in (
        ("voc:", "followed by the path"),
        ("voc:a?set=segmentation", "Did you mean Segmentation"),
        (f"voc:{tmp_path}/none", "does not exist"),
        (f"voc:{tmp_path}", "hold exactly one. Received"),
    ):
        with pytest.raises(DataError, match=words):
            load_dataset(name)


def test_persons_of_the_kit_alone_by_hand(year):
    data = load(year, image_size=(80, 120))
    truth = local_splits(data)[2].objects
    # Of the four test images the first two have a person at (16 + i, 10, 56 + i, 70) and a car, the
    # third a difficult person, the last nothing.
    found = [
        FoundBoxes([[16, 10, 56, 70], [60, 20, 110, 60]], [PERSON, CAR], [0.9, 0.95]),
        FoundBoxes([[37, 10, 77, 70]], [PERSON], [0.8]),  # 20 of 60 columns in common
        FoundBoxes([[0, 0, 120, 80]], [PERSON], [0.85]),
        FoundBoxes([[0, 0, 20, 20]], [PERSON], [0.7]),
    ]
    report = detection_report(truth, found, data.class_names, only_class=PERSON)
    assert list(report["by_class"]) == ["person"]
    assert report["by_class"]["person"]["objects"] == 2
    # One hit, then two misses; the difficult one does not count: precision 1 up to recall 1/2.
    assert report["voc_ap50"] == pytest.approx(1 / 2)
    assert report["voc07_ap50"] == pytest.approx(6 / 11)
    assert report["ap50"] == pytest.approx(51 / 101)
    overlaps = [
        best_overlaps(each.boxes, each.classes, boxes.boxes, boxes.classes, only_class=PERSON)
        for each, boxes in zip(truth[:2], found[:2])
    ]
    np.testing.assert_allclose(np.concatenate(overlaps), [1, 1 / 3])
