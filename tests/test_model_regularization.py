"""The graph term against NSL's own wrapper, against loops, and over replicas."""

import numpy as np
import pytest

from tfgraphreg.compat import keras, nsl, tf
from tfgraphreg.distances import DISTANCES
from tfgraphreg.errors import DataError
from tfgraphreg.model.classifier import build_classifier, infer
from tfgraphreg.model.classifier_training import RegularizedClassifier
from tfgraphreg.neighbors.modes import Bank, Packed

SIDE, CLASSES = 6, 3


def base_model(seed=0, norm=False):
    keras.utils.set_random_seed(seed)
    image = keras.Input((SIDE, SIDE, 1))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255.0)(image))
    x = keras.layers.Dense(12, activation="tanh")(x)
    if norm:
        x = keras.layers.BatchNormalization(name="norm")(x)
    return build_classifier(keras.Model(image, x), embedding_dim=5, num_classes=CLASSES)


def batch(rows=8, neighbors=2, seed=0):
    rng = np.random.default_rng(seed)

    def images():
        return rng.integers(0, 256, (rows, SIDE, SIDE, 1)).astype(np.uint8)

    features = {"image": images()}
    for i in range(neighbors):
        features[f"NL_nbr_{i}_image"] = images()
        features[f"NL_nbr_{i}_weight"] = rng.uniform(0.1, 1, (rows, 1)).astype(np.float32)
    if neighbors:
        features["NL_nbr_0_weight"][0] = 0.0
    labels = rng.integers(0, CLASSES, rows)
    return {k: tf.constant(v) for k, v in features.items()}, tf.constant(labels)


def wrap(base, distance="sqeuclidean", **kwargs):
    kwargs = {"alpha": 0.3, **kwargs}
    return RegularizedClassifier(base, distance=distance, **kwargs)


def one_step(model, features, labels, learning_rate=0.1):
    model.compile(optimizer=keras.optimizers.SGD(learning_rate))
    return model.train_on_batch(features, labels, return_dict=True)


@pytest.mark.parametrize(("distance", "kind"), [("sqeuclidean", "l2"), ("manhattan", "l1")])
def test_loss_on_logits_is_nsls(distance, kind):
    base = base_model()
    features, _ = batch()
    logits = keras.Model(base.input, base.output["logits"])
    config = nsl.configs.make_graph_reg_config(
        max_neighbors=2, multiplier=0.3, distance_type=kind, sum_over_axis=-1
    )
    theirs = nsl.keras.GraphRegularization(logits, config)
    theirs(features, training=True)
    ours = wrap(base, distance, regularize="logits")
    ours(features, training=True)
    np.testing.assert_allclose(ours.losses[0], theirs.losses[0], rtol=1e-6)


@pytest.mark.parametrize("name", ["euclidean", "sqeuclidean", "manhattan", "cosine"])
def test_graph_term_is_the_mean_over_real_edges(name):
    base = base_model()
    features, labels = batch()
    rows = infer(base, features["image"].numpy())["embedding"]
    terms = []
    for i in range(2):
        others = infer(base, features[f"NL_nbr_{i}_image"].numpy())["embedding"]
        weights = features[f"NL_nbr_{i}_weight"].numpy()[:, 0]
        distances = DISTANCES.get(name).array(rows, others)
        terms += [w * d for w, d in zip(weights, distances) if w > 0]
    logs = one_step(wrap(base, name), features, labels)
    assert logs["graph_loss"] == pytest.approx(np.mean(terms), rel=1e-5)
    assert logs["loss"] == pytest.approx(logs["supervised_loss"] + 0.3 * np.mean(terms), rel=1e-5)


def test_alpha_zero_is_plain_training():
    features, labels = batch()
    plain, wrapped = base_model(), base_model()
    logits = keras.Model(plain.input, plain.output["logits"])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    logits.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss)
    logits.train_on_batch(features["image"], labels)
    model = wrap(wrapped, alpha=0.0)
    assert model(features, training=True)["logits"].shape == (8, CLASSES) and not model.losses
    one_step(model, features, labels)
    for a, b in zip(plain.get_weights(), wrapped.get_weights()):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_alpha_without_neighbors_is_refused():
    features, labels = batch(neighbors=0)
    with pytest.raises(DataError, match=r"must carry the neighbors.*keys image\. Make"):
        one_step(wrap(base_model()), features, labels)


