"""Tokens as maps: which tokens of a transformer are the places of a picture, and what is read."""

import numpy as np
import pytest
from nets import batch

from xai_utils import attribution, keras, models, tf
from xai_utils.models import Preprocess, capture, default_layer
from xai_utils.models.shapes import Grid

layers, ops = keras.layers, keras.ops
SHAPE = (None, 64, 64, 3)


def as_loaded(inner: keras.Model) -> keras.Model:
    """As `load_model` brings a model: from pixels, inside another one."""
    pixels = keras.Input(inner.input_shape[1:], name="pixels")
    return keras.Model(pixels, inner(Preprocess("none", name="preprocess")(pixels)), name="mine")


def grid_of(model, path) -> Grid:
    """What was measured of a layer's tokens."""
    models.output_shapes(model, model.input_shape)
    return models.shapes.grid_of(model, models.find_layer(model, path), model.input_shape)


# --- networks of one block ------------------------------------------------------------------------


def transformer(kind: str = "plain") -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((64, 64, 3))
    x = layers.Conv2D(8, 8, 8, name="patches")(inputs)
    x = layers.Reshape((64, 8), name="tokens")(x)
    if kind == "residual":
        x = x + layers.MultiHeadAttention(2, 4, name="mha")(layers.LayerNormalization()(x), x)
        x = ops.add(x, layers.Dense(8, name="mlp")(layers.Dense(16, "gelu")(x)))
    elif kind == "normalised":
        x = x + layers.MultiHeadAttention(2, 4, name="mha")(x, x)
        x = layers.LayerNormalization(name="norm")(x)
    elif kind == "grouped":
        x = layers.GroupQueryAttention(4, 2, 1, name="mha")(x, x)
    elif kind == "by hand":
        heads = [
            ops.transpose(ops.reshape(layers.Dense(8)(x), (-1, 64, 2, 4)), (0, 2, 1, 3))
            for _ in range(3)
        ]
        share = ops.softmax(ops.matmul(heads[0], ops.transpose(heads[1], (0, 1, 3, 2))))
        x = ops.reshape(ops.transpose(ops.matmul(share, heads[2]), (0, 2, 1, 3)), (-1, 64, 8))
    elif kind == "mixer":
        mixed = layers.Permute((2, 1))(layers.Dense(64)(layers.Permute((2, 1))(x)))
        x = layers.Add(name="sum")([x, mixed])
    else:
        x = layers.MultiHeadAttention(2, 4, name="mha")(x, x)
    x = x[:, 0] if kind == "first token" else layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(2)(x), name="vit")


class Transformer(keras.Model):
    def __init__(self):
        super().__init__(name="vit")
        self.patches = layers.Conv2D(8, 8, 8, name="patches")
        self.mha = layers.MultiHeadAttention(2, 4, name="mha")
        self.head = layers.Dense(2)

    def call(self, x):
        x = tf.reshape(self.patches(x), (-1, 64, 8))
        return self.head(tf.reduce_mean(self.mha(x, x), 1))


def subclassed_transformer():
    model = Transformer()
    model(np.zeros((1, 64, 64, 3), np.float32))
    return model


# What bare attention returns tells which place asked: the map is what it was made from.
READ = {
    "plain": "patches",
    "residual": "add",
    "normalised": "norm",
    "grouped": "patches",
    "by hand": "patches",
    "mixer": "sum",
    "first token": "patches",
    "subclassed": "patches",
}


@pytest.mark.parametrize("nesting", [lambda model: model, as_loaded])
@pytest.mark.parametrize("kind", READ)
def test_the_tokens_that_are_read_are_the_map(kind, nesting):
    if kind != "subclassed":
        model = nesting(transformer(kind))
    else:
        model = subclassed_transformer()
        if nesting is as_loaded:
            pixels = keras.Input((64, 64, 3))
            model = keras.Model(pixels, model(pixels))
    assert default_layer(model, SHAPE).removeprefix("vit/").rstrip("_0123456789") == READ[kind]
    images = batch(64)
    assert attribution.grad_cam(model, images, 0).shape == (3, 8, 8)
    # the layer that cuts the picture and the tokens it is made into are the same map
    if kind != "subclassed":
        found = [attribution.hires_cam(model, images, 0, layer) for layer in ("patches", "tokens")]
        np.testing.assert_allclose(*found, atol=1e-6)


