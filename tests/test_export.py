"""An exported model answers in a process that has TensorFlow only, and refuses in words."""

import json
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from tfgraphreg import storage
from tfgraphreg.backbones.build import build_backbone
from tfgraphreg.compat import keras, tf
from tfgraphreg.data.decoding import MAX_PIXELS
from tfgraphreg.errors import DataError, ModelError
from tfgraphreg.export import Predictor, export
from tfgraphreg.model.classifier import build_classifier, infer

NAMES = ("ant", "bee", "cat")

ALONE = """
import sys
import threading
import numpy as np, tensorflow as tf
model = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
answer = model(image=tf.constant(np.load(sys.argv[2])))
assert not any(name.startswith(("tfgraphreg", "neural_structured")) for name in sys.modules)
np.savez(sys.argv[3], **{k: v.numpy() for k, v in answer.items()})
"""


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    backbone = build_backbone("cnn", input_shape=(12, 10, 1))
    return build_classifier(backbone, embedding_dim=4, num_classes=3)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "cnn"
    export(model, path, class_names=NAMES, about={"run": "r"})
    return path


def images(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 12, 10, 1)).astype(np.uint8)


def test_a_process_with_tensorflow_only_gives_the_same(model, folder, tmp_path):
    pixels = images(7)
    np.save(tmp_path / "in.npy", pixels)
    arguments = [str(folder), str(tmp_path / "in.npy"), str(tmp_path / "out.npz")]
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out.npz") as found:
        expected = infer(model, pixels)
        np.testing.assert_allclose(found["probabilities"], expected["probabilities"], atol=1e-5)
        np.testing.assert_allclose(found["embedding"], expected["embedding"], atol=1e-5)


@pytest.mark.parametrize("n", [1, 5, 300])
def test_predictor_takes_any_batch(model, folder, n):
    found = Predictor(folder)(images(n), batch_size=128)
    np.testing.assert_allclose(
        found["probabilities"], infer(model, images(n))["probabilities"], atol=1e-5
    )


def test_encoded_files_are_the_pixels_in_them(folder, tmp_path):
    pixels = images(2)
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for path, image in zip(paths, pixels):
        Image.fromarray(image[..., 0]).save(path)
    predictor = Predictor(folder)
    np.testing.assert_allclose(
        predictor.embed_files(paths), predictor(pixels)["embedding"], atol=1e-5
    )
    first = predictor.predict_files(paths, top=2)[0]
    scores = predictor(pixels)["probabilities"][0]
    assert first.classes[0][0] == NAMES[int(scores.argmax())] and len(first.classes) == 2


def test_a_color_photo_of_another_size_is_taken(folder, tmp_path):
    Image.new("RGB", (64, 48), (200, 10, 10)).save(tmp_path / "x.jpg")
    assert Predictor(folder).predict_files([tmp_path / "x.jpg"])[0].error is None


def test_what_is_no_image_gets_an_error_and_the_rest_an_answer(folder, tmp_path):
    good, bad, cut = tmp_path / "good.png", tmp_path / "bad.png", tmp_path / "cut.png"
    Image.fromarray(images(1)[0, ..., 0]).save(good)
    bad.write_text("no image")
    cut.write_bytes(good.read_bytes()[:60])
    found = Predictor(folder).predict_files([bad, good, cut, tmp_path / "none.png"])
    assert [p.error is None for p in found] == [False, True, False, False]
    assert "is no image that can be read" in found[0].error
    assert "cannot be decoded" in found[2].error
    assert "No such file" in found[3].error


def test_enormous_images_are_refused_by_their_header(folder, tmp_path):
    path = tmp_path / "bomb.png"
    side = int(MAX_PIXELS**0.5) + 10
    Image.new("1", (side, side)).save(path)
    with pytest.raises(DataError, match="pixels, more than"):
        Predictor(folder).read(path)


