"""Pre-images and activation maximisation against answers known beforehand."""

import numpy as np
import pytest
from nets import SHAPES, batch, gap_net, sequential

from xai_utils import keras, pictures, synthesis, tf
from xai_utils.engine import forward
from xai_utils.models import capture_before_activation
from xai_utils.synthesis.optimisation import UPDATES, State

layers = keras.layers
FREE = ("pixels", "fourier")  # parameterisations that can be any picture
FEW = {"steps": 4, "settle": 0.5}
MOVED = {"parameterisation": "fourier", "jitter": 3, "scale": 0.1, "rotate": 5}


@pytest.fixture
def float64():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)


def linear(matrix, size=4, channels=3):
    """A picture times a matrix (size^2 channels, units), as a model; its code layer is `code`."""
    inputs = keras.Input((size, size, channels), dtype=keras.config.dtype_policy().compute_dtype)
    head = layers.Dense(matrix.shape[1], use_bias=False, name="code")
    model = keras.Model(inputs, head(layers.Flatten()(inputs)), name="linear")
    head.set_weights([matrix])
    return model


def lambda_net(function):
    """A network whose first layer is any function of the pixels."""

    class Own(layers.Layer):
        def call(self, x):
            return function(x)

    inputs = keras.Input((6, 6, 3))
    outputs = layers.GlobalAveragePooling2D(name="pooled")(Own(name="own")(inputs))
    return keras.Model(inputs, outputs, name="own_net")


def some_pictures(size=12, count=3, seed=0):
    return np.random.default_rng(seed).uniform(20, 230, (count, size, size, 3)).astype(np.float32)


# --- answers known beforehand ---------------------------------------------------------------------


def test_the_pre_image_of_a_linear_network_is_the_start_plus_what_the_code_tells(float64):
    random = np.random.default_rng(0)
    matrix, original = random.normal(size=(48, 10)), random.uniform(100, 150, (1, 4, 4, 3))
    model = linear(matrix)
    assert model.compute_dtype == "float64"
    wanted = (original.reshape(1, -1) @ matrix).ravel()
    steepest = 2 * 127.5**2 * 48 * np.linalg.norm(matrix, 2) ** 2 / (wanted**2).sum()
    found = synthesis.invert(
        model,
        original,
        "code",
        parameterisation="pixels",
        optimiser="sgd",
        rate=1 / steepest,
        steps=600,
        settle=0,
    )
    begun = found.frames[0].ravel()
    expected = begun + np.linalg.pinv(matrix.T) @ (wanted - matrix.T @ begun)
    np.testing.assert_allclose(found.images.ravel(), expected, atol=1e-9)
    assert found.losses[-1] < 1e-25
    assert np.linalg.norm(found.images - original) > 50  # the same code, another picture


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_activation_maximisation_of_a_linear_unit_is_w_over_lambda(float64, optimiser):
    weights = np.random.default_rng(1).normal(size=(48, 1))
    strength, positions = 2000.0, 16
    shrinkage = 2 * strength / (positions * 80**2)  # lambda of w'x - lambda |x - grey|^2 / 2
    expected = 127.5 + weights.reshape(4, 4, 3) / shrinkage
    assert expected.min() > 1 and expected.max() < 254
    rate = {"sgd": 1 / (48 * 127.5**2 * shrinkage), "adam": 0.01}[optimiser]
    found = synthesis.activation_maximization(
        linear(weights),
        0,
        parameterisation="pixels",
        optimiser=optimiser,
        rate=rate,
        steps=1500,
        alpha=2.0,
        alpha_weight=strength,
    )
    np.testing.assert_allclose(found.images[0], expected, atol=0.01)