def test_unlabeled_rows_count_only_in_the_graph():
    base, other = base_model(), base_model()
    features, labels = batch()
    few = tf.where(tf.range(8) < 3, labels, -1)
    logs = one_step(wrap(base, alpha=0.0), features, few)
    assert np.isfinite(logs["loss"])
    first = {k: v[:3] for k, v in features.items()}
    assert logs["loss"] == pytest.approx(
        one_step(wrap(other, alpha=0.0), first, labels[:3])["loss"], rel=1e-5
    )
    none = one_step(wrap(base_model()), features, tf.fill([8], tf.constant(-1, tf.int64)))
    assert none["supervised_loss"] == 0 and none["graph_loss"] > 0


def test_batches_without_labels_do_not_dilute_the_supervised_loss():
    features, labels = batch()
    labels = tf.concat([labels[:2], tf.fill([6], tf.constant(-1, tf.int64))], 0)
    data = tf.data.Dataset.from_tensor_slices((features, labels)).batch(2)
    model = wrap(base_model(), alpha=0.0)
    model.compile(optimizer=keras.optimizers.SGD(0.0))
    own = {k: v[:2] for k, v in features.items()}
    first = one_step(wrap(base_model(), alpha=0.0), own, labels[:2])
    logs = model.fit(data, verbose=0).history
    assert logs["supervised_loss"][0] == pytest.approx(first["supervised_loss"], rel=1e-5)
    assert logs["loss"][0] == pytest.approx(first["loss"] / 4, rel=1e-5)
    found = model.evaluate(data, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(first["loss"], rel=1e-5)


def test_batch_normalization_sees_images_and_neighbors_once():
    base = base_model(norm=True)
    features, labels = batch()
    pixels = np.concatenate(
        [features["image"], *(features[f"NL_nbr_{i}_image"].numpy() for i in range(2))]
    )
    inner = keras.Model(
        base.layers[1].input, base.layers[1].get_layer("norm").input
    )  # what the layer is fed
    mean = inner(pixels).numpy().mean(0)
    one_step(wrap(base), features, labels, learning_rate=0.0)
    norm = base.layers[1].get_layer("norm")
    np.testing.assert_allclose(norm.moving_mean, (1 - norm.momentum) * mean, atol=1e-5)


def named(rows, neighbors, distinct, seed=0):
    """A batch of `distinct` images with the index of each, as of `gathered_batches`; its labels."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (distinct, SIDE, SIDE, 1)).astype(np.uint8)
    index = 5 + np.append(np.arange(rows), rng.integers(0, distinct, rows * neighbors))
    index[rows : rows + distinct] = 5 + np.arange(distinct)  # Each of them occurs.
    features = {"image": images[index[:rows] - 5], "index": index[:rows]}
    near = index[rows:].reshape(rows, neighbors)
    for i in range(neighbors):
        features[f"NL_nbr_{i}_image"] = images[near[:, i] - 5]
        features[f"NL_nbr_{i}_index"] = near[:, i]
        features[f"NL_nbr_{i}_weight"] = rng.uniform(0.1, 1, (rows, 1)).astype(np.float32)
    labels = rng.integers(0, CLASSES, rows)
    return {k: tf.constant(v) for k, v in features.items()}, tf.constant(labels), images


def unnamed(features):
    return {name: value for name, value in features.items() if not name.endswith("index")}


@pytest.mark.parametrize(
    ("neighbors", "jit_compile"),
    [(2, False), (11, False), (11, True), pytest.param(2, True, marks=pytest.mark.slow)],
)
def test_images_that_are_named_give_the_step_of_those_that_are_not(neighbors, jit_compile):
    features, labels, _ = named(rows=8, neighbors=neighbors, distinct=13)
    learned = []
    for given in (features, unnamed(features)):
        model = wrap(base_model(), "manhattan", mode=Packed(neighbors))
        model.compile(optimizer=keras.optimizers.SGD(0.1), jit_compile=jit_compile)
        logs = model.train_on_batch(given, labels, return_dict=True)
        assert logs["graph_loss"] > 0
        learned.append(([logs[name] for name in sorted(logs)], model.base_model.get_weights()))
    for one, other in zip(*learned):
        for a, b in zip(one, other):
            np.testing.assert_allclose(a, b, atol=2e-6)


@pytest.mark.parametrize("distinct", [16, 12])
def test_each_distinct_image_goes_through_the_network_once(distinct):
    features, labels, images = named(rows=8, neighbors=3, distinct=distinct)
    base = base_model(norm=True)
    inner = keras.Model(base.layers[1].input, base.layers[1].get_layer("norm").input)
    # Up to a multiple of 16 some come twice: the first ones of the batch.
    seen = np.concatenate([images, images[: 16 - distinct]])
    mean = inner(seen).numpy().mean(0)
    one_step(wrap(base), features, labels, learning_rate=0.0)
    norm = base.layers[1].get_layer("norm")
    np.testing.assert_allclose(norm.moving_mean, (1 - norm.momentum) * mean, atol=1e-5)


def test_an_image_that_occurs_twice_is_augmented_once():
    features, _, _ = named(rows=8, neighbors=3, distinct=16)
    seen = []

    def augmenter(images, training):
        seen.append(len(images))
        return images

    model = wrap(base_model(), augmenter=augmenter)
    model(features, training=True)
    model(unnamed(features), training=True)
    assert seen == [16, 32]


def test_paired_rows_give_the_loss_of_their_edges():
    base = base_model()
    features, labels = batch(neighbors=0)
    weight = np.array([0.5, 0.5, 0, 0, 1, 1, 0.25, 0.25], np.float32)
    features["pair_weight"] = tf.constant(weight)
    rows = infer(base, features["image"].numpy())["embedding"]
    distances = DISTANCES.get("euclidean").array(rows[0::2], rows[1::2])
    expected = np.sum(weight[0::2] * distances) / 3
    logs = one_step(wrap(base, "euclidean"), features, labels)
    assert logs["graph_loss"] == pytest.approx(expected, rel=1e-5)


def test_bank_remembers_what_it_saw():
    base = base_model()
    features, labels = batch(neighbors=0)
    index = tf.range(8, dtype=tf.int64)
    features |= {
        "index": index,
        "neighbor_index": tf.reverse(index, [0])[:, None],
        "neighbor_weight": tf.ones([8, 1]),
    }
    model = wrap(base, "euclidean", mode=Bank(1, 10))
    rows = infer(base, features["image"].numpy())["embedding"]
    first = one_step(model, features, labels, learning_rate=0.0)
    assert first["graph_loss"] == 0
    np.testing.assert_allclose(model.bank.rows[:8], rows, atol=1e-5)
    model.reset_metrics()
    second = model.train_on_batch(features, labels, return_dict=True)
    expected = np.mean(DISTANCES.get("euclidean").array(rows, rows[::-1]))
    assert second["graph_loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("mode", ["packed", "gathered", "paired", "bank"])
def test_two_replicas_train_like_one(two_replicas, mode):
    # Pairs reach replicas whole only if their shares are even; `paired_batches` sees to it.
    features, labels = batch(rows=40 if mode == "paired" else 42, seed=3)
    if mode == "paired":
        features = {"image": features["image"], "pair_weight": tf.ones([40])}
    elif mode == "gathered":
        features, labels, _ = named(rows=42, neighbors=2, distinct=60)
    elif mode == "bank":
        index = tf.range(42, dtype=tf.int64)
        features = {
            "image": features["image"],
            "index": index,
            "neighbor_index": ((index * 5 + 1) % 42)[:, None],
            "neighbor_weight": tf.ones([42, 1]),
        }
    # Batches of 16 leave a smaller one at the end of an epoch; one row has no label.
    labels = tf.concat([[tf.constant(-1, tf.int64)], labels[1:]], 0)
    data = tf.data.Dataset.from_tensor_slices((features, labels)).batch(16).repeat()
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        with strategy.scope():
            bank = Bank(1, 42) if mode == "bank" else None
            model = wrap(base_model(), "euclidean", mode=bank)
            model.compile(optimizer=keras.optimizers.Adam(0.01))
        logs = model.fit(data, epochs=7, steps_per_epoch=3, verbose=0).history
        results.append((logs, model.base_model.get_weights()))
    (one, ours), (two, theirs) = results
    for name in ("loss", "supervised_loss", "graph_loss", "accuracy"):
        np.testing.assert_allclose(one[name], two[name], atol=1e-4, err_msg=name)
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a, b, atol=1e-4)
    assert max(one["graph_loss"]) > 0


def test_mixed_labels_train():
    from tfgraphreg.training.augmentation import build_label_mixer

    features, labels = batch(neighbors=0)
    model = wrap(base_model(), alpha=0.0, label_mixer=build_label_mixer("mixup", seed=1))
    assert np.isfinite(one_step(model, features, labels)["loss"])


def test_multi_hot_labels_use_a_sigmoid_for_each_class():
    base = base_model()
    features, _ = batch()
    labels = np.random.default_rng(0).integers(0, 2, (8, CLASSES))
    logits = base(features["image"])["logits"].numpy()
    expected = keras.losses.BinaryCrossentropy(from_logits=True)(labels, logits).numpy()
    logs = one_step(wrap(base, multilabel=True), features, tf.constant(labels))
    assert logs["supervised_loss"] == pytest.approx(expected, rel=1e-5)
