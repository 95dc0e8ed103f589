"""What holds for every way to bring in neighbors and both wrappers: the laws of Keras.

Models are tiny and most laws run eagerly, so that all of it takes seconds.
"""

import importlib.metadata

import numpy as np
import pytest

import tfgraphreg
from tfgraphreg.compat import keras as keras_2
from tfgraphreg.compat import tf
from tfgraphreg.errors import DataError

N, CLASSES, BATCH = 40, 3, 16
MODES = {
    "packed": tfgraphreg.Packed(2),
    "gathered": tfgraphreg.Gathered(2),
    "paired": tfgraphreg.Paired(),
    "bank": tfgraphreg.Bank(2, N),
}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 5)).astype(np.float32)
Y = RNG.integers(0, CLASSES, N)


@pytest.fixture(scope="module")
def graph():
    return tfgraphreg.knn_graph(X, k=4)


# Keras 3 with the modes whose batches differ most; its wrapper knows nothing of modes.
COMBINATIONS = [
    *(("keras 2", name) for name in MODES),
    ("keras 3", "gathered"),
    ("keras 3", "paired"),
]


@pytest.fixture(params=COMBINATIONS, ids=" ".join)
def combination(request):
    return request.param


@pytest.fixture
def keras(combination):
    if combination[0] == "keras 2":
        return keras_2
    if importlib.metadata.version("keras").startswith("2."):
        pytest.skip("the package keras beside TensorFlow 2.15 is Keras 2")
    import keras

    return keras


@pytest.fixture
def mode(combination):
    return MODES[combination[1]]


def make_base(keras):
    keras.utils.set_random_seed(0)
    vector = keras.Input((5,))
    hidden = keras.layers.Dense(4, activation="tanh", name="hidden")(vector)
    return keras.Model(vector, keras.layers.Dense(CLASSES)(hidden))


def wrap(keras, mode, *, alpha=0.5, eager=True, loss=None, rate=0.1, **options):
    model = tfgraphreg.GraphRegularization(
        make_base(keras), alpha=alpha, embedding="hidden", mode=mode
    )
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(rate)
    model.compile(optimizer, loss, run_eagerly=eager, **options)
    return model


def batches(graph, mode, data=(X, Y), seed=0):
    return tfgraphreg.with_neighbors(data, graph, mode, batch_size=BATCH, seed=seed)


def cross_entropy(logits, labels):
    logits = logits - logits.max(1, keepdims=True)
    return np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]


def test_loss_metrics_validation_prediction_and_saving_are_keras(keras, mode, graph, tmp_path):
    calls = []

    def own_loss(labels, logits):
        calls.append(1)
        return keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)

    model = wrap(keras, mode, eager=False, loss=own_loss, metrics=["accuracy"], rate=0.5)
    start = model.get_weights()
    logs = model.fit(batches(graph, mode), epochs=2, verbose=0, validation_data=(X, Y)).history
    assert calls and not np.array_equal(start[0], model.get_weights()[0])
    assert {len(values) for values in logs.values()} == {2}
    assert set(logs) == {
        *("loss", "accuracy", "supervised_loss", "graph_loss", "val_loss", "val_accuracy")
    }
    assert logs["graph_loss"][1] > 0
    np.testing.assert_allclose(
        logs["loss"], np.add(logs["supervised_loss"], np.multiply(0.5, logs["graph_loss"])), 1e-5
    )
    logits = model.predict(X, verbose=0)
    np.testing.assert_array_equal(logits, model.base_model.predict(X, verbose=0))
    expected = [cross_entropy(logits, Y).mean(), (logits.argmax(1) == Y).mean()]
    np.testing.assert_allclose(model.evaluate(X, Y, verbose=0)[:2], expected, rtol=1e-5)
    np.testing.assert_allclose(
        [logs["val_loss"][-1], logs["val_accuracy"][-1]], expected, rtol=1e-5
    )
    model.save(tmp_path / "base.keras")
    loaded = keras.models.load_model(tmp_path / "base.keras", compile=False)
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), logits)
    model.save_weights(tmp_path / "all.weights.h5")
    # An eager prediction may differ from a traced one in the last bit.
    again = wrap(keras, mode, eager=False)
    again.train_on_batch(*next(iter(batches(graph, mode))))
    again.load_weights(tmp_path / "all.weights.h5")
    np.testing.assert_array_equal(again.predict(X, verbose=0), logits)


def test_alpha_zero_is_plain_fit_bit_for_bit(keras, mode, graph):
    eager = mode is not MODES["paired"]  # One mode is enough to see that tracing changes nothing.
    wrapped = wrap(keras, mode, alpha=0.0, eager=eager)
    wrapped.fit(batches(graph, mode), epochs=2, verbose=0)
    plain = make_base(keras)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    plain.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=eager)
    plain.fit(batches(graph, mode).map(lambda f, y: (f["x"], y)), epochs=2, verbose=0)
    for ours, theirs in zip(wrapped.base_model.get_weights(), plain.get_weights()):
        np.testing.assert_array_equal(ours, theirs)


