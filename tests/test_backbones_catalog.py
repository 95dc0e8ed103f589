"""The table, the plan for the input, and weights from elsewhere."""

import dataclasses
import json
import pathlib
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from references_timm import load_timm

from tfgraphreg.backbones import own
from tfgraphreg.backbones.catalog import (
    BACKBONES,
    COLUMNS,
    backbone_table,
    list_backbones,
    smallest_networks,
)
from tfgraphreg.backbones.records import Backbone, plan_input
from tfgraphreg.errors import ConfigError, ModelError, UnknownNameError

KERAS_BUILDERS = 71


def test_the_table_needs_no_tensorflow_and_no_patience():
    code = (
        "import sys\n"
        "from tfgraphreg.backbones.catalog import list_backbones\n"
        "names = list_backbones('res*')\n"
        "assert 'resnet50' in names and 'vgg16' not in names, names\n"
        "heavy = {'tensorflow', 'keras', 'keras_cv', 'tf_keras'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=pathlib.Path(__file__).parents[1])


def test_every_builder_of_keras_applications_has_a_name():
    from tfgraphreg.compat import keras

    builders = {n for n in dir(keras.applications) if n[0].isupper()}
    registered = {
        record.arguments["network"]
        for record in map(BACKBONES.get, BACKBONES)
        if record.library == "keras.applications"
    }
    assert registered == builders
    assert len(builders) >= KERAS_BUILDERS


def test_names_are_lowercase_with_underscores_and_records_are_whole():
    for name in BACKBONES:
        record = BACKBONES.get(name)
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert record.name == name
        assert record.paper and record.width > 0 and record.parameters > 0
        assert 8 <= record.min_size <= record.default_size
        assert record.min_size % record.multiple_of == 0
        assert 1e-5 <= record.learning_rate <= 1e-2


FAMILIES = [
    "fcnn",
    "cnn",
    "vgg",
    "resnet",
    "resnet_v2",
    "resnet_rs",
    "densenet",
    "inception_v3",
    "inception_resnet_v2",
    "xception",
    "nasnet",
    "mobilenet",
    "mobilenet_v2",
    "mobilenet_v3",
    "efficientnet",
    "efficientnet_v2",
    "regnet_x",
    "regnet_y",
    "convnext",
    "resnext",
    "resnest",
    "vit",
    "beit",
    "coat",
    "levit",
    "swin_v2",
    "mobilevit",
    "resmlp",
    "mlp_mixer",
    "nfnet",
    "rexnet",
    "res2net",
    "mnasnet",
    "pnasnet",
    "selecsls",
    "dla",
    "dpn",
    "mixnet",
    "hardcore_nas",
    "cait",
    "deit",
    "deit_distilled",
    "pit",
    "convit",
    "twins_pcpvt",
    "twins_svt",
]


def test_every_family_has_a_name_that_stands_for_its_smallest_network():
    smallest = smallest_networks()
    assert set(FAMILIES) <= set(smallest)
    for family in FAMILIES:
        record = BACKBONES.get(family)
        if family not in BACKBONES:  # such as mobilenet, which is a network of its own too
            assert record.name == smallest[family]
        assert record.family == family
    rivals = [BACKBONES.get(name).parameters for name in list_backbones("rexnet*")]
    assert BACKBONES.get("rexnet").parameters == min(rivals)
    assert BACKBONES.get("nfnet").name == "nfnet_f0"


def test_list_takes_patterns_text_and_size():
    assert list_backbones("mobilenet_0*") == ["mobilenet_025", "mobilenet_050", "mobilenet_075"]
    assert "levit_128s" in list_backbones("kecam")
    small = list_backbones(max_parameters=500_000)
    assert "cnn" in small and "resnet50" not in small
    row = backbone_table("resnet50")[0]
    assert tuple(row) == COLUMNS
    assert row["parameters"] == 23_534_592
    assert list_backbones("no such text") == []


def test_a_pattern_may_have_capitals_and_brackets():
    assert list_backbones("VGG*") == ["vgg16", "vgg19"]
    assert list_backbones("vgg1[69]") == ["vgg16", "vgg19"]
    assert list_backbones("res*") == sorted(list_backbones("res*"))


def test_a_misspelled_name_meets_its_nearest():
    with pytest.raises(UnknownNameError, match=r"Unknown backbone.*'resnet5'.*resnet50"):
        BACKBONES.get("resnet5")


def test_a_record_refuses_unknown_preprocessing():
    with pytest.raises(ConfigError, match="`preprocessing` of a backbone must be one of"):
        dataclasses.replace(BACKBONES.get("cnn"), preprocessing="bgr")


def record(**changes) -> Backbone:
    return dataclasses.replace(BACKBONES.get("mobilenet"), name="net", **changes)


def test_plan_keeps_what_the_network_takes():
    plan = plan_input(record(), (45, 33, 3))
    assert (plan.height, plan.width, plan.channels, plan.resized, plan.notes) == (
        45,
        33,
        3,
        False,
        (),
    )


def test_plan_enlarges_with_proportions_and_says_so():
    plan = plan_input(record(), (20, 40, 1))
    assert (plan.height, plan.width, plan.channels) == (32, 64, 3)
    assert plan.resized
    assert "20x40 are resized to 32x64" in plan.notes[0]
    assert "Gray images are repeated into 3 channels" in plan.notes[1]
    assert plan_input(record(), (28, 28, 1)).height == 32


def test_plan_enlarges_to_what_the_network_learns_best_with():
    wants = record(enlarge_to=64)
    assert plan_input(wants, (28, 28, 1)).height == 64
    assert "net wants at least 64 pixels" in plan_input(wants, (28, 28, 1)).notes[0]
    assert plan_input(wants, (80, 96, 3)).notes == ()
    assert plan_input(wants, (28, 28, 1), image_size=32).height == 32


def test_plan_rounds_up_to_a_multiple():
    plan = plan_input(record(multiple_of=16), (33, 48, 3))
    assert (plan.height, plan.width) == (48, 48)
    assert "multiples of 16" in plan.notes[0]


def test_plan_obeys_an_explicit_size_without_a_word():
    plan = plan_input(record(), (28, 28, 3), image_size=(40, 50))
    assert (plan.height, plan.width, plan.notes) == (40, 50, ())
    with pytest.raises(ModelError, match=r"at least 32 pixels.*image_size=28.*image_size=32"):
        plan_input(record(), (28, 28, 3), image_size=28)
    with pytest.raises(ModelError, match=r"multiples of 16.*Use image_size=48"):
        plan_input(record(multiple_of=16), (28, 28, 3), image_size=40)


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 2), (0, 28, 3), (28, None, 3)])
def test_plan_refuses_what_is_no_image(shape):
    with pytest.raises(ModelError, match="`input_shape` must be"):
        plan_input(record(), shape)