def test_total_variation_of_known_pictures():
    across, down = np.meshgrid(np.arange(8.0), np.arange(8.0))
    unit = 80 / 6.5
    ramp = np.stack([across, 2 * down, 0 * down], -1)[None] * unit
    # 7 of 8 columns have a step to the right of 1, 7 of 8 rows one down of 2
    np.testing.assert_allclose(
        synthesis.image_priors.total_variation(tf.constant(ramp)), [(1 + 4) * 7 / 8], rtol=1e-6
    )
    np.testing.assert_allclose(
        synthesis.image_priors.total_variation(tf.constant(ramp), 1.0), [(1 + 2) * 7 / 8], rtol=1e-3
    )
    edge = np.where(across < 4, 0.0, unit)[None, ..., None]
    for beta in (1.0, 1.5, 2.0):  # one column of 8 has a step of 1, whatever the power
        np.testing.assert_allclose(
            synthesis.image_priors.total_variation(tf.constant(edge), beta), [1 / 8], atol=1e-3
        )
    np.testing.assert_array_equal(
        synthesis.image_priors.total_variation(tf.fill((2, 5, 4, 3), 77.0)), [0, 0]
    )


def test_alpha_norm_of_known_pictures():
    colour = np.full((1, 5, 5, 3), 127.5) + np.array([80.0, 0, 0])
    np.testing.assert_allclose(
        synthesis.image_priors.alpha_norm(tf.constant(colour), 6.0), [1], rtol=1e-6
    )
    double = np.concatenate([colour, 2 * colour - 127.5])
    np.testing.assert_allclose(
        synthesis.image_priors.alpha_norm(tf.constant(double), 6.0), [1, 64], rtol=1e-6
    )


@pytest.mark.parametrize("beta", [1.0, 1.5, 2.0])
def test_a_constant_picture_has_finite_gradients(beta):
    images = tf.fill((1, 6, 6, 3), 127.5)
    with tf.GradientTape() as tape:
        tape.watch(images)
        total = synthesis.image_priors.total_variation(
            images, beta
        ) + synthesis.image_priors.alpha_norm(images, 1.0)
    assert np.isfinite(tape.gradient(total, images)).all()
    found = synthesis.invert(
        gap_net(),
        some_pictures(),
        "pool",
        steps=3,
        parameterisation="pixels",
        noise=0,
        tv_weight=1,
        beta=beta,
    )
    assert not found.stopped and np.isfinite(found.images).all()


def test_updates_are_those_of_keras():
    random = np.random.default_rng(0)
    gradients = random.normal(size=(5, 2, 3)).astype(np.float32)
    keras_optimisers = {
        "adam": keras.optimizers.Adam(0.1, epsilon=1e-8),
        "sgd": keras.optimizers.SGD(0.1, momentum=0.9),
    }
    for name, theirs in keras_optimisers.items():
        zeros = tf.zeros((2, 3))
        variable, state = keras.Variable(zeros), State(zeros, zeros, zeros, zeros, zeros)
        for age, gradient in enumerate(gradients):
            theirs.apply([gradient], [variable])
            values, first, second = UPDATES[name](
                state, gradient, tf.constant(float(age)), tf.constant(0.1), 1
            )
            state = State(values, first, second, zeros, zeros)
            np.testing.assert_allclose(
                state.values, variable.numpy(), rtol=2e-5, atol=1e-6, err_msg=name
            )


# --- pictures and movements -----------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(9, 12, 3), (8, 7, 1)])
def test_every_parameter_gives_a_picture_in_range(shape):
    for name in FREE:
        values = 1000 * synthesis.image_priors.start(name, range(4), shape, 60, "float32")
        images = synthesis.image_priors.to_images(
            name, synthesis.image_priors.project(name, values), shape
        ).numpy()
        assert images.shape == (4, *shape)
        assert images.min() >= 0 and images.max() <= 255 and np.ptp(images) > 250, name
        plain = synthesis.image_priors.to_images(name, 0 * values, shape)
        np.testing.assert_allclose(plain, 127.5, rtol=1e-6)


@pytest.mark.parametrize("name", FREE)
@pytest.mark.parametrize("shape", [(32, 32, 3), (15, 22, 3), (16, 16, 1)])
def test_the_start_is_noise_of_the_spread_asked_for(name, shape):
    values = synthesis.image_priors.start(name, range(300), shape, 10, "float32")
    images = synthesis.image_priors.to_images(name, values, shape).numpy()
    assert abs(images.std() - 10) < 0.5 and abs(images.mean() - 127.5) < 1