def test_sample_and_class_weights_weigh(keras, mode, graph):
    def supervised(data=(X, Y), **options):
        model = wrap(keras, mode, rate=0.0, weighted_metrics=["accuracy"])
        return model.fit(batches(graph, mode, data), verbose=0, **options).history

    once = supervised()
    zeros = supervised((X, Y, np.zeros(N)))
    assert zeros["supervised_loss"] == [0.0] and zeros["graph_loss"] == once["graph_loss"]
    twice = supervised((X, Y, np.full(N, 2.0)))["supervised_loss"][0]
    assert twice == pytest.approx(2 * once["supervised_loss"][0], rel=1e-5)
    by_class = supervised(class_weight={0: 3.0, 1: 0.0, 2: 1.0})
    by_row = supervised((X, Y, np.array([3.0, 0.0, 1.0])[Y]))
    assert by_class["supervised_loss"][0] == pytest.approx(by_row["supervised_loss"][0], rel=1e-5)
    assert by_class["accuracy"][0] == pytest.approx(by_row["accuracy"][0], rel=1e-5)
    assert by_class["supervised_loss"][0] != pytest.approx(once["supervised_loss"][0], rel=1e-3)


def test_callbacks_act(keras, mode, graph, tmp_path):
    class Killed(Exception):
        pass

    class Die(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise Killed

    def fit(model, *callbacks, epochs=6, initial_epoch=0):
        return model.fit(
            batches(graph, mode),
            epochs=epochs,
            initial_epoch=initial_epoch,
            verbose=0,
            callbacks=list(callbacks),
        )

    c = keras.callbacks
    # An eager prediction may differ from a traced one in the last bit.
    model = wrap(keras, mode, eager=False)
    kept = str(tmp_path / "kept.keras")
    stopped = fit(
        model,
        c.ModelCheckpoint(kept, monitor="loss"),
        c.EarlyStopping(monitor="loss", min_delta=100.0, patience=1),
        c.ReduceLROnPlateau(monitor="loss", min_delta=100.0, patience=1, factor=0.5, min_lr=0.0),
    )
    assert len(stopped.history["loss"]) == 2
    assert float(model.optimizer.learning_rate) == pytest.approx(0.05)
    loaded = keras.models.load_model(kept, compile=False)
    np.testing.assert_allclose(loaded.predict(X, verbose=0), model.predict(X, verbose=0), 1e-6)

    folder = str(tmp_path / "backup")
    first = wrap(keras, mode)
    with pytest.raises(Killed):
        fit(first, c.BackupAndRestore(folder), Die(), epochs=4)
    # Keras saves after each epoch, here after the first.
    once = fit(wrap(keras, mode), c.BackupAndRestore(folder), epochs=4)
    assert once.epoch == [1, 2, 3]
    assert once.history["supervised_loss"][0] < stopped.history["supervised_loss"][0]


def test_a_batch_that_lacks_neighbors_is_refused_and_its_keys_are_named(keras, mode, graph):
    features, labels = next(iter(batches(graph, mode)))
    given = wrap(keras, mode, eager=False)
    with pytest.raises(DataError, match=r"must carry the neighbors|lacks keys"):
        wrap(keras, None, eager=False).train_on_batch({"x": features["x"]}, labels)
    for key in features:
        if key == "x" or (key.endswith("index") and isinstance(mode, tfgraphreg.Gathered)):
            continue
        wrong = {("wrong_" + k if k == key else k): v for k, v in features.items()}
        with pytest.raises(DataError, match=f"wrong_{key}.* without .*{key}"):
            given.train_on_batch(wrong, labels)
    with pytest.raises(DataError, match="must be a dictionary"):
        given.fit(X, Y, verbose=0)


def test_the_config_makes_the_same_wrapper(keras, mode):
    model = wrap(keras, mode)
    again = type(model).from_config(model.get_config())
    assert (again.alpha, again.embedding, again.mode) == (0.5, "hidden", mode)
    assert again.distance is model.distance
    lines = []
    model.summary(print_fn=lambda line, *_, **__: lines.append(line))
    assert "Trainable params: 39" in "\n".join(lines)


def test_keras_3_gives_the_losses_of_keras_2(graph, mode, keras):
    if keras is keras_2:
        pytest.skip("one comparison, made with Keras 3")
    found = []
    weights = make_base(keras_2).get_weights()
    for one in (keras_2, keras):
        model = wrap(one, mode, eager=False)
        model.base_model.set_weights(weights)
        assert model.__class__.__mro__[1:].count(one.Model) == 1
        found.append(model.fit(batches(graph, mode), epochs=3, verbose=0).history)
    for name in ("loss", "supervised_loss", "graph_loss"):
        np.testing.assert_allclose(found[0][name], found[1][name], atol=1e-5)


def test_the_bank_is_restored_with_the_model(graph, tmp_path):
    mode = MODES["bank"]
    model = wrap(keras_2, mode)
    model.fit(batches(graph, mode), verbose=0)
    assert tf.reduce_min(model.bank.seen) == 1
    tf.train.Checkpoint(model).save(str(tmp_path / "c"))
    again = wrap(keras_2, mode)
    tf.train.Checkpoint(again).restore(str(tmp_path / "c-1"))
    np.testing.assert_array_equal(again.bank.rows, model.bank.rows)