def test_raw_image_equals_the_libraries_own_preprocessing():
    from tfgraphreg.backbones.inputs import RawImage
    from tfgraphreg.compat import keras

    raw = np.random.default_rng(0).integers(0, 256, (2, 5, 6, 3)).astype("uint8")
    modes = {"caffe": "resnet50", "torch": "densenet", "minus_one_to_one": "mobilenet"}
    for mode, module in modes.items():
        library = getattr(keras.applications, module).preprocess_input
        got = RawImage(preprocessing=mode)(raw)
        np.testing.assert_allclose(got, library(raw.astype("float32")), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(RawImage(preprocessing="zero_to_one")(raw), raw / 255, rtol=1e-6)
    gray = RawImage(channels=3)(raw[..., :1])
    np.testing.assert_array_equal(gray, np.repeat(raw[..., :1], 3, axis=-1))


def test_raw_image_resizes_and_survives_a_round_trip():
    from tfgraphreg.backbones.inputs import RawImage
    from tfgraphreg.compat import keras

    raw = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 1)).astype("uint8")
    layer = RawImage(size=(8, 6), channels=3, preprocessing="torch")
    copy = keras.layers.deserialize(json.loads(json.dumps(keras.layers.serialize(layer))))
    assert layer(raw).shape == (1, 8, 6, 3)
    np.testing.assert_array_equal(layer(raw), copy(raw))