def test_wrong_arrays_are_refused(folder):
    with pytest.raises(DataError, match=r"takes uint8 images of shape \[12, 10, 1\]"):
        Predictor(folder)(np.zeros((2, 5, 5, 1), np.uint8))
    with pytest.raises(DataError, match="float64 images"):
        Predictor(folder)(np.zeros((2, 12, 10, 1)))


def test_folders_that_are_no_model(folder, tmp_path):
    with pytest.raises(ModelError, match="no SavedModel"):
        Predictor(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"no")
    (tmp_path / "tfgraphreg.json").write_text(json.dumps({"class_names": [], "image_shape": []}))
    with pytest.raises(ModelError, match="cannot be loaded"):
        Predictor(tmp_path)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("variables/variables.data-00000-of-00001", lambda content: content[:100]),
        ("variables/variables.index", lambda content: content[:50]),
        ("saved_model.pb", lambda content: content[:1000]),
        ("tfgraphreg.json", lambda content: b"[]"),
        ("tfgraphreg.json", lambda content: b'{"class_names": ["a"], "image_shape": 3}'),
        ("tfgraphreg.json", lambda content: b'{"class_names": [1], "image_shape": [1, 1, 1]}'),
    ],
)
def test_damaged_models_are_refused_in_one_line(folder, tmp_path, name, damage):
    path = tmp_path / "damaged"
    shutil.copytree(folder, path)
    (path / name).write_bytes(damage((path / name).read_bytes()))
    with pytest.raises(ModelError, match="cannot be loaded") as error:
        Predictor(path)
    assert "\n" not in str(error.value)


def test_a_failed_export_leaves_the_old_one(model, folder, monkeypatch):
    before = sorted(p.name for p in folder.parent.iterdir())

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", full)
    with pytest.raises(DataError, match="disk is full"):
        export(model, folder, class_names=NAMES)
    assert sorted(p.name for p in folder.parent.iterdir()) == before
    Predictor(folder)


def test_a_model_that_is_replaced_while_it_is_loaded_is_the_old_or_the_new(folder, tmp_path):
    other = tmp_path / "other"
    keras.utils.set_random_seed(2)
    backbone = build_backbone("cnn", input_shape=(12, 10, 1))
    model = build_classifier(backbone, embedding_dim=4, num_classes=2)
    export(model, other, class_names=NAMES[:2])
    stop, target = threading.Event(), tmp_path / "model"
    shutil.copytree(folder, target)

    def replace():
        while not stop.is_set():
            for source in (other, folder):
                with storage.atomic_folder(target) as part:
                    shutil.copytree(source, part, dirs_exist_ok=True)

    writer = threading.Thread(target=replace)
    writer.start()
    try:
        loaded = [Predictor(target) for _ in range(4)]
    finally:
        stop.set()
        writer.join()
    for predictor in loaded:
        assert predictor(images(1))["probabilities"].shape == (1, len(predictor.class_names))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "other"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"class_names": [f"c{i}" for i in range(20)]}, "names 20 classes"),
        ({"image_shape": [8, 8, 1]}, r"images of shape \[8, 8, 1\]"),
        ({"class_names": ["bee", "ant", "cat"], "digest": "0"}, "is not as it was written"),
    ],
)
def test_what_is_said_of_a_model_is_held_against_it(folder, tmp_path, change, words):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    meta = json.loads((copy / "tfgraphreg.json").read_text())
    if "digest" not in change:
        del meta["digest"]
    (copy / "tfgraphreg.json").write_text(json.dumps({**meta, **change}))
    with pytest.raises(ModelError, match=words):
        Predictor(copy)


def test_a_flipped_bit_in_a_model_is_refused(folder, tmp_path):
    for name in ("saved_model.pb", "variables/variables.index", "tfgraphreg.json"):
        copy = tmp_path / name.replace("/", "-")
        shutil.copytree(folder, copy)
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(content)
        with pytest.raises(ModelError, match="cannot be loaded"):
            Predictor(copy)
