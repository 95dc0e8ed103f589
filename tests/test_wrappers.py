"""Any model, any data: what `GraphRegularization` wraps and what `with_neighbors` takes."""

import numpy as np
import pytest

import tfgraphreg
from tfgraphreg.compat import keras, nsl, tf
from tfgraphreg.distances import DISTANCES
from tfgraphreg.errors import ConfigError, DataError, GraphError

N = 40
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 5)).astype(np.float32)
Y = RNG.integers(0, 3, N)


@pytest.fixture(scope="module")
def graph():
    return tfgraphreg.knn_graph(X, k=4)


def functional(outputs="tensor", name=None):
    keras.utils.set_random_seed(0)
    vector = keras.Input((5,), name=name)
    hidden = keras.layers.Dense(4, activation="tanh", name="hidden")(vector)
    logits = keras.layers.Dense(3, name="logits")(hidden)
    both = {"embedding": hidden, "logits": logits}
    return keras.Model(vector, both if outputs == "dictionary" else logits)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(4, activation="tanh")
        self.logits = keras.layers.Dense(3)

    def call(self, inputs):
        hidden = self.hidden(inputs)
        return {"embedding": hidden, "logits": self.logits(hidden)}


def sequential():
    return keras.Sequential(
        [keras.layers.Dense(4, activation="tanh", name="hidden"), keras.layers.Dense(3)]
    )


def cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def test_code_of_a_user_may_branch_on_tensors_and_that_of_this_package_is_not_converted(graph):
    class Branching(keras.layers.Layer):
        def call(self, x):
            y = x
            if tf.reduce_sum(x) > 0:
                y = x * 2
            return y

    def distance(x, y):
        if tf.reduce_max(x) > 0:
            far = tf.reduce_sum(tf.square(x - y), axis=-1)
        else:
            far = tf.zeros_like(x[:, 0])
        return far

    def loss(y, found):
        total = keras.losses.sparse_categorical_crossentropy(y, found, from_logits=True)
        if tf.reduce_mean(total) > 1e9:
            total = total * 0
        return total

    def embedding(outputs):
        found = outputs
        if tf.reduce_max(outputs) > 1e9:
            found = outputs * 0
        return found

    layers = [keras.layers.Dense(4), Branching(), keras.layers.Dense(3)]
    model = tfgraphreg.GraphRegularization(
        keras.Sequential(layers), alpha=0.1, distance=distance, embedding=embedding
    )
    model.compile("adam", loss)
    data = tfgraphreg.with_neighbors((X, Y), graph, tfgraphreg.Paired(), batch_size=10)
    assert model.fit(data, verbose=0).history["graph_loss"][0] > 0

    from tensorflow.python.autograph.impl import conversion

    assert conversion.is_allowlisted(tfgraphreg.GraphRegularization.train_step)
    assert not conversion.is_allowlisted(distance)


@pytest.mark.parametrize(
    "mode", [tfgraphreg.Packed(2), tfgraphreg.Gathered(2), tfgraphreg.Paired(), tfgraphreg.Bank(2)]
)
def test_every_batch_has_the_labeled_rows_that_were_asked_for(graph, mode):
    few = np.where(np.arange(N) < 3, Y, -1)

    def batches(**options):
        return tfgraphreg.with_neighbors((X, few), graph, mode, batch_size=10, **options)

    without = [int((weight.numpy() > 0).sum()) for _, _, weight in batches()]
    assert min(without) == 0
    data = batches(labeled_batch=4)
    rows = [(weight.numpy() > 0).sum() for _, _, weight in data]
    assert min(rows) >= 4 and len(rows) == len(data) == 7  # 40 / (10 - 4) batches
    seen = {tuple(row) for features, _, _ in data for row in features["x"].numpy()[4:]}
    assert seen == {tuple(row) for row in X}
    with pytest.raises(ConfigError, match="labeled_batch"):
        batches(labeled_batch=12)
    with pytest.raises(ConfigError, match="whole number"):
        batches(labeled_batch=0.5)


