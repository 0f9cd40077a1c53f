"""Attention and what is made of it: known answers, and the numbers of a closed form."""

import numpy as np
import pytest
from nets import batch

from xai_utils import attribution, keras, tf
from xai_utils.models import capture_attention

layers, ops = keras.layers, keras.ops
ROLLED = ("raw_attention", "attention_rollout")
SPEAKING = ("gradient_attention", "attention_relevance")


class ClassToken(layers.Layer):
    def build(self, shape):
        self.token = self.add_weight((1, 1, shape[-1]), "random_normal")

    def call(self, x):
        token = ops.broadcast_to(self.token, (ops.shape(x)[0], 1, x.shape[-1]))
        return ops.concatenate([token, x], axis=1)


def transformer(blocks=2, heads=2, pooled=False, kind=layers.MultiHeadAttention, **settings):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = layers.Reshape((16, 12))(layers.Conv2D(12, 8, 8, name="patches")(x))
    x = x if pooled else ClassToken(name="class_token")(x)
    for i in range(blocks):
        x = layers.LayerNormalization(name=f"norm{i}")(x)
        if kind is layers.MultiHeadAttention:
            attend = kind(heads, 6, name=f"attention{i}", **settings)
        else:
            attend = kind(6, heads, 1, name=f"attention{i}", **settings)
        x = x + 3 * attend(x, x)
    x = layers.LayerNormalization(name="norm")(x)
    x = ops.mean(x, axis=1) if pooled else x[:, 0]
    return keras.Model(inputs, layers.Dense(3, name="head")(x), name="vit")


def by_hand(model, images, i):
    """The probabilities of a `MultiHeadAttention`, from its weights."""
    attend = model.get_layer(f"attention{i}")
    x = keras.Model(model.input, model.get_layer(f"norm{i}").output)(images)
    query, key = (dense(x) for dense in (attend.query_dense, attend.key_dense))
    return tf.nn.softmax(tf.einsum("nthd,nshd->nhts", query, key) / 6**0.5).numpy()


def written_by_hand(patch=None):
    """One attention, written as operations: the class token looks at one patch, or all at alike."""
    inputs = keras.Input((32, 32, 3))
    x = layers.Reshape((16, 1))(layers.Conv2D(1, 8, 8, name="patches")(inputs))
    x = ClassToken(name="class_token")(x)
    likes = np.zeros((17, 17), np.float32)
    if patch is not None:
        likes[0, patch + 1] = 50
    shares = ops.softmax(ops.matmul(x, ops.transpose(x, (0, 2, 1)))[:, None] * 0 + likes)
    model = keras.Model(inputs, layers.Dense(2, name="head")(ops.matmul(shares[:, 0], x)[:, 0]))
    model.get_layer("head").set_weights([np.array([[1, -1]]), np.array([0.3, 0.1])])
    (name,) = [op.name for op in model.operations if type(op).__name__ == "Softmax"]
    return model, [name]


# --- what is recorded -----------------------------------------------------------------------------


