"""One image file is one array: in training, prediction, search, an export, TensorFlow alone."""

import io
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageChops
from skimage import data as photographs

from tfgraphreg.backbones.build import build_backbone
from tfgraphreg.compat import keras, tf
from tfgraphreg.data.catalog import load_dataset
from tfgraphreg.data.decoding import BadImage, decode_image, inspect_image
from tfgraphreg.data.decoding_graph import decode_in_graph
from tfgraphreg.export import Predictor, export
from tfgraphreg.model.classifier import build_classifier, infer

SUFFIXES = (".jpg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".ppm", "")
FORMAT = {".jpe": "JPEG", ".jfif": "JPEG", "": "PNG"}

ALONE = """
import pathlib, sys
import numpy as np, tensorflow as tf
model = tf.saved_model.load(sys.argv[1]).signatures["serving_encoded"]
files = [pathlib.Path(name).read_bytes() for name in sys.stdin.read().split("\\n")]
answers = [model(encoded_image=tf.constant([f]))["probabilities"].numpy()[0] for f in files]
assert not any(name.startswith("tfgraphreg") for name in sys.modules)
np.save(sys.argv[2], answers)
"""


def crops(count, *, largest, seed=0):
    """Crops of four photographs, 28 to `largest` pixels a side."""
    rng = np.random.default_rng(seed)
    photos = [photographs.astronaut(), photographs.coffee(), photographs.chelsea()]
    for number in range(count):
        photo = Image.fromarray(photos[number % 3])
        width, height = (int(rng.integers(28, largest)) for _ in range(2))
        left, top = (int(rng.integers(0, side - 28)) for side in photo.size)
        yield photo.crop((left, top, left + 200, top + 200)).resize((width, height))


def write_jpegs(root, count, *, largest):
    """JPEGs of every make in two class folders: gray, color, progressive, CMYK, with EXIF."""
    makes = [
        lambda image, path: image.save(path, quality=75),
        lambda image, path: image.convert("L").save(path, quality=60),
        lambda image, path: image.save(path, quality=90, progressive=True, subsampling=0),
        lambda image, path: image.convert("CMYK").save(path, quality=95),
        lambda image, path: image.save(path, quality=30, exif=turned),
    ]
    turned = Image.Exif()
    turned[0x0112] = 6
    for number, image in enumerate(crops(count, largest=largest)):
        folder = root / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        makes[number % len(makes)](image, folder / f"{number:04}.jpg")


def classifier(shape, folder):
    keras.utils.set_random_seed(1)
    model = build_classifier(
        build_backbone("cnn", input_shape=shape), embedding_dim=4, num_classes=2
    )
    # As after training: weights large enough for a few levels to be seen.
    model.set_weights([weight * 2 for weight in model.get_weights()])
    export(model, folder, class_names=("a", "b"))
    return model


def agree(tmp_path, count, *, largest, side):
    write_jpegs(tmp_path / "photos", count, largest=largest)
    loaded = load_dataset(
        f"folder:{tmp_path}/photos", cache_dir=tmp_path / "cache", image_size=side
    )
    images = np.concatenate([loaded.train.images, loaded.test.images])
    ids = [*loaded.train.ids, *loaded.test.ids]
    paths = [tmp_path / "photos" / f"{identity}.jpg" for identity in ids]
    assert len(paths) == count
    model = classifier(loaded.image_shape, tmp_path / "model")
    expected = infer(model, images)["probabilities"]
    assert expected.std(axis=0).min() > 0.01

    predictor = Predictor(tmp_path / "model")
    answers = {"arrays": predictor(images)["probabilities"]}
    said = [dict(p.classes) for p in predictor.predict_files(paths, top=2)]
    answers["files"] = np.array([[row["a"], row["b"]] for row in said])
    contents = [path.read_bytes() for path in paths]
    answers["encoded"] = predictor.ask_encoded(contents)["probabilities"]
    subprocess.run(
        [sys.executable, "-I", "-c", ALONE, str(tmp_path / "model"), str(tmp_path / "out.npy")],
        input="\n".join(map(str, paths)),
        text=True,
        check=True,
        capture_output=True,
    )
    answers["TensorFlow alone"] = np.load(tmp_path / "out.npy")
    for way, found in answers.items():
        np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=way)


def test_every_way_to_ask_a_model_about_a_jpeg_gives_the_same(tmp_path):
    agree(tmp_path, 20, largest=200, side=32)


@pytest.mark.slow
def test_two_hundred_jpegs_up_to_800_pixels(tmp_path):
    agree(tmp_path, 200, largest=800, side=64)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(7, 90), (64, 64), (200, 31)])