@pytest.mark.parametrize("kind", ["l2", "l1"])
def test_the_flow_of_nsls_tutorial_gives_nsls_numbers(graph, kind, tmp_path):
    config = nsl.configs.make_graph_reg_config(
        max_neighbors=2, multiplier=0.1, distance_type=kind, sum_over_axis=-1
    )
    data = tfgraphreg.with_neighbors((X, Y), graph, tfgraphreg.Packed(2), batch_size=8)
    named = [
        ({k[:-1] + "words" if k.endswith("x") else k: v for k, v in f.items()}, y) for f, y in data
    ]
    found = []
    for wrapper in (nsl.keras.GraphRegularization, tfgraphreg.GraphRegularization):
        base = functional(name="words")
        model = wrapper(base, config)
        model.compile("adam", cross_entropy(), metrics=["accuracy"])
        losses = [model.train_on_batch(*named[i % 5]) for i in range(10)]
        rows = model.evaluate({"words": X}, Y, verbose=0)
        path = str(tmp_path / "saved.keras")
        model.save(path)
        saved = keras.models.load_model(path).predict({"words": X}, verbose=0)
        found.append((np.array(losses), rows, saved, model.predict({"words": X}, verbose=0)))
    for theirs, ours in zip(*found):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert np.ptp(found[0][0][:, 2]) > 0  # The graph term is among the numbers.
    with pytest.raises(DataError, match=r"lacks neighbors.*without NL_nbr_1_weight"):
        features, labels = named[0]
        less = {k: v for k, v in features.items() if k != "NL_nbr_1_weight"}
        model.train_on_batch(less, labels)
    with pytest.raises(ConfigError, match="would train without a graph"):
        tfgraphreg.GraphRegularization(base, nsl.configs.make_graph_reg_config(multiplier=0.1))
    again = type(model).from_config(model.get_config())
    assert again.graph_reg_config == config