@pytest.mark.parametrize("nested", [False, True])
def test_attention_is_that_of_every_layer_and_head(nested):
    model, images = transformer(), batch(32)
    right = [by_hand(model, images, i) for i in range(2)]
    if nested:
        pixels = keras.Input((32, 32, 3))
        model = keras.Model(pixels, model(pixels))
    before = model(images).numpy()
    found = attribution.attention(model, images)
    assert found.shape == (3, 2, 2, 17, 17) and found.dtype == np.float32
    np.testing.assert_allclose(found, np.stack(right, axis=1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(model(images), before)
    alone = attribution.attention(model, images[1:2])
    np.testing.assert_allclose(found[1:2], alone, rtol=1e-4, atol=1e-6)


def test_fused_attention_is_off_for_the_time_alone(monkeypatch):
    model, images = transformer(flash_attention=True), batch(32)
    attend = model.get_layer("attention0")
    with pytest.raises(RuntimeError, match="inside"), capture_attention(model) as recorded:
        assert not attend._flash_attention
        answers = model(images)
        raise RuntimeError("inside")
    assert attend._flash_attention and len(recorded) == 2
    assert not {"call"} & vars(attend).keys()
    np.testing.assert_allclose(answers, transformer()(images), rtol=1e-5, atol=1e-6)


def test_grouped_queries_are_heads_too():
    found = attribution.attention(transformer(kind=layers.GroupQueryAttention), batch(32))
    assert found.shape == (3, 2, 2, 17, 17)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)


def test_the_gradient_of_attention_against_finite_differences():
    """In float64, from a change that is added to one layer's probabilities."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        model = transformer()
    finally:
        keras.config.set_dtype_policy(before)
    assert model.compute_dtype == "float64"
    images = tf.constant(batch(32)[:1], tf.float64)
    tape = tf.GradientTape(watch_accessed_variables=False)
    with tape, capture_attention(model, None, tape) as recorded:
        score = model(images)[0, 1]
    right = tape.gradient(score, recorded)[0][0].numpy()
    _, found = attribution.attention(model, images, 1, gradient=True)
    np.testing.assert_allclose(found[0, 0], right, rtol=1e-5, atol=1e-7)
    softmax = model.get_layer("attention0")._softmax
    plain, step = softmax.call, 1e-6
    for head, asks, asked in ((0, 0, 3), (1, 5, 9), (1, 16, 0)):
        change = np.zeros((1, 2, 17, 17))
        change[0, head, asks, asked] = step
        scores = []
        for sign in (1, -1):
            changed = lambda x, mask=None, s=sign: plain(x, mask) + s * change  # noqa: B023, E731
            vars(softmax)["call"] = changed
            with capture_attention(model):
                scores.append(float(model(images)[0, 1]))
            del vars(softmax)["call"]
        slope = (scores[0] - scores[1]) / (2 * step)
        np.testing.assert_allclose(right[head, asks, asked], slope, rtol=1e-5, atol=1e-9)


def test_what_cannot_be_recorded_is_said():
    convolutions = keras.Sequential(
        [keras.Input((32, 32, 3)), layers.Conv2D(2, 3), layers.Flatten()]
    )
    with pytest.raises(ValueError, match="has no MultiHeadAttention .* say by layers="):
        attribution.attention(convolutions, batch(32))
    for named in ("attention0", []):
        with pytest.raises(ValueError, match="layers is a list of names, such as"):
            attribution.attention_rollout(transformer(), batch(32), layers=named)
    with pytest.raises(ValueError, match="no layer 'attention9'; nearest: attention"):
        attribution.attention(transformer(), batch(32), layers=["attention9"])
    with pytest.raises(ValueError, match="attends from other tokens than to"):
        attribution.attention(transformer(), batch(32), layers=["norm0"])
    with pytest.raises(ValueError, match="heads are made one by mean, max, min, not 'sum'"):
        attribution.raw_attention(transformer(), batch(32), heads="sum")
    with pytest.raises(ValueError, match="residual is a share, 0 to 1, not 2"):
        attribution.attention_rollout(transformer(), batch(32), residual=2)
    uneven = transformer()
    x = layers.LayerNormalization()(uneven.get_layer("norm1").output)
    x = layers.MultiHeadAttention(3, 2, name="three")(x, x)
    uneven = keras.Model(uneven.input, layers.Dense(2)(x[:, 0]))
    with pytest.raises(ValueError, match="of 2 heads over 17 tokens and of 3 over 17"):
        attribution.attention(uneven, batch(32))


def test_windows_and_what_is_no_attention_are_refused():
    keras.utils.set_random_seed(2)
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(4, 8, 8)(inputs)
    windows = ops.reshape(
        ops.transpose(ops.reshape(x, (-1, 2, 2, 2, 2, 4)), (0, 1, 3, 2, 4, 5)), (-1, 4, 4)
    )
    attended = layers.MultiHeadAttention(2, 2, name="windows")(windows, windows)
    whole = layers.Reshape((16, 4))(x)
    last = layers.MultiHeadAttention(2, 2, name="whole")(whole, whole)
    pooled = ops.mean(ops.reshape(attended, (-1, 16, 4)) + last, axis=1)
    square = layers.Conv2D(4, 1, name="square")(x)
    outputs = layers.Dense(2)(ops.concatenate([pooled, ops.mean(square, axis=(1, 2))]))
    model, images = keras.Model(inputs, outputs), batch(32)
    for names in (None, ["windows"], ["square"]):
        with pytest.raises(
            ValueError, match="within windows .*rows add up to 1|over 4 tokens and"
        ) as caught:
            attribution.raw_attention(model, images, layers=names)
        assert "\n" not in str(caught.value)
    assert attribution.raw_attention(model, images, layers=["whole"]).shape == (3, 4, 4)


@pytest.mark.parametrize("name", SPEAKING)
def test_a_gradient_without_end_is_refused(name):
    whole = transformer()
    model = keras.Model(whole.input, ops.sqrt(0 * whole.output))
    with pytest.raises(ValueError, match=r"images \[0, 1, 2\] have no finite map"):
        getattr(attribution, name)(model, batch(32), 1)


def test_a_score_without_attention_is_refused():
    with pytest.raises(ValueError, match="does not depend on the attention of vit"):
        attribution.attention_relevance(transformer(), batch(32), lambda outputs: tf.ones(3))


# --- maps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooled", [False, True])
def test_rollout_is_the_closed_product(pooled):
    model, images = transformer(heads=1, pooled=pooled), batch(32)
    first, second = (by_hand(model, images, i)[:, 0] for i in range(2))
    tokens = 16 if pooled else 17
    product = (second + np.eye(tokens)) / 2 @ ((first + np.eye(tokens)) / 2)
    np.testing.assert_allclose(product.sum(-1), 1, rtol=1e-5)
    right = product.mean(1) if pooled else product[:, 0, 1:]
    found = attribution.attention_rollout(model, images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, right.reshape(3, 4, 4), rtol=1e-4)
    last = second.mean(1) if pooled else second[:, 0, 1:]
    found = attribution.raw_attention(model, images)
    np.testing.assert_allclose(found, last.reshape(3, 4, 4), rtol=1e-4)
    # only the identity: every token keeps to itself
    found = attribution.attention_rollout(model, images, residual=1)
    np.testing.assert_allclose(found, 1 / 16 if pooled else 0, atol=1e-7)


@pytest.mark.parametrize("heads", ["mean", "max", "min"])
def test_heads_are_made_one_and_rows_add_up_to_one(heads):
    model, images = transformer(), batch(32)
    fused = [getattr(by_hand(model, images, i), heads)(axis=1) for i in range(2)]
    mixed = [(a + np.eye(17)) / (a + np.eye(17)).sum(-1, keepdims=True) for a in fused]
    right = (mixed[1] @ mixed[0])[:, 0, 1:].reshape(3, 4, 4)
    found = attribution.attention_rollout(model, images, heads=heads)
    np.testing.assert_allclose(found, right, rtol=1e-4)


def test_discarding_leaves_the_largest():
    model, images = transformer(blocks=1, heads=1), batch(32)
    whole = by_hand(model, images, 0)[:, 0]
    least = np.sort(whole.reshape(3, -1), axis=1)[:, int(0.9 * 17 * 17)]
    kept = np.where(whole < least[:, None, None], 0, whole)
    mixed = (kept + np.eye(17)) / (kept + np.eye(17)).sum(-1, keepdims=True)
    found = attribution.attention_rollout(model, images, discard=0.9)
    np.testing.assert_allclose(found, mixed[:, 0, 1:].reshape(3, 4, 4), rtol=1e-4)


@pytest.mark.parametrize("pooled", [False, True])
def test_relevance_is_the_closed_product(pooled):
    model, images = transformer(pooled=pooled), batch(32)
    found, gradients = attribution.attention(model, images, 2, gradient=True)
    first, second = np.moveaxis(np.maximum(found * gradients, 0).mean(axis=2), 1, 0)
    relevance = first + second + second @ first  # (I + second) (I + first) - I
    tokens = found.shape[-1]
    right = relevance.mean(1) if pooled else relevance[:, 0, 1:]
    maps = attribution.attention_relevance(model, images, 2)
    np.testing.assert_allclose(maps, right.reshape(3, 4, 4), rtol=1e-3, atol=1e-9)
    assert (maps >= 0).all() and maps.any() and tokens == 17 - pooled
    alone = second.mean(1) if pooled else second[:, 0, 1:]
    maps = attribution.gradient_attention(model, images, 2)
    np.testing.assert_allclose(maps, alone.reshape(3, 4, 4), rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("method", [*ROLLED, *SPEAKING])
def test_a_head_that_looks_at_one_patch_has_a_map_of_that_patch(method):
    model, names = written_by_hand(patch=6)
    images = batch(32)
    logits = model(images).numpy()
    bias = model.get_layer("head").bias.numpy()
    positive = np.argmax(logits - bias, axis=1)  # the class that what is seen there speaks for
    maps = getattr(attribution, method)(model, images, positive, layers=names)
    assert maps.shape == (3, 4, 4)
    assert (maps.reshape(3, -1).argmax(1) == 6).all()
    np.testing.assert_allclose(
        maps / maps.sum((1, 2), keepdims=True),
        np.eye(16)[6].reshape(1, 4, 4).repeat(3, 0),
        atol=1e-6,
    )


def test_targets_are_those_of_every_technique():
    model, images = transformer(), batch(32)
    one = attribution.attention_relevance(model, images, [0, 1, 2])
    for i in range(3):
        alone = attribution.attention_relevance(model, images[i : i + 1], i)
        np.testing.assert_allclose(one[i : i + 1], alone, rtol=1e-3, atol=1e-9)
    called = attribution.attention_relevance(model, images, lambda outputs: outputs[:, 1])
    np.testing.assert_allclose(
        called, attribution.attention_relevance(model, images, 1), rtol=1e-4, atol=1e-9
    )