def test_the_graph_decodes_png_and_jpeg_bit_for_bit(size, channels):
    decode = tf.function(lambda content: decode_in_graph(content, (*size, channels)))
    for number, image in enumerate(crops(6, largest=150, seed=3)):
        image = [image, image.convert("L"), image.convert("P"), image.convert("RGBA")][number % 4]
        content = io.BytesIO()
        image.save(content, "JPEG" if image.mode in ("RGB", "L") and number > 3 else "PNG")
        expected = decode_image(content.getvalue(), size, channels)
        np.testing.assert_array_equal(decode(tf.constant(content.getvalue())), expected)


def test_sixteen_bits_are_read_alike(tmp_path):
    values = np.arange(120, dtype=np.uint16).reshape(12, 10) * 500
    Image.fromarray(values).save(tmp_path / "deep.png")
    content = (tmp_path / "deep.png").read_bytes()
    expected = (values >> 8).astype(np.uint8)[..., None]
    np.testing.assert_array_equal(decode_image(content, (12, 10), 1), expected)
    np.testing.assert_array_equal(decode_in_graph(tf.constant(content), (12, 10, 1)), expected)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_of_training_is_read_by_its_content(tmp_path, suffix):
    image = next(crops(1, largest=60))
    for number in range(4):
        folder = tmp_path / "photos" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"x.{number}y{suffix}" if suffix else folder / f"x{number}"
        image.save(path, FORMAT.get(suffix))
    loaded = load_dataset(f"folder:{tmp_path}/photos", cache_dir=tmp_path / "c", image_size=28)
    assert len(loaded.train) + len(loaded.test) == 4
    np.testing.assert_array_equal(loaded.train.images[0], decode_image(path, (28, 28), 3))


def test_a_suffix_that_is_ignored_is_named(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "photo.heic").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"no usable images.*suffix \('?\.heic"):
        load_dataset(f"folder:{tmp_path}", cache_dir=tmp_path / "c")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.linspace(0, 1, 120, dtype=np.float32), "floating-point"),
        (np.arange(120, dtype=np.int32), "32-bit"),
        (np.arange(120, dtype=np.int32) * 500_000, "32-bit"),
        (np.arange(120, dtype=np.uint16), "16 bits and no value above 119"),
    ],
)
def test_an_image_that_would_be_black_is_refused(tmp_path, values, reason):
    path = tmp_path / "x.tif"
    Image.fromarray(values.reshape(12, 10)).save(path)
    for read in (inspect_image, lambda p: decode_image(p, (12, 10), 1)):
        with pytest.raises(BadImage, match=reason):
            read(path)


def test_a_black_image_of_sixteen_bits_is_an_image(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "x.tif")
    assert not decode_image(tmp_path / "x.tif", (4, 4), 1).any()


@pytest.mark.parametrize("adobe", [True, False])
def test_cmyk_gives_the_colors_that_tensorflow_sees(tmp_path, adobe):
    path = tmp_path / "x.jpg"
    image = next(crops(1, largest=60)).resize((32, 32)).convert("CMYK")
    (image if adobe else ImageChops.invert(image)).save(path, quality=95)
    content = path.read_bytes()
    if not adobe:
        start = content.index(b"\xff\xee")
        content = content[:start] + content[start + 2 + content[start + 3] :]
    expected = tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE").numpy()
    np.testing.assert_array_equal(decode_image(content, (32, 32), 3), expected)
    assert decode_image(content, (32, 32), 1).std() > 0


def test_what_is_no_ordinary_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", pathlib.Path("/dev/zero"), tmp_path):
        with pytest.raises(BadImage, match="is no ordinary file"):
            decode_image(path, (8, 8), 3)
    for path in ("x\0y", "x" * 5000):
        with pytest.raises(BadImage, match="cannot be read"):
            decode_image(path, (8, 8), 3)


def test_a_model_takes_any_batch_and_only_its_own_size(tmp_path):
    classifier((12, 10, 1), tmp_path / "model")
    signatures = tf.saved_model.load(str(tmp_path / "model")).signatures
    ask = signatures["serving_default"]
    files = tf.constant([], tf.string)
    assert signatures["serving_encoded"](encoded_image=files)["embedding"].shape == (0, 4)
    for batch in (0, 1, 3):
        pixels = tf.zeros([batch, 12, 10, 1], tf.uint8)
        assert ask(image=pixels)["probabilities"].shape == (batch, 2)
        for shape in ([batch, 13, 10, 1], [batch, 12, 10, 3], [12, 10, 1]):
            with pytest.raises(tf.errors.InvalidArgumentError, match="not compatible"):
                ask(image=tf.zeros(shape, tf.uint8))