def test_every_technique_that_reads_a_layer_takes_tokens():
    model, images = transformer("normalised"), batch(64)
    logits = model(images).numpy()
    bias = model.layers[-1].bias.numpy()
    maps = attribution.hires_cam(model, images, 1)
    # the head is linear in the mean of the tokens
    np.testing.assert_allclose(maps.sum((1, 2)) + bias[1], logits[:, 1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(attribution.cam(model, images, 1), maps * 64, atol=1e-5)
    for name in ("grad_cam_plus_plus", "layer_cam", "xgrad_cam", "score_cam", "eigen_cam"):
        found = getattr(attribution, name)(model, images, 1)
        assert found.shape == (3, 8, 8) and np.isfinite(found).all()
    # by hand, from the tokens themselves
    with tf.GradientTape() as tape:
        tokens = keras.Model(model.input, model.get_layer("norm").output)(images)
        tape.watch(tokens)
        score = model.layers[-1](tf.reduce_mean(tokens, axis=1))[:, 1]
    weights = tf.reduce_mean(tape.gradient(score, tokens), axis=1, keepdims=True)
    by_hand = tf.nn.relu(tf.reduce_sum(weights * tokens, axis=-1))
    found = attribution.grad_cam(model, images, 1).reshape(3, 64)
    np.testing.assert_allclose(found, by_hand, atol=1e-6)


def test_the_inside_of_an_attention_layer_is_refused_and_no_stage():
    model = transformer()
    assert models.layer_shape(model, (1, 64, 64, 3), "mha/value") == (None, 64, 2, 4)
    with pytest.raises(ValueError, match="inside an attention layer, .*'patches' would do"):
        attribution.grad_cam(model, batch(64), 0, layer="mha/value")
    assert [*models.map_layers(model, (1, 64, 64, 3))] == ["patches", "tokens", "mha"]
    assert not [path for path in models.stages(model, (1, 64, 64, 3)) if "mha/" in path]


def test_tokens_that_are_made_a_map_again_are_one():
    vit = transformer()
    for attended, right in (("mha", "patches"), ("tokens", "patches")):
        grid = layers.Reshape((8, 8, 8))(vit.get_layer(attended).output)
        pooled = layers.GlobalAveragePooling2D()
        assert default_layer(keras.Model(vit.input, pooled(grid)), SHAPE) == right
        last = layers.Conv2D(4, 3, padding="same", name="last")(grid)
        assert default_layer(keras.Model(vit.input, pooled(last)), SHAPE) == "last"


# --- which tokens are places ----------------------------------------------------------------------


class Extra(layers.Layer):
    """Learned tokens before and after those of the picture, and a place added to each."""

    def __init__(self, before=1, after=0, **kwargs):
        super().__init__(**kwargs)
        self.counts = before, after

    def build(self, shape):
        width, normal = shape[-1], keras.initializers.RandomNormal(seed=1)
        self.extra = [self.add_weight((1, n, width), normal) for n in self.counts]
        self.places = self.add_weight((1, shape[1] + sum(self.counts), width), normal)

    def call(self, x):
        wide = [ops.broadcast_to(t, (ops.shape(x)[0], *t.shape[1:])) for t in self.extra]
        return ops.concatenate([wide[0], x, wide[1]], axis=1) + self.places


def blocks(x, count: int = 2):
    """Transformer blocks that normalise before they attend, and a normalisation at the end."""
    for i in range(count):
        normal = layers.LayerNormalization(name=f"block{i}_norm1")(x)
        x = x + layers.MultiHeadAttention(2, 6, name=f"block{i}_attention")(normal, normal)
        normal = layers.LayerNormalization(name=f"block{i}_norm2")(x)
        x = x + layers.Dense(12)(layers.Dense(24, "gelu")(normal))
    return layers.LayerNormalization(name="norm")(x)


def cut(x, rows, columns, how="convolution"):
    if how == "patches":
        x = ops.image.extract_patches(x, 8)
        return layers.Dense(12)(ops.reshape(x, (-1, rows * columns, x.shape[-1])))
    return layers.Reshape((rows * columns, 12))(layers.Conv2D(12, 8, 8, name="patches")(x))


@pytest.mark.parametrize(
    "rows, columns, before, after",
    [(4, 4, 0, 0), (3, 6, 1, 0), (5, 2, 0, 1), (4, 3, 5, 0), (3, 5, 1, 4), (2, 7, 0, 0)],
)
def test_the_grid_is_measured(rows, columns, before, after):
    keras.utils.set_random_seed(2)
    inputs = keras.Input((8 * rows, 8 * columns, 3))
    x = cut(inputs, rows, columns, "patches" if before else "convolution")
    x = blocks(Extra(before, after, name="extra")(x) if before or after else x)
    model = keras.Model(inputs, layers.Dense(3)(ops.mean(x, axis=1)))
    assert default_layer(model, model.input_shape) == "norm"
    assert grid_of(model, "norm") == Grid(rows, columns, before, after)
    # a change of one patch changes its own token before any are mixed
    images = np.zeros((1, *model.input_shape[1:]), np.float32)
    changed = images.copy()
    changed[:, 8 * (rows - 1) : 8 * rows, 8:16] = 100
    first = "extra" if before or after else "block0_norm1"
    with capture(model, [first]) as found:
        model(images), (plain := found[first].numpy()), model(changed)
    where = np.argwhere(np.abs(found[first] - plain).max(axis=(0, 3)) > 0)
    np.testing.assert_array_equal(where, [[rows - 1, 1]])


@pytest.mark.parametrize("registers", [0, 4])
def test_where_the_head_reads_the_class_token_the_map_is_what_its_attention_read(registers):
    keras.utils.set_random_seed(2)
    inputs = keras.Input((32, 32, 3))
    x = blocks(Extra(1 + registers)(cut(inputs, 4, 4)))
    model = keras.Model(inputs, layers.Dense(3)(x[:, 0]))
    assert default_layer(model, model.input_shape) == "block1_norm1"
    images = batch(32)
    with pytest.warns(UserWarning, match="the score does not change with 'norm'"):
        assert not attribution.grad_cam(model, images, 0, layer="norm").any()
    assert attribution.hires_cam(model, images, 0).any(axis=(1, 2)).all()


def test_recording_tokens_leaves_the_class_token_and_the_answers_as_they_are():
    keras.utils.set_random_seed(2)
    inputs = keras.Input((32, 32, 3))
    x = blocks(Extra(1, 2)(cut(inputs, 4, 4)))
    model, images = keras.Model(inputs, layers.Dense(3)(x[:, 0])), tf.constant(batch(32))
    tape = tf.GradientTape(watch_accessed_variables=False)
    with tape, capture(model, ["block0_norm2", "block1_norm1"], tape) as found:
        recorded = model(images)
    np.testing.assert_array_equal(recorded, model(images))
    assert found["block1_norm1"].shape == (3, 4, 4, 12)
    tokens = keras.Model(inputs, model.get_layer("block1_norm1").output)(images)
    np.testing.assert_allclose(found["block1_norm1"], tf.reshape(tokens[:, 1:17], (3, 4, 4, 12)))
    assert all(g is not None for g in tape.gradient(recorded, [*found.values()]))


def test_windows_of_a_picture_are_no_grid_and_four_axes_are():
    """As in a Swin transformer: attention within windows, tokens kept as a map between blocks."""
    keras.utils.set_random_seed(2)
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 4, 4, name="patches")(inputs)  # 8 x 8
    normal = layers.LayerNormalization(name="norm1")(x)
    windows = ops.reshape(normal, (-1, 2, 4, 2, 4, 8))
    windows = ops.reshape(ops.transpose(windows, (0, 1, 3, 2, 4, 5)), (-1, 16, 8))
    windows = layers.MultiHeadAttention(2, 4, name="attention")(windows, windows)
    back = ops.transpose(ops.reshape(windows, (-1, 2, 2, 4, 4, 8)), (0, 1, 3, 2, 4, 5))
    x = layers.Add(name="sum")([x, ops.reshape(back, (-1, 8, 8, 8))])
    x = layers.LayerNormalization(name="norm")(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    assert default_layer(model, model.input_shape) == "norm"
    assert not models.is_spatial(models.layer_shape(model, model.input_shape, "attention"))
    with pytest.raises(ValueError, match="'attention' returns .* not maps"):
        attribution.grad_cam(model, batch(32), 0, layer="attention")


def column_by_column(size=(32, 32)) -> keras.Model:
    """A network whose tokens lie in another order, which no grid row by row agrees with."""
    keras.utils.set_random_seed(2)
    inputs = keras.Input((*size, 3))
    x = layers.Permute((2, 1, 3))(layers.Conv2D(12, 8, 8, name="patches")(inputs))
    x = blocks(layers.Reshape((size[0] * size[1] // 64, 12))(x))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)), name="mine")


def test_what_is_not_plain_is_asked_for_and_can_be_said():
    with pytest.raises(ValueError, match=r"give load_model tokens=\(rows, .*layer='patches'") as e:
        attribution.grad_cam(column_by_column(), batch(32), 0)
    assert "\n" not in str(e.value)
    said = models.load_model(column_by_column(), preprocessing="none", task="regression")
    assert said.conv_layer is None
    said = models.load_model(
        column_by_column(), preprocessing="none", task="regression", tokens=[2, 8]
    )
    assert said.conv_layer == "mine/norm"
    assert attribution.grad_cam(said.model, batch(32), 0).shape == (3, 2, 8)


@pytest.mark.parametrize("wrong", [[4], [4, 4, 1, 1, 1], [0, 4], [4.0, 4], "4x4", [4, -4]])
def test_tokens_that_are_no_grid_are_refused(wrong):
    with pytest.raises(ValueError, match=r"tokens are rows and columns of their grid.*not "):
        models.load_model(column_by_column(), preprocessing="none", task="regression", tokens=wrong)


def test_a_grid_that_no_layer_has_is_refused():
    with pytest.raises(ValueError, match=r"no layer of 17 tokens, as \[4, 4, 1\] says"):
        models.load_model(
            column_by_column(), preprocessing="none", task="regression", tokens=[4, 4, 1]
        )


def of_any_size() -> keras.Model:
    """A network whose head is linear in the mean of its tokens."""
    keras.utils.set_random_seed(2)
    inputs = keras.Input((None, None, 3))
    x = layers.Reshape((-1, 12))(layers.Conv2D(12, 8, 8, name="patches")(inputs))
    x = layers.LayerNormalization(name="norm")(x)
    return keras.Model(inputs, layers.Dense(2)(ops.mean(x, axis=1)))


def test_as_many_tokens_are_another_grid_for_pictures_of_another_shape():
    whole = np.random.default_rng(0).uniform(0, 255, (1, 32, 64, 3)).astype(np.float32)
    both, model = [whole, whole.transpose(0, 2, 1, 3)], of_any_size()
    for images in [*both, *both]:
        rows, columns = images.shape[1] // 8, images.shape[2] // 8
        tokens = keras.Model(model.input, model.get_layer("norm").output)(images)
        code = models.code_at(model, tf.constant(images), "norm")
        np.testing.assert_array_equal(code, tf.reshape(tokens, (1, rows, columns, 12)))
        assert attribution.grad_cam(of_any_size(), images, 0).shape == (1, rows, columns)
        assert attribution.saliency(model, images, 0).shape == images.shape[:3]
        assert attribution.occlusion(model, images, 0, 16, 16).shape == (1, rows // 2, columns // 2)


def test_one_compiled_function_never_takes_one_grid_for_another():
    model = of_any_size()
    assert attribution.grad_cam(model, np.ones((1, 32, 64, 3)) * 9, 0).shape == (1, 4, 8)
    with pytest.raises(ValueError, match=r"pictures of several sizes, .*load_model\(model, size="):
        attribution.grad_cam(model, np.ones((1, 64, 32, 3)) * 9, 0)


class OfAnyNumber(keras.Model):
    """A network that is traced without knowing how many tokens it has."""

    def __init__(self):
        super().__init__(name="vit")
        self.patches = layers.Conv2D(8, 8, 8)
        self.norm = layers.LayerNormalization(name="norm")
        self.attend = layers.MultiHeadAttention(2, 4, name="attend")
        self.head = layers.Dense(2)

    def call(self, x):
        x = self.patches(x)
        x = self.norm(tf.reshape(x, (tf.shape(x)[0], -1, 8)))
        return self.head(tf.reduce_mean(x + self.attend(x, x), axis=1))


@pytest.mark.parametrize("name", ["grad_cam", "hires_cam", "score_cam", "eigen_cam"])
def test_tokens_whose_number_is_not_known_before_they_run_are_a_map(name):
    model = OfAnyNumber()
    model(np.zeros((1, 32, 64, 3), np.float32))
    found = getattr(attribution, name)(model, batch(64)[:, :32], 0)
    assert found.shape == (3, 4, 8) and np.isfinite(found).all()
    for name in ("attention_rollout", "attention_relevance"):
        assert getattr(attribution, name)(model, batch(64)[:, :32], 0).shape == (3, 4, 8)


def test_nothing_is_computed_for_techniques_that_read_no_layer():
    model, ran = transformer(), []
    call = model.get_layer("mha").call
    vars(model.get_layer("mha"))["call"] = lambda *args, **kwargs: (
        ran.append(args[0].shape[0]),
        call(*args, **kwargs),
    )[1]
    attribution.occlusion(model, batch(64), 0, 32, 32)
    assert 4 not in ran