def test_imagenet_without_a_network_is_one_quick_sentence(monkeypatch, tmp_path):
    from tfgraphreg.backbones import weights
    from tfgraphreg.backbones.build import build_backbone

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    # A port of this machine on which nothing listens.
    monkeypatch.setitem(weights._HOSTS, "keras.applications", "http://127.0.0.1:9")
    start = time.perf_counter()
    with pytest.raises(ModelError, match=r"must be downloaded once.*cannot be reached"):
        build_backbone("mobilenet_025", input_shape=(32, 32, 3), weights="imagenet")
    assert time.perf_counter() - start < 10
    with pytest.raises(ModelError, match="publishes no ImageNet weights for cnn"):
        build_backbone("cnn", input_shape=(32, 32, 3), weights="imagenet")


def test_kecam_that_loads_nothing_is_no_success():
    pytest.importorskip("keras_cv_attention_models", reason="extra `kecam` is not installed")
    from tfgraphreg.backbones.kecam import build

    with pytest.raises(ModelError, match="ImageNet weights of ViTTinyPatch16 were not loaded"):
        build(
            input_shape=(32, 32, 3),
            weights="imagenet",
            network="beit.ViTTinyPatch16",
            release="absent",
        )


def test_without_kecam_the_error_names_the_extra(monkeypatch):
    import importlib.util

    from tfgraphreg.backbones.build import build_backbone
    from tfgraphreg.errors import MissingExtraError

    find = importlib.util.find_spec
    hidden = "keras_cv_attention_models"
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == hidden else find(n))
    with pytest.raises(MissingExtraError, match=r"tfgraphreg\[kecam\]"):
        build_backbone("vit_tiny_patch16", input_shape=(32, 32, 3))


def test_weights_from_a_file(tmp_path):
    from tfgraphreg.backbones.build import build_backbone

    shape = (28, 28, 1)
    batch = np.random.default_rng(0).integers(0, 256, (2, *shape)).astype("uint8")
    source = build_backbone("cnn", input_shape=shape)
    for path in (tmp_path / "cnn.weights.h5", tmp_path / "checkpoint"):
        source.save_weights(path)
        copy = build_backbone("cnn", input_shape=shape, weights=path)
        np.testing.assert_array_equal(copy(batch), source(batch))
        with pytest.raises(ModelError, match="does not hold the weights of the backbone fcnn"):
            build_backbone("fcnn", input_shape=shape, weights=path)
    with pytest.raises(ModelError, match=r"`weights` must be none, imagenet, timm:FILE or a file"):
        build_backbone("cnn", input_shape=shape, weights=str(tmp_path / "absent.h5"))
    with pytest.raises(ModelError, match="takes no timm weights"):
        build_backbone("cnn", input_shape=shape, weights="timm:x.safetensors")


def test_options_reach_the_builder():
    from tfgraphreg.backbones.build import build_backbone

    net = build_backbone("fcnn", input_shape=(8, 8, 1), options={"units": (16, 8)})
    assert net.output_shape == (None, 8)
    with pytest.raises(ModelError, match=r"cannot be built with these options.*wings"):
        build_backbone("fcnn", input_shape=(8, 8, 1), options={"wings": 2})


def test_the_table_of_own_networks_is_that_of_their_files():
    folder = pathlib.Path(own.__file__).parent / "families"
    expected = {}
    for path in folder.glob("[a-z]*.py"):
        for variant in getattr(own.load_family(path.stem), "VARIANTS", {}).values():
            record = own.record_of(path.stem, variant)
            expected[record.name] = record
    assert {record.name: record for record in own.RECORDS} == expected, (
        "run tools/list_own_backbones.py"
    )


def test_timm_weights_give_timms_features(tmp_path):
    timm = load_timm()
    import torch
    from safetensors.torch import save_file

    from tfgraphreg.backbones.build import build_backbone

    torch.manual_seed(0)
    theirs = timm.create_model("rexnet_100", pretrained=False).eval()
    path = tmp_path / "rexnet.safetensors"
    save_file(theirs.state_dict(), path)
    ours = build_backbone("rexnet_100", input_shape=(64, 64, 3), weights=f"timm:{path}")
    raw = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype("float32")
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    scaled = torch.tensor(((raw / 255 - mean) / std).transpose(0, 3, 1, 2)).float()
    with torch.no_grad():
        expected = theirs.forward_head(theirs.forward_features(scaled), pre_logits=True).numpy()
    np.testing.assert_allclose(ours(raw, training=False), expected, atol=1e-4)
