"""Where the map lies: the layer that is read by default is what the network pools."""

import numpy as np
import pytest
from nets import batch, gap_net

from xai_utils import attribution, keras, models, tf
from xai_utils.engine import cached
from xai_utils.models import APPLICATIONS, Preprocess, capture, check_layer, default_layer

layers, ops = keras.layers, keras.ops
SHAPE = (None, 12, 12, 3)


def residual(last: str = "relu") -> keras.Model:
    """`relu(x + conv(x))` or `x + conv(x)`, made by operations, then pooled."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input(SHAPE[1:])
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="stem")(inputs)
    x = x + layers.Conv2D(6, 3, padding="same", name="branch")(x)
    if last == "relu":
        x = ops.relu(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    head = layers.Dense(4, bias_initializer="random_normal", name="logits")
    return keras.Model(inputs, head(x), name="residual")


def as_loaded(inner: keras.Model) -> keras.Model:
    """As `load_model` brings a model: from pixels, inside another one."""
    pixels = keras.Input(inner.input_shape[1:], name="pixels")
    return keras.Model(pixels, inner(Preprocess("none", name="preprocess")(pixels)), name="mine")


def pooled_by_hand(model, path, images):
    with capture(model, [path, "pool"]) as found:
        outputs = model(images)
    return found[path].numpy(), found["pool"].numpy(), outputs.numpy()


# --- the tensor that is pooled --------------------------------------------------------------------


@pytest.mark.parametrize("nesting", [lambda model: model, as_loaded])
@pytest.mark.parametrize("last", ["relu", "add"])
def test_an_operation_that_made_the_pooled_tensor_is_read(last, nesting):
    model, images = nesting(residual(last)), batch()
    path = default_layer(model, SHAPE)
    assert path.rpartition("/")[2].startswith(last)
    assert path.startswith("residual/") == (nesting is as_loaded)
    maps, pool, logits = pooled_by_hand(model, path, images)
    np.testing.assert_allclose(maps.mean((1, 2)), pool, rtol=1e-5)
    bias = models.find_layer(model, "logits").bias.numpy()
    for target in range(4):
        found = attribution.hires_cam(model, images, target).sum((1, 2)) + bias[target]
        np.testing.assert_allclose(found, logits[:, target], rtol=1e-4)
    # what was read before: the residual branch alone
    branch = attribution.hires_cam(model, images, 0, layer="branch").sum((1, 2)) + bias[0]
    assert np.abs(branch - logits[:, 0]).max() > 0.01


HEADS = {
    "average": lambda x: layers.GlobalAveragePooling2D()(x),
    "maximum": lambda x: layers.GlobalMaxPooling2D()(x),
    "kept axes": lambda x: layers.Flatten()(layers.GlobalAveragePooling2D(keepdims=True)(x)),
    "mean": lambda x: ops.mean(x, axis=(1, 2)),
    "mean twice": lambda x: ops.mean(ops.mean(x, axis=1), axis=1),
    "pooling to 1 x 1": lambda x: layers.Flatten()(layers.AveragePooling2D(6)(x)),
    "flatten": lambda x: layers.Flatten()(x),
    "reshape": lambda x: layers.Reshape((-1,))(x),
    "tokens without anything": lambda x: layers.GlobalAveragePooling1D()(
        layers.Reshape((36, 6))(x)
    ),
    "convolution as head": lambda x: layers.Flatten()(layers.Conv2D(8, 6)(x)),
    "local pooling": lambda x: layers.Flatten()(
        layers.MaxPooling2D()(layers.SpatialDropout2D(0.5)(x))
    ),
    "two poolings": lambda x: layers.Concatenate()(
        [layers.GlobalAveragePooling2D()(x), layers.GlobalMaxPooling2D()(x)]
    ),
    "squeeze and excitation behind": lambda x: (
        layers.GlobalAveragePooling2D()(x)
        * layers.Dense(6, "sigmoid")(layers.GlobalAveragePooling2D()(x))
    ),
}


@pytest.mark.parametrize("head", HEADS)
def test_whatever_pools_is_followed_back_to_what_it_pools(head):
    body = gap_net()
    inputs = keras.Input(SHAPE[1:])
    x = layers.Conv2D(4, 3, padding="same", name="early")(inputs)
    x = layers.Conv2D(6, 3, 2, padding="same", name="features")(x)
    x = layers.BatchNormalization(name="normalised")(x)
    x = layers.Dense(7, "relu")(layers.Dropout(0.2)(HEADS[head](x)))
    assert default_layer(keras.Model(inputs, layers.Dense(5)(x)), SHAPE) == "normalised"
    # the same head as a model of its own, nested in a Sequential one
    features = keras.Model(body.input, body.get_layer("features").output, name="body")
    ending = keras.Input((6, 6, 6))
    ending = keras.Model(ending, layers.Dense(5)(HEADS[head](ending)), name="ending")
    for model in (
        keras.Sequential([features, ending]),
        keras.Sequential([keras.Input(SHAPE[1:]), layers.Rescaling(1 / 255), features, ending]),
        as_loaded(keras.Sequential([features, ending], name="whole")),
    ):
        assert default_layer(model, SHAPE).removeprefix("whole/") == "body/features"


def test_of_several_pooled_tensors_the_deepest_is_read():
    inputs = keras.Input(SHAPE[1:])
    one = layers.Conv2D(4, 3, name="one")(inputs)
    two = layers.Conv2D(4, 3, name="two")(one)
    pooled = [layers.GlobalAveragePooling2D()(x) for x in (two, one)]
    seen = [layers.Flatten()(layers.Resizing(2, 2)(inputs))]  # the picture itself is no map
    model = keras.Model(inputs, layers.Dense(3)(layers.Concatenate()(pooled + seen)))
    assert default_layer(model, SHAPE) == "two"


def test_a_picture_that_is_only_prepared_is_no_map():
    inputs = keras.Input(SHAPE[1:])
    x = layers.Normalization(mean=3.0, variance=2.0)(inputs / 255 - 0.5)
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    with pytest.raises(ValueError, match="no layer returns a map.*need only scores"):
        default_layer(model, SHAPE)


class Head(layers.Layer):
    """A layer of layers, without a graph, that pools."""

    def __init__(self, convolution=False):
        super().__init__(name="head")
        self.first = layers.Conv2D(3, 1, name="inside") if convolution else layers.Dropout(0.5)
        self.pool = layers.GlobalAveragePooling2D()
        self.dense = layers.Dense(5)

    def call(self, x):
        return self.dense(self.pool(self.first(x)))


@pytest.mark.parametrize(("convolution", "right"), [(False, "features"), (True, "head/inside")])
def test_a_head_without_a_graph(convolution, right):
    net = gap_net()
    outputs = Head(convolution)(net.get_layer("features").output)
    assert default_layer(keras.Model(net.input, outputs), SHAPE) == right


class Net(keras.Model):
    """A subclassed network around a functional one, with an operation inside."""

    def __init__(self):
        super().__init__(name="net")
        inner = residual()
        self.base = keras.Model(inner.input, inner.get_layer("pool").input, name="base")
        self.head = layers.Dense(4, name="logits")

    def call(self, x):
        return self.head(tf.reduce_mean(self.base(x), (1, 2)))


def test_a_network_without_a_graph_and_one_around_it():
    model = Net()
    model(batch())
    found = default_layer(model, SHAPE)
    assert found.startswith("base/relu")
    pixels = keras.Input(SHAPE[1:])
    assert default_layer(keras.Model(pixels, model(pixels)), SHAPE) == f"net/{found}"


def test_a_network_of_free_size_whose_last_map_is_one_position():
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, 4, padding="same", name="early")(inputs)
    x = layers.Conv2D(4, 3, 4, padding="same", name="late")(x)
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    assert default_layer(model, (None, 64, 64, 3)) == "late"
    assert default_layer(model, (None, 16, 16, 3)) == "early"


def test_the_default_that_the_user_chose_comes_first():
    model = gap_net()
    cached(model, "layer", lambda: "early")
    assert default_layer(model, SHAPE) == check_layer(model, SHAPE, None) == "early"
    assert attribution.grad_cam(model, batch(), 0).shape == (3, 12, 12)
    assert check_layer(model, SHAPE, "features") == "features"
    wrong = gap_net()
    cached(wrong, "layer", lambda: "pool")
    with pytest.raises(ValueError, match="'pool' returns .*'features' would do"):
        check_layer(wrong, SHAPE, None)


# --- attention ------------------------------------------------------------------------------------


# --- operations are recorded as layers are --------------------------------------------------------


@pytest.mark.parametrize("nesting", [lambda model: model, as_loaded])
def test_operations_have_paths_shapes_and_parts(nesting):
    model, images = nesting(residual()), batch()
    paths = [path for path, part in models.walk(model) if type(part).__name__ == "Add"]
    assert len(paths) == 1
    (path,) = paths
    assert models.find_layer(model, path) is models.find_layer(model, path.rpartition("/")[2])
    assert models.layer_shape(model, SHAPE, path) == (None, 12, 12, 6)
    assert check_layer(model, SHAPE, path) == path
    with capture(model, ["stem", "branch", path]) as found:
        expected = model(images)
    np.testing.assert_array_equal(found[path], found["stem"] + found["branch"])
    np.testing.assert_array_equal(models.code_at(model, images, path), found[path])
    part = models.up_to(model, path)
    assert (part is model) == (nesting is as_loaded)
    assert "call" not in vars(models.find_layer(model, path))
    np.testing.assert_array_equal(model(images), expected)


def test_a_tape_watches_an_operation_and_nothing_before_it():
    model = residual("add")
    path = default_layer(model, SHAPE)
    tape = tf.GradientTape(watch_accessed_variables=False, persistent=True)
    with tape, capture(model, ["stem", path]) as found, capture(model, [path], tape):
        score = model(batch())[:, 1]
    kernel = model.get_layer("logits").kernel.numpy()[:, 1]
    expected = np.broadcast_to(kernel / 144, (3, 12, 12, 6))
    np.testing.assert_allclose(tape.gradient(score, found[path]), expected, rtol=1e-5)
    assert tape.gradient(score, found["stem"]) is None


def test_what_goes_into_an_operation_that_is_an_activation():
    model, images = residual(), batch()
    path = default_layer(model, SHAPE)
    code = models.code_at(model, images, path, before_activation=True).numpy()
    assert code.min() < 0
    np.testing.assert_array_equal(np.maximum(code, 0), models.code_at(model, images, path))
    plain = residual("add")
    with pytest.raises(ValueError, match="no activation"):
        models.code_at(plain, images, default_layer(plain, SHAPE), before_activation=True)


def test_an_operation_without_a_name_of_its_own_ends_the_block_it_stands_in():
    inputs, sums = keras.Input(SHAPE[1:]), []
    x = layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
    for number in range(3):
        x = x + layers.Conv2D(4, 3, padding="same", name=f"stage_{number}_branch")(x)
        sums.append(x._keras_history.operation.name)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, layers.Dense(3)(x))
    assert models.stages(model, SHAPE) == [*sums, "pool"]


def test_stages_begin_at_the_first_weights_and_end_before_the_head_of_a_network_in_a_network():
    inputs = keras.Input(SHAPE[1:])
    x = layers.Conv2D(4, 3, strides=2, padding="same", name="stem")(inputs)
    x = layers.Conv2D(4, 3, strides=2, padding="same", name="features")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    for ending in ("sigmoid", None):  # of one unit; then of three
        head = layers.Dense(1 if ending else 3, activation=ending, name="head")(x)
        net = keras.Model(inputs, head, name="net")
        labels = ("yes", "no") if ending else ("a", "b", "c")
        own = models.load_model(net, preprocessing="unit", labels=labels)
        assert models.stages(own.model, SHAPE) == ["net/stem", "net/features", "net/pool"]


def test_weights_are_shuffled_past_operations():
    from xai_utils.metrics import cascade

    assert cascade(residual()) == ["logits", "branch", "stem"]


# --- the networks of keras.applications -----------------------------------------------------------

SMALLEST = {  # of each family, and the layer that is read
    "vgg16": "block5_conv3",
    "resnet50": "conv5_block3_out",
    "resnet50_v2": "post_relu",
    "densenet121": "relu",
    "xception": "block14_sepconv2_act",
    "inception_v3": None,  # named by Keras as it goes
    "mobilenet": "conv_pw_13_relu",
    "mobilenet_v2": "out_relu",
    "mobilenet_v3_small": None,
    "nasnet_mobile": None,
    "efficientnet_b0": "top_activation",
    "efficientnet_v2_b0": "top_activation",
    "convnext_tiny": None,
}


@pytest.mark.parametrize("name", SMALLEST)
def test_pooling_the_default_map_of_an_application_gives_what_its_head_gets(name):
    keras.utils.set_random_seed(0)
    constructor, _, mode = APPLICATIONS[name]
    size = 128 if name.startswith("inception") else 64  # at least 2 x 2 positions are pooled
    pixels = keras.Input((size, size, 3), name="pixels")
    given = pixels if mode == "none" else Preprocess(mode, name="preprocess")(pixels)
    model = getattr(keras.applications, constructor)(
        weights=None, input_tensor=given, classes=5, classifier_activation=None
    )
    path = default_layer(model, model.input_shape)
    assert SMALLEST[name] in (path, None)
    kind = layers.Flatten if name == "vgg16" else layers.GlobalAveragePooling2D
    number = max(i for i, part in enumerate(model.layers) if isinstance(part, kind))
    pool, behind = model.layers[number].name, model.layers[number + 1 :]
    images = batch(size, 1) * 128 + 128
    images = [images] if isinstance(model.input, list) else images
    tape = tf.GradientTape(watch_accessed_variables=False)
    with tape, capture(model, [path, pool], tape) as found:
        score = model(images, training=False)[:, 2]
    maps, head = found[path], np.ravel(found[pool])
    if name == "vgg16":  # a local pooling stands between
        np.testing.assert_array_equal(np.ravel(layers.MaxPooling2D()(maps)), head)
        return
    assert np.abs(head).max() > 0
    np.testing.assert_allclose(np.mean(maps, (1, 2))[0], head, rtol=1e-5, atol=1e-6 * head.max())
    if [part for part in behind if not isinstance(part, layers.Dropout)] == model.layers[-1:]:
        # one Dense layer: HiResCAM's sum is the logit without its bias, which is zero here
        np.testing.assert_allclose(np.sum(tape.gradient(score, maps) * maps), score[0], rtol=1e-4)


# --- a part of the picture ------------------------------------------------------------------------

CUTS = {
    "centre": (lambda x: layers.CenterCrop(32, 24)(x), "the middle 32 x 24 of 48 x 64"),
    "enlarged": (
        lambda x: layers.CenterCrop(32, 32)(layers.Resizing(96, 128)(x)),
        "the middle 16 x 16 of 48 x 64",
    ),
    "aspect": (
        lambda x: layers.Resizing(24, 24, crop_to_aspect_ratio=True)(x),
        "the middle 48 x 48 of 48 x 64",
    ),
    "sides": (
        lambda x: layers.Cropping2D(((8, 0), (4, 20)))(x),
        "rows 8 to 48 and columns 4 to 44 of 48 x 64",
    ),
    "slice": (lambda x: x[:, 8:-8, 8:-8] / 255, "the middle 32 x 48 of 48 x 64"),
    "padded": (lambda x: layers.Resizing(64, 64, pad_to_aspect_ratio=True)(x), "the borders too"),
}
WHOLE = {
    "resized": lambda x: layers.Resizing(20, 20)(x),
    "prepared": lambda x: layers.ZeroPadding2D(4)(layers.Rescaling(1 / 127.5, -1)(x)),
    "augmented": lambda x: keras.Sequential([layers.RandomFlip(), layers.RandomZoom(0.2)])(x),
    "one channel": lambda x: layers.AveragePooling2D(2)(ops.mean(x, axis=-1, keepdims=True)),
}


def cutting(cut) -> keras.Model:
    inputs = keras.Input((48, 64, 3))
    x = layers.Normalization(mean=100.0, variance=50.0)(cut(inputs))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, padding="same", name="features")(x))
    return keras.Model(inputs, layers.Dense(3)(x), name="cutting")


def tall(images: int = 1) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (images, 48, 64, 3)).astype(np.float32)


@pytest.mark.parametrize("nesting", [lambda model: model, as_loaded])
@pytest.mark.parametrize("cut", CUTS)
def test_a_map_of_a_part_of_the_picture_says_so(cut, nesting):
    step, part = CUTS[cut]
    model = nesting(cutting(step))
    for _ in range(2):  # each time, not only when the layer is looked up
        with pytest.warns(UserWarning, match=part) as caught:
            attribution.grad_cam(model, tall(), 0, relu=False)
        assert len(caught) == 1 and "\n" not in str(caught[0].message)
    assert not [step for _, step in models.walk(model) if "call" in vars(step)]


@pytest.mark.parametrize("nesting", [lambda model: model, as_loaded])
@pytest.mark.parametrize("step", WHOLE)
@pytest.mark.filterwarnings("error")
def test_a_map_of_the_whole_picture_says_nothing(step, nesting):
    attribution.grad_cam(nesting(cutting(WHOLE[step])), tall(), 0, relu=False)


def test_a_crop_in_a_network_without_a_graph():
    class Cutting(keras.Model):
        def __init__(self):
            super().__init__(name="cutting")
            self.crop, self.conv = layers.CenterCrop(24, 32), layers.Conv2D(4, 3, name="features")
            self.head = layers.Dense(3)

        def call(self, x):
            return self.head(tf.reduce_mean(self.conv(self.crop(x)), (1, 2)))

    with pytest.warns(UserWarning, match="the middle 24 x 32 of 48 x 64"):
        attribution.grad_cam(Cutting(), tall(), 0, relu=False)
