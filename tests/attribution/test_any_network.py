"""Every technique on networks that are not square, RGB and float32.

All find an object that was planted, a batch gives what its images give one by one, and maps are
float32.
"""

import numpy as np
import pytest

from xai_utils import attribution, keras, pictures
from xai_utils.engine import cached, check_images, forward

layers = keras.layers
CHEAP = {
    "smooth_grad": {"samples": 4},
    "var_grad": {"samples": 4},
    "integrated_gradients": {"steps": 4},
    "occlusion": {"patch": 6, "stride": 4},
    "rise": {"masks": 150, "grid": 6},
    "lime": {"segments": 20, "samples": 80, "fill": "black"},
    "kernel_shap": {"segments": 20, "samples": 150, "fill": "black"},
}
# (height, width, channels) and what the network computes in
KINDS = {
    "grey": (24, 24, 1, "float32"),
    "bands": (24, 24, 5, "float32"),
    "wide": (48, 96, 3, "float32"),
    "float32": (24, 24, 3, "float32"),
    "float16": (24, 24, 3, "mixed_float16"),
    "bfloat16": (24, 24, 3, "mixed_bfloat16"),
}


def bright_net(height, width, channels, policy="float32") -> keras.Model:
    """A network of two classes; the first one's score grows with bright places, larger than 2 x 2.

    Its input has no dtype of its own, so that it is float32 under every policy.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        inputs = keras.Input((height, width, channels))
        x = layers.Rescaling(1 / 255)(inputs)
        x = layers.Conv2D(2, 3, padding="same", activation="relu", name="bright")(x)
        x = layers.MaxPooling2D(2)(x)
        x = layers.Conv2D(2, 1, activation="relu", name="features")(x)
        x = layers.GlobalAveragePooling2D()(x)
        model = keras.Model(inputs, layers.Dense(2, name="logits")(x), name="bright_net")
    finally:
        keras.config.set_dtype_policy(before)
    kernel = np.full((3, 3, channels, 2), 1 / (9 * channels))
    model.get_layer("bright").set_weights([kernel, np.full(2, -0.6)])
    model.get_layer("features").set_weights([np.eye(2)[None, None] * [[2.0], [1.0]], np.zeros(2)])
    model.get_layer("logits").set_weights([np.array([[8.0, 0.1], [4.0, 0.0]]), np.zeros(2)])
    cached(model, "pixels", lambda: (0.0, 255.0))
    return model


def planted(height, width, channels):
    """Two dark pictures `(2, H, W, C)` with a bright square each, and where: bool `(2, H, W)`."""
    images = np.random.default_rng(0).uniform(0, 20, (2, height, width, channels))
    masks = np.zeros((2, height, width), bool)
    masks[0, -14:-6, -10:-2] = masks[1, 4:12, 6:14] = True
    images[masks] += 200
    return images.astype(np.float32), masks


@pytest.fixture(scope="module")
def networks():
    return {kind: bright_net(*about) for kind, about in KINDS.items()}


def maps_of(name, model, images, target=0):
    return attribution.METHODS[name](model, images, target, **CHEAP.get(name, {}))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "float32"])
@pytest.mark.parametrize("name", attribution.METHODS)
def test_float32_maps_find_the_object_and_a_batch_gives_what_its_images_give(name, kind, networks):
    model = networks[kind]
    images, masks = planted(*KINDS[kind][:3])
    assert forward(model, check_images(model, images)).dtype == "float32"
    maps = maps_of(name, model, images)
    assert maps.dtype == np.float32 and maps.ndim == 3 and np.isfinite(maps).all()
    singles = np.concatenate([maps_of(name, model, image[None]) for image in images])
    np.testing.assert_allclose(maps, singles, rtol=1e-3, atol=1e-3 * np.abs(maps).max())
    if name in (*attribution.FLOORS, "deconvnet"):  # which does not ask where ReLUs were active
        return
    sizes = np.abs(maps - np.median(maps, axis=(1, 2), keepdims=True) * (name == "rise"))
    for size, mask in zip(pictures.resize_map(sizes, masks.shape[1:]), masks):
        # gradients change sign at the rim of the object, so what is next to it counts as it
        near = keras.ops.max_pool(mask[None, ..., None].astype("f4"), 5, 1, "same")[0, ..., 0] > 0
        near = np.asarray(near)
        assert size[near].mean() > 2 * size[~near].mean()


@pytest.mark.parametrize("name", attribution.METHODS)
def test_half_precision_explains_as_float32_does(name, networks):
    images, _ = planted(24, 24, 3)
    single = maps_of(name, networks["float32"], images)
    half = maps_of(name, networks["float16"], images)
    assert np.corrcoef(half.ravel(), single.ravel())[0, 1] > 0.9


COUNT_CHANNELS_TOGETHER = [
    "gradient_x_input",
    "integrated_gradients",
    "cam",
    "grad_cam",
    "grad_cam_plus_plus",
    "layer_cam",
    "hires_cam",
    "xgrad_cam",
    "score_cam",
    "eigen_cam",
    "occlusion",
    "rise",
    "centre",
    "edges",
]


@pytest.mark.parametrize("name", COUNT_CHANNELS_TOGETHER)
def test_a_grey_network_is_explained_as_the_same_of_equal_colours(name, networks):
    images, _ = planted(24, 24, 1)
    grey = maps_of(name, networks["grey"], images)
    bands = maps_of(name, networks["bands"], images.repeat(5, axis=3))
    np.testing.assert_allclose(bands, grey, rtol=1e-3, atol=1e-4 * np.abs(grey).max())


@pytest.mark.parametrize("name", ["saliency", "smooth_grad"])
def test_a_gradient_of_equal_channels_is_shared_among_them(name, networks):
    images, _ = planted(24, 24, 1)
    grey = attribution.saliency(networks["grey"], images, 0)
    settings = {"noise": 0.0} if name == "smooth_grad" else {}
    for channels in (2, 20):
        model, same = bright_net(24, 24, channels), images.repeat(channels, axis=3)
        maps = attribution.METHODS[name](model, same, 0, **settings)
        np.testing.assert_allclose(maps, grey / channels, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("channels", [1, 2, 4, 20])
def test_superpixels_follow_the_values_of_any_number_of_channels(channels):
    image = np.zeros((24, 48, channels), np.float32)
    image[:, 17:] = 200  # an edge that no regular grid has
    regions = attribution.superpixels(image, 12)
    assert not set(regions[:, :17].flat) & set(regions[:, 17:].flat)
    assert attribution.mean_colours(image, regions).shape == image.shape


# --- pixels in another range than 0..255 ----------------------------------------------------------


def in_range(low, high, known=True) -> keras.Model:
    """`bright_net` for pixels in another range."""
    pixels = keras.Input((24, 24, 3))
    scaled = layers.Rescaling(255 / (high - low), offset=-low * 255 / (high - low))(pixels)
    model = keras.Model(pixels, bright_net(24, 24, 3)(scaled), name="in_range")
    if known:
        cached(model, "pixels", lambda: (low, high))
    return model


@pytest.fixture(scope="module")
def ranged():
    return {"unit": in_range(0.0, 1.0, known=True), "signed": in_range(-1.0, 1.0, known=False)}


# what a map is multiplied with where pixels are so many times as large
POWERS = {"saliency": 1, "smooth_grad": 1, "var_grad": 2, "guided_backprop": 1, "deconvnet": 1}
POWERS |= {"guided_grad_cam": 1, "edges": -1}
UNLIKE = {"random": ("unit", "signed"), "gradient_x_input": ("signed",)}  # counts from grey, 0


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, kind)
        for name in attribution.METHODS
        for kind in ("unit", "signed")
        if kind not in UNLIKE.get(name, ())
    ],
)
@pytest.mark.filterwarnings("ignore:in_range is taken for a network of pixels")
def test_a_network_of_another_range_is_explained_as_the_same_of_0_to_255(
    name, kind, networks, ranged
):
    images, _ = planted(24, 24, 3)
    low, high = (0, 1) if kind == "unit" else (-1, 1)
    expected = maps_of(name, networks["float32"], images)
    factor = (255 / (high - low)) ** POWERS.get(name, 0)
    maps = maps_of(name, ranged[kind], low + images * np.float32((high - low) / 255))
    largest = np.abs(expected).max() * factor
    np.testing.assert_allclose(maps, expected * factor, rtol=2e-3, atol=2e-3 * largest)