@pytest.mark.parametrize("size", [(6, 8), (5, 7)])
def test_the_gradient_of_the_inverse_transform_is_tensorflows(float64, size):
    real, imaginary, incoming = (
        tf.constant(np.random.default_rng(i).normal(size=extent))
        for i, extent in enumerate([(2, size[0], size[1] // 2 + 1)] * 2 + [(2, *size)])
    )
    gradients = []
    for inverse in (
        lambda a, b: synthesis.image_priors._inverse_fft(*size, tf.stack([a, b], axis=-1)),
        lambda a, b: tf.signal.irfft2d(tf.complex(a, b), size),
    ):
        with tf.GradientTape() as tape:
            tape.watch((real, imaginary))
            planes = inverse(real, imaginary)
        gradients.append(tape.gradient(planes, (real, imaginary), incoming))
    np.testing.assert_allclose(gradients[0][0], gradients[1][0], atol=1e-12)
    np.testing.assert_allclose(gradients[0][1], gradients[1][1], atol=1e-12)


def test_the_fourier_start_falls_off_as_one_over_frequency():
    images = synthesis.image_priors.to_images(
        "fourier",
        synthesis.image_priors.start("fourier", range(50), (64, 64, 3), 5, "float32"),
        (64, 64, 3),
    ).numpy()
    power = (np.abs(np.fft.rfft2(images.mean(-1) - 127.5)) ** 2).mean(0)
    slope = np.log(power[0, 16] / power[0, 2]) / np.log(16 / 2)
    assert abs(slope + 2) < 0.3


def test_colour_spreads_are_those_of_our_photographs():
    names = [name for name in pictures.image_names() if name not in pictures.SCENES]
    power = 0
    for name in names:
        pixels = pictures.prepare(pictures.load_image(name), 96).reshape(-1, 3)
        power += ((pixels - pixels.mean(0)) @ synthesis.image_priors.COLOURS.T).var(0)
    np.testing.assert_allclose(np.sqrt(power / power[0]), synthesis.image_priors.SPREADS, atol=0.02)
    np.testing.assert_allclose(
        synthesis.image_priors.COLOURS @ synthesis.image_priors.COLOURS.T, np.eye(3), atol=1e-12
    )


def test_shift_and_move_do_what_they_say():
    images = tf.constant(some_pictures(9, 2))
    moved = synthesis.image_priors.shift(images, tf.constant([[1, -2], [0, 3]])).numpy()
    for one, by, original in zip(moved, [(1, -2), (0, 3)], images.numpy()):
        np.testing.assert_array_equal(one, np.roll(original, by, (0, 1)))
    still = synthesis.image_priors.move(images, tf.zeros((2, 4)), 3, 0.2, 30)
    np.testing.assert_allclose(still, images, atol=1e-3)
    by_jitter = synthesis.image_priors.move(
        images, tf.constant([[1.0, -1, 0, 0]] * 2), 2, 0, 0
    ).numpy()
    np.testing.assert_allclose(by_jitter[:, 2:, :-2], images[:, :-2, 2:], atol=1e-3)
    turned = synthesis.image_priors.move(
        images, tf.constant([[0.0, 0, 0, 1]] * 2), 0, 0, 90
    ).numpy()
    assert any(np.allclose(turned, np.rot90(images, k, (1, 2)), atol=0.05) for k in (1, 3))
    enlarged = synthesis.image_priors.move(
        images, tf.constant([[0.0, 0, 1, 0]] * 2), 0, 1, 0
    ).numpy()
    np.testing.assert_allclose(enlarged[:, ::2, ::2], images[:, 2:7, 2:7], atol=0.05)


# --- one run --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"parameterisation": "pixels"},
        {"jitter": 2},
        MOVED,
        {"optimiser": "sgd", "rate": 0.01, "tv_weight": 0.1, "alpha_weight": 0.1},
    ],
)
def test_a_batch_and_restarts_give_what_single_runs_give(settings):
    model, images = gap_net(), some_pictures()
    together = synthesis.invert(
        model, images, "features", seed=3, restarts=2, every=2, **FEW, **settings
    )
    assert together.images.shape == (6, 12, 12, 3) and together.losses.shape == (5, 6)
    for index, image in enumerate(images):
        for restart in range(2):
            alone = synthesis.invert(
                model, image[None], "features", seed=3 + restart, every=2, **FEW, **settings
            )
            place = 2 * index + restart
            np.testing.assert_allclose(together.images[place], alone.images[0], atol=0.02)
            np.testing.assert_allclose(together.losses[:, place], alone.losses[:, 0], rtol=1e-3)
            np.testing.assert_allclose(together.frames[:, place], alone.frames[:, 0], atol=0.02)


def test_the_seed_decides_everything():
    model, images = gap_net(), some_pictures(count=1)
    one, same, other = (
        synthesis.invert(model, images, "pool", seed=s, **FEW, **MOVED) for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.images, same.images)
    np.testing.assert_array_equal(one.losses, same.losses)
    assert np.abs(one.frames[0] - other.frames[0]).mean() > 5


@pytest.mark.parametrize("shape", SHAPES)
def test_all_shapes_of_models_are_inverted_and_left_alone(shape):
    model, images = SHAPES[shape](), some_pictures(count=1)
    model(images)
    before = (
        [w.numpy() for w in model.weights],
        {layer.name: dict(vars(layer)) for layer in model.layers},
    )
    found = synthesis.invert(
        model, images, "features", steps=25, parameterisation="pixels", settle=0
    )
    assert found.losses[-1] < 0.7 * found.losses[0]
    assert {layer.name: dict(vars(layer)) for layer in model.layers} == before[1]
    assert all(np.array_equal(w, old) for w, old in zip(model.weights, before[0]))


def test_losses_are_errors_of_the_frames_and_the_best_picture_is_kept():
    model, images = gap_net(), some_pictures(count=2)
    # far too fast on purpose
    found = synthesis.invert(model, images, "features", steps=6, every=1, rate=3.0, settle=0)
    wanted = synthesis.code(model, images, "features")
    errors = [
        ((synthesis.code(model, frame, "features") - wanted) ** 2).sum((1, 2, 3))
        for frame in found.frames
    ]
    errors = np.array(errors) / (wanted**2).sum((1, 2, 3))
    np.testing.assert_allclose(found.losses, errors, rtol=1e-3)
    np.testing.assert_array_equal(found.frame_steps, np.arange(7))
    for index, best in enumerate(errors.argmin(0)):
        np.testing.assert_array_equal(found.images[index], found.frames[best, index])
    assert found.stopped == ""


def test_settling_has_no_movement():
    model, images = gap_net(), some_pictures(count=1)
    found = synthesis.invert(model, images, "features", steps=8, every=1, settle=0.5, **MOVED)
    wanted = synthesis.code(model, images, "features")
    codes = synthesis.code(model, found.frames[:, 0], "features")
    errors = ((codes - wanted) ** 2).sum((1, 2, 3)) / (wanted**2).sum()
    np.testing.assert_allclose(found.losses[4:, 0], errors[4:], rtol=1e-3)
    assert np.abs(found.losses[:4, 0] / errors[:4] - 1).max() > 0.01


def test_progress_sees_every_step_and_an_interrupt_keeps_the_best_so_far():
    model, images, seen = gap_net(), some_pictures(count=2), []

    def interrupt(step, steps, losses):
        seen.append((step, steps, losses.shape))
        if step == 3:
            raise KeyboardInterrupt

    found = synthesis.invert(model, images, "pool", steps=50, settle=0, every=1, progress=interrupt)
    assert seen == [(step, 50, (2,)) for step in range(4)]
    assert found.stopped == "interrupted after step 3 of 50; the best pictures so far are kept"
    assert found.losses.shape == (4, 2)
    best = found.losses.argmin(0)
    np.testing.assert_array_equal(found.images, found.frames[best, [0, 1]])


def test_a_loss_that_is_not_finite_stops_and_the_last_good_picture_is_kept():
    model = lambda_net(lambda x: tf.math.log(x - 90.0))  # not a number below 90
    with pytest.warns(UserWarning, match=r"not finite after step \d+ of 60") as caught:
        found = synthesis.activation_maximization(
            model, lambda y: -y[:, 0], parameterisation="pixels", noise=5, steps=60, every=1
        )
    assert caught[0].filename == __file__
    assert found.stopped and 1 < len(found.losses) < 60 and np.isfinite(found.losses).all()
    assert np.isfinite(found.images).all()
    np.testing.assert_array_equal(found.images, found.frames[-1])
    with pytest.warns(UserWarning, match="after step 0"):
        found = synthesis.invert(
            model, None, "pooled", codes=np.ones((1, 3)), noise=80, parameterisation="pixels"
        )
    assert np.isfinite(found.images).all() and len(found.losses) == 0


# --- codes and units ------------------------------------------------------------------------------


def test_codes_before_the_activation():
    model, images = gap_net(), batch()
    conv = model.get_layer("features")
    before = synthesis.code(model, images, "features", before_activation=True)
    assert before.min() < 0
    np.testing.assert_array_equal(np.maximum(before, 0), synthesis.code(model, images, "features"))
    assert conv.activation is keras.activations.relu
    inputs = keras.Input((4, 4, 3))
    relu = keras.Model(inputs, layers.ReLU(6.0, name="relu")(layers.Rescaling(3.0)(inputs)))
    images = batch(4)
    np.testing.assert_allclose(
        synthesis.code(relu, images, "relu", before_activation=True), 3 * images, rtol=1e-6
    )
    with pytest.raises(ValueError, match="'logits' has no activation"):
        synthesis.code(model, batch(), "logits", before_activation=True)
    with pytest.raises(RuntimeError), capture_before_activation(model, "features"):
        raise RuntimeError
    assert conv.activation is keras.activations.relu


def test_a_code_before_the_relu_moves_a_dead_unit():
    keras.utils.set_random_seed(0)
    model = gap_net()
    kernel, bias = model.get_layer("features").get_weights()
    # every unit is off, whatever the picture
    model.get_layer("features").set_weights([-np.abs(kernel), bias])
    wanted = np.ones((1, 6, 6, 6), np.float32)
    with pytest.raises(ValueError, match="loss of picture 0 has no gradient at the noise"):
        synthesis.invert(model, None, "features", codes=wanted, **FEW)
    with pytest.raises(ValueError, match="picture 1 has no gradient at the noise"):
        synthesis.activation_maximization(
            lambda_net(lambda x: tf.nn.relu(x * [1.0, -1, 1])), [0, 1], "own", **FEW
        )
    found = synthesis.invert(
        model, None, "features", codes=wanted, before_activation=True, steps=20, settle=0
    )
    assert found.losses[-1] < found.losses[0]


def test_given_codes_are_matched_like_those_of_images():
    model, images = gap_net(), some_pictures(count=2)
    codes = synthesis.code(model, images, "pool")
    by_code = synthesis.invert(model, None, "pool", codes=codes, **FEW)
    np.testing.assert_array_equal(
        by_code.images, synthesis.invert(model, images, "pool", **FEW).images
    )


def test_scores_of_channels_neurons_directions_and_classes():
    model = gap_net()
    direction = np.array([1.0, -2, 0, 0, 3, 0])
    settings = {"before_activation": True, **FEW}
    found = synthesis.activation_maximization(
        model, [2, (1, 0, 3), direction], "features", **settings
    )
    codes = synthesis.code(model, found.frames[0], "features", before_activation=True)
    means = codes.mean((1, 2))
    expected = [means[0, 2], codes[1, 1, 0, 3], means[2] @ direction]
    np.testing.assert_allclose(found.losses[0], np.negative(expected), rtol=1e-5)
    assert (found.losses[-1] < found.losses[0]).all()
    classes = synthesis.activation_maximization(model, [4, 1], restarts=2, **FEW)
    logits = forward(model, classes.frames[0]).numpy()
    np.testing.assert_allclose(classes.losses[0], -logits[np.arange(4), [4, 4, 1, 1]], rtol=1e-5)
    difference = synthesis.activation_maximization(model, lambda y: y[:, 4] - y[:, 1], **FEW)
    np.testing.assert_allclose(difference.losses[0], logits[0, 1] - logits[0, 4], rtol=1e-4)


def test_mechanics_on_vgg19_with_random_weights():
    keras.utils.set_random_seed(0)
    vgg = keras.applications.VGG19(
        weights=None, classifier_activation=None, input_shape=(32, 32, 3)
    )
    images = some_pictures(32, 1)
    for layer, extent in (("block5_pool", (1, 1, 512)), ("fc2", (4096,))):
        found = synthesis.invert(
            vgg,
            images,
            layer,
            steps=8,
            settle=0,
            before_activation=layer == "fc2",
            parameterisation="pixels",
            rate=0.1,
        )
        assert synthesis.code(vgg, images, layer).shape == (1, *extent)
        assert found.losses[-1] < 0.95 * found.losses[0]
    published = synthesis.invert(
        vgg,
        images,
        "block5_pool",
        optimiser="sgd",
        parameterisation="pixels",
        rate=1e-3,
        alpha_weight=1,
        tv_weight=0.24,
        jitter=2,
        steps=9,
        noise=60,
    )
    begun, found = (
        synthesis.image_priors.alpha_norm(some)
        + 0.24 * synthesis.image_priors.total_variation(some)
        for some in (published.frames[0], published.images)
    )
    assert found + published.losses.min() < 0.9 * (begun + published.losses[0])


# --- bad input ------------------------------------------------------------------------------------


def test_a_layer_that_does_not_exist():
    for call in (synthesis.invert, synthesis.code):
        with pytest.raises(ValueError, match="no layer 'feature'; nearest: features"):
            call(gap_net(), some_pictures(), "feature")
    with pytest.raises(ValueError, match="nearest: features"):
        synthesis.activation_maximization(gap_net(), 0, "feature")


@pytest.mark.parametrize(
    "function, message",
    [(tf.round, "anything with a gradient"), (tf.sign, "picture 0 has no gradient")],
)
def test_a_layer_without_a_gradient_to_the_pixels(function, message):
    model = lambda_net(lambda x: function(x - 127.5))
    with pytest.raises(ValueError, match=message):
        synthesis.invert(model, some_pictures(6), "own", **FEW)
    with pytest.raises(ValueError, match=message):
        synthesis.activation_maximization(model, 0, "own", tv_weight=1, **FEW)


def test_a_code_that_cannot_be_matched():
    model, images = gap_net(), some_pictures(count=2)
    with pytest.raises(ValueError, match="code 1 at layer 'own' is all zeros"):
        synthesis.invert(lambda_net(tf.identity), images[:, :6, :6] * [[[[1]]], [[[0]]]], "own")
    for codes, message in (
        (np.full((1, 6), np.nan), "not finite"),
        (np.ones((2, 5)), r"codes \(N, 6\), not \(2, 5\)"),
        (np.ones((0, 6)), "codes"),
    ):
        with pytest.raises(ValueError, match=message):
            synthesis.invert(model, None, "pool", codes=codes)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"steps": 0}, "steps must be at least 1 and finite, not 0"),
        ({"restarts": 0}, "restarts must be at least 1"),
        ({"jitter": -1}, "jitter must be at least 0"),
        ({"tv_weight": float("nan")}, "tv_weight .* not nan"),
        ({"rate": -1}, "rate .* not -1"),
        ({"settle": 2}, "settle is a share"),
        ({"parameterisation": "pixel"}, "one of pixels, fourier, maco, not 'pixel'"),
        ({"optimiser": "lbfgs"}, "one of adam, sgd, not 'lbfgs'"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        synthesis.invert(gap_net(), some_pictures(), "pool", **settings)


def test_bad_targets():
    model = gap_net()
    for target, layer, message in (
        (None, None, "needs a target"),
        (9, None, "out of range"),
        (6, "features", "channels 0 to 5"),
        ((0, 6, 0), "features", r"neuron \(0, 6, 0\) is not in layer"),
        (np.zeros(6), "features", "not all 0"),
        ("dog", "features", "a unit of layer"),
    ):
        with pytest.raises(ValueError, match=message):
            synthesis.activation_maximization(model, target, layer)
    with pytest.raises(ValueError, match="say which"):
        synthesis.activation_maximization(sequential(), 0)
    found = synthesis.activation_maximization(sequential(), 0, shape=(8, 8, 3), **FEW)
    assert found.images.shape == (1, 8, 8, 3)


@pytest.mark.parametrize("shape", [(8, 12, 3), (7, 9, 3), (6, 5, 1), (9, 8, 5)])
@pytest.mark.parametrize("parameterisation", FREE)
def test_pictures_come_back_from_their_parameters(parameterisation, shape):
    images = np.random.default_rng(0).uniform(1, 254, (2, *shape))
    values = synthesis.image_priors.from_images(parameterisation, tf.constant(images))
    noise = synthesis.image_priors.start(parameterisation, [0, 1], shape, 20.0, tf.float64)
    assert values.shape == noise.shape
    back = synthesis.image_priors.to_images(parameterisation, values, shape)
    np.testing.assert_allclose(back, images, atol=1e-9)


def test_a_search_can_begin_with_a_picture():
    model, weights = gap_net(), np.ones((2, 1), np.float32)
    images = np.random.default_rng(0).uniform(20, 230, (2, 12, 12, 3)).astype(np.float32)

    def brightness(_model, images, constants):
        return -tf.reduce_mean(images, axis=(1, 2, 3)) * constants[:, 0]

    for parameterisation in FREE:
        found = synthesis.optimise(
            model,
            (brightness,),
            tf.constant(weights),
            (12, 12, 3),
            begin=images,
            steps=5,
            parameterisation=parameterisation,
        )
        np.testing.assert_allclose(found.frames[0], images, atol=0.01)
        assert (found.images.mean(axis=(1, 2, 3)) > images.mean(axis=(1, 2, 3)) + 1).all()
    with pytest.raises(ValueError, match="maco holds magnitudes"):
        synthesis.optimise(
            model,
            (brightness,),
            tf.constant(weights),
            (12, 12, 3),
            begin=images,
            parameterisation="maco",
        )


@pytest.mark.parametrize("shape", [(16, 16, 3), (15, 22, 3), (12, 9, 1), (8, 10, 5)])
def test_maco_keeps_the_magnitudes_of_photographs_whatever_the_phases(shape):
    priors = synthesis.image_priors
    natural = priors.natural_magnitudes(*shape)
    values = priors.start("maco", range(3), shape, 0, tf.float64)
    for phases in (values, 10 * values):
        images = priors.to_images("maco", phases, shape)
        assert images.shape == (3, *shape) and 0 <= images.numpy().min() < images.numpy().max()
        inside = (images.numpy() > 0.5) & (images.numpy() < 254.5)
        assert inside.all(), "the inverse of the sigmoid would not be exact"
        kept = np.abs(priors.spectrum(images))
        np.testing.assert_allclose(kept, np.broadcast_to(natural, kept.shape), atol=1e-7)
    assert (natural[:, 1:, 1:] > 0).all() and natural[0, 0, 0] == 0


def test_maco_finds_a_picture_by_its_phases_alone():
    """A network that sees one frequency, in one phase: that phase is found."""
    wave = np.cos(2 * np.pi * 2 * np.arange(16) / 16 + 0.7)
    matrix = np.repeat(np.tile(wave, 16), 3)[:, None] / 768
    found = synthesis.activation_maximization(
        linear(matrix, 16), 0, parameterisation="maco", steps=100, seed=3
    )
    assert found.losses[-1, 0] < 0 and found.losses[-1, 0] < found.losses[0, 0]
    image = tf.constant(found.images, tf.float64)
    coefficient = synthesis.image_priors.spectrum(image)[0, 0, 0, 2].numpy()
    assert abs(np.angle(coefficient) - 0.7) < 0.15