@pytest.mark.parametrize(
    ("make", "embedding"),
    [
        (functional, "hidden"),
        (functional, None),
        (functional, lambda logits: tf.nn.softmax(logits)),
        (lambda: functional("dictionary"), None),
        (lambda: functional("dictionary"), "logits"),
        (sequential, "hidden"),
        (Subclassed, None),
        (Subclassed, lambda outputs: outputs["embedding"]),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_any_model_and_embedding(graph, make, embedding):
    base = make()
    several = isinstance(base(X[:1]), dict)
    base = make()
    model = tfgraphreg.GraphRegularization(base, 1.0, "cosine", embedding)
    loss = {"logits": cross_entropy()} if several else cross_entropy()
    model.compile(keras.optimizers.SGD(0.0), loss, run_eagerly=True)
    data = tfgraphreg.with_neighbors((X, Y), graph, tfgraphreg.Paired(), batch_size=N)
    features, labels = next(iter(data))
    logs = model.train_on_batch(features, labels, return_dict=True)
    outputs = base(features["x"])
    if callable(embedding):
        rows = embedding(outputs)
    elif several:
        rows = outputs[embedding or "embedding"]
    elif embedding:
        rows = base.layers[-2](features["x"])
    else:
        rows = outputs
    weights = features["pair_weight"].numpy()[::2]
    rows = rows.numpy()
    distances = DISTANCES.get("cosine").array(rows[::2], rows[1::2])
    assert logs["graph_loss"] == pytest.approx((weights * distances).sum() / (weights > 0).sum())


def test_a_wrapper_says_how_it_was_made():
    made = tfgraphreg.GraphRegularization(
        functional(name="vector"), 0.5, "manhattan", embedding="hidden", mode=tfgraphreg.Gathered(2)
    )
    name = made.base_model.name
    expected = f"GraphRegularization({name}, alpha=0.5, distance='manhattan', embedding='hidden', "
    assert repr(made) == expected + "mode=Gathered(k=2, sample='uniform'))"
    import keras as keras_3

    if keras_3.__version__.startswith("3"):
        base = keras_3.Sequential([keras_3.Input((5,)), keras_3.layers.Dense(3)], name="net")
        found = repr(tfgraphreg.GraphRegularization(base))
        assert found == "GraphRegularization(net, alpha=0.1, distance='cosine')"
    config = nsl.configs.make_graph_reg_config(max_neighbors=1, multiplier=0.2)
    as_nsl = repr(tfgraphreg.GraphRegularization(functional(), config))
    assert "GraphRegConfig(" in as_nsl and "multiplier=0.2" in as_nsl
    assert [repr(m) for m in (tfgraphreg.Packed(1), tfgraphreg.Paired(), tfgraphreg.Bank(3))] == [
        "Packed(k=1)",
        "Paired(by_weight=False, known=False)",
        "Bank(k=3, size=None, sample='top')",
    ]


def test_what_cannot_be_compared_is_refused():
    wrap = tfgraphreg.GraphRegularization
    with pytest.raises(ConfigError, match=r"no layer or output.*Did you mean hidden"):
        wrap(functional(), embedding="hiden")
    with pytest.raises(ConfigError, match="Let a subclassed model return a dictionary"):
        model = wrap(keras.models.clone_model(functional()), embedding=None)
        model._regularizer.readout.embedding = "hidden"
        model._regularizer.readout._pick(tf.zeros([2, 3]))
    with pytest.raises(ConfigError, match="`alpha` must be a finite number"):
        wrap(functional(), alpha=-1)
    with pytest.raises(ConfigError, match=r"`base_model` must be a keras\.Model"):
        wrap(lambda x: x)
    with pytest.raises(ConfigError, match="takes no further arguments"):
        config = nsl.configs.make_graph_reg_config(max_neighbors=1)
        wrap(functional(), config, distance="euclidean")
    with pytest.raises(ConfigError, match=r"alpha is its multiplier\. Received: alpha=0\.5"):
        wrap(functional(), 0.5, graph_reg_config=config)
    with pytest.raises(ConfigError, match="alpha is its multiplier"):
        wrap(functional(), config, graph_reg_config=config)
    with pytest.raises(
        ConfigError, match=r"no output of the embedding's name.*Did you mean logits"
    ):
        model = wrap(Subclassed(), embedding="logit")
        model._regularizer.readout._pick({"embedding": tf.zeros([2, 4]), "logits": X})
    with pytest.raises(KeyError, match="Did you mean cosine"):
        wrap(functional(), distance="cosin")


def test_a_distance_of_ones_own_gives_one_number_an_edge(graph):
    features, labels = next(iter(tfgraphreg.with_neighbors((X, Y), graph, tfgraphreg.Paired())))

    def graph_loss(distance):
        model = tfgraphreg.GraphRegularization(functional(), np.float32(0.1), distance)
        model.compile(keras.optimizers.SGD(0.0), cross_entropy(), run_eagerly=True)
        return model.train_on_batch(features, labels, return_dict=True)["graph_loss"]

    own = graph_loss(lambda a, b: tf.reduce_sum(tf.square(a - b), -1))
    assert own == pytest.approx(graph_loss("sqeuclidean"), rel=1e-6)
    with pytest.raises(ConfigError, match=r"one number for each edge\. Received: shape \(20, 3\)"):
        graph_loss(lambda a, b: tf.square(a - b))
    with pytest.raises(ConfigError, match=r"one number for each edge\. Received: shape \(\)"):
        graph_loss(keras.losses.MeanSquaredError())


def taken(dataset):
    """All elements of an epoch as arrays, rows of all batches together."""
    parts = [tf.nest.flatten(element) for element in dataset]
    spec = next(iter(dataset))
    rows = [np.concatenate([p[i] for p in parts]) for i in range(len(parts[0]))]
    return tf.nest.pack_sequence_as(spec, rows)


def test_an_epoch_is_reshuffled_counted_and_repeatable(graph):
    def make(seed):
        return tfgraphreg.with_neighbors(
            (np.arange(N), Y), graph, tfgraphreg.Paired(), batch_size=16, seed=seed
        )

    data = make(1)
    assert len(data) == 3
    epochs = [np.concatenate([f["x"] for f, _ in data]) for _ in range(3)]
    for order in epochs:
        np.testing.assert_array_equal(np.sort(order), np.arange(N))
    assert len({tuple(order) for order in epochs}) == 3
    again = make(1)
    for order in epochs:
        np.testing.assert_array_equal(np.concatenate([f["x"] for f, _ in again]), order)
    assert tuple(np.concatenate([f["x"] for f, _ in make(2)])) != tuple(epochs[0])


ONE_HOT = np.eye(3, dtype=np.float32)[Y]
GONE = np.arange(N) % 3 > 0


@pytest.mark.parametrize(
    ("labels", "shown", "missing"),
    [
        (Y, Y, None),
        (np.where(GONE, -1, Y), np.where(GONE, 0, Y), GONE),
        (ONE_HOT, ONE_HOT, None),
        (np.where(GONE[:, None], -1, ONE_HOT), ONE_HOT * ~GONE[:, None], GONE),
        (X[:, 0], X[:, 0], None),
        (np.where(GONE, np.nan, X[:, 0]), np.where(GONE, 0, X[:, 0]), GONE),
        (None, np.zeros(N), np.ones(N, bool)),
    ],
    ids=["numbers", "missing", "one-hot", "missing row", "targets", "missing target", "none"],
)
def test_labels_of_every_form(graph, labels, shown, missing):
    data = tfgraphreg.with_neighbors(
        ({"number": np.arange(N), "text": np.array([str(i) for i in range(N)])}, labels),
        graph,
        tfgraphreg.Packed(1),
        batch_size=16,
    )
    for features, *rest in data:
        number = features["number"].numpy()
        assert [int(text) for text in features["text"].numpy()] == number.tolist()
        np.testing.assert_allclose(rest[0], shown[number])
        assert len(rest) == 1 + (missing is not None)
        if missing is not None:
            present = ~missing[number]
            expected = present * len(number) / max(present.sum(), 1)
            np.testing.assert_allclose(rest[1], expected, rtol=1e-6)


def test_a_dataset_of_tf_data_is_read_in_order_also_beyond_memory(graph, monkeypatch, tmp_path):
    def epoch(data):
        made = tfgraphreg.with_neighbors(data, graph, tfgraphreg.Bank(2), batch_size=16)
        return taken(made)

    source = tf.data.Dataset.from_tensor_slices((X, Y))
    tf.nest.map_structure(np.testing.assert_array_equal, epoch(source), epoch((X, Y)))
    monkeypatch.setattr("tfgraphreg.neighbors.examples.MEMORY_BYTES", 100)
    monkeypatch.setenv("TFGRAPHREG_CACHE", str(tmp_path))
    tf.nest.map_structure(np.testing.assert_array_equal, epoch(source), epoch((X, Y)))
    assert not list(tmp_path.iterdir())
    for wrong, message in [
        (source.batch(8), r"add \.unbatch"),
        (source.repeat(), "must be finite"),
        (source.take(30), "30 examples, 40 nodes"),
        (source.concatenate(source), "more than 40"),
    ]:
        with pytest.raises(DataError, match=message):
            epoch(wrong)


def test_what_is_no_data_or_graph_or_mode_is_refused(graph):
    mode = tfgraphreg.Paired()

    def make(x=X, y=Y, over=graph, by=mode, **options):
        return tfgraphreg.with_neighbors((x, y), over, by, **options)

    for labeled in ((X, {"logits": Y}), tf.data.Dataset.from_tensor_slices((X, {"logits": Y}))):
        with pytest.raises(
            DataError, match=r"not a dictionary by output\. Received: .*keys logits.*compile\(loss="
        ):
            tfgraphreg.with_neighbors(labeled, graph, mode)
    with pytest.raises(DataError, match="one array of numbers"):
        make(y=np.array(["cat"] * N))
    with pytest.raises(DataError, match=r"input must be one array.*as a dictionary, by name"):
        make([X, X[:, :2]])
    with pytest.raises(DataError, match=r"x: 2, y: 40.*as a dictionary, by name"):
        make([X, X])
    with pytest.raises(
        DataError, match=r"numbers or of text\. Received: float, str\. .*dict\(table\)"
    ):
        make(np.array([[0.5, "a"]] * N, object))
    for by, key in [(mode, "pair_weight"), (tfgraphreg.Packed(1), "index")]:
        with pytest.raises(DataError, match=f"use this key themselves.*'{key}'"):
            make({key: X}, by=by)
    with pytest.raises(ConfigError, match="`batch_size` must be a whole number"):
        make(batch_size=8.0)
    with pytest.raises(ConfigError, match="`seed` must be a whole number"):
        make(seed=0.5)
    ends, far = np.arange(N), (np.arange(N) + 1) % N
    heavy = tfgraphreg.SimilarityGraph.from_edges(ends, far, np.full(N, 1e30), N)
    with pytest.raises(GraphError, match="make the loss overflow"):
        make(over=heavy)
    empty = tfgraphreg.SimilarityGraph.from_edges(ends[:0], far[:0], np.zeros(0), N)
    with pytest.raises(GraphError, match="without edges would train without a graph"):
        make(over=empty)
    with pytest.raises(DataError, match=r"one row for each example\. Received: x: 40, y: 39"):
        tfgraphreg.with_neighbors((X, Y[:-1]), graph, mode)
    with pytest.raises(GraphError, match="one node for every"):
        tfgraphreg.with_neighbors((X[:9], Y[:9]), graph, mode)
    with pytest.raises(ConfigError, match="Use Packed"):
        tfgraphreg.with_neighbors((X, Y), graph, "paired")
    with pytest.raises(GraphError, match="must be a SimilarityGraph"):
        tfgraphreg.with_neighbors((X, Y), X, mode)
    with pytest.raises(DataError, match="missing as a whole"):
        tfgraphreg.with_neighbors((X, np.stack([Y, Y - 1], 1)), graph, mode)
    with pytest.raises(ConfigError, match="`k` must be a whole number"):
        tfgraphreg.Packed(0)
    with pytest.raises(ConfigError, match="Unknown way to sample"):
        tfgraphreg.Gathered(2, "best")


@pytest.mark.parametrize("backbone", ["ResNetBackbone", "ViTBackbone", "DINOV2Backbone"])
def test_a_backbone_of_keras_hub_trains(backbone, graph):
    hub = pytest.importorskip(
        "keras_hub", reason="keras-hub, of the extra keras-hub, is not installed"
    )
    import keras as keras_3

    sizes = {
        "ResNetBackbone": {
            "input_conv_filters": [64],
            "input_conv_kernel_sizes": [3],
            "stackwise_num_filters": [64],
            "stackwise_num_blocks": [1],
            "stackwise_num_strides": [1],
            "block_type": "basic_block",
        },
        "ViTBackbone": {
            "patch_size": (8, 8),
            "num_layers": 1,
            "num_heads": 2,
            "hidden_dim": 16,
            "mlp_dim": 32,
        },
        "DINOV2Backbone": {
            "patch_size": 8,
            "num_layers": 1,
            "hidden_dim": 16,
            "num_heads": 2,
            "intermediate_dim": 32,
            "position_embedding_shape": (16, 16),
        },
    }[backbone]
    network = getattr(hub.models, backbone)(image_shape=(16, 16, 3), **sizes)
    features = keras_3.layers.Flatten()(network.output)
    embedding = keras_3.layers.Dense(4, name="embedding")(features)
    base = keras_3.Model(network.input, keras_3.layers.Dense(3)(embedding))
    images = RNG.uniform(0, 1, (N, 16, 16, 3)).astype(np.float32)
    for mode in (tfgraphreg.Paired(), tfgraphreg.Gathered(1)):
        model = tfgraphreg.GraphRegularization(base, embedding="embedding")
        loss = keras_3.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, run_eagerly=True)
        data = tfgraphreg.with_neighbors((images, Y), graph, mode, batch_size=20)
        logs = model.fit(data, verbose=0).history
        assert np.isfinite(logs["loss"][0]) and logs["graph_loss"][0] > 0
