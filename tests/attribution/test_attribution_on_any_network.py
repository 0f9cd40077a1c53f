"""Every technique on networks that are not square, RGB and float32.

All find an object that was planted, a batch gives what its images give one by one, and maps are
float32.
"""

import numpy as np
import pytest
from any_network import KINDS, bright_net, bright_vit, in_range, planted

from xai_utils import attribution, keras, pictures
from xai_utils.engine import check_images, forward

CHEAP = {
    "smooth_grad": {"samples": 4},
    "var_grad": {"samples": 4},
    "integrated_gradients": {"steps": 4},
    "gradient_shap": {"samples": 8},
    "xrai": {"steps": 4, "baseline": "black"},  # from white, dark ground counts as much
    "occlusion": {"patch": 6, "stride": 4},
    "rise": {"masks": 150, "grid": 6},
    "sobol": {"grid": 6, "samples": 16},
    "extremal_perturbation": {"grid": 12, "steps": 40, "area": 0.1, "fill": "black"},
    "lime": {"segments": 20, "samples": 80, "fill": "black"},
    "kernel_shap": {"segments": 20, "samples": 150, "fill": "black"},
}


OF_ATTENTION = ("raw_attention", "attention_rollout", "gradient_attention", "attention_relevance")


@pytest.fixture(scope="module")
def networks():
    """`networks(technique, kind)`: a transformer for those that read attention."""
    built = {}

    def network(name, kind):
        build = bright_vit if name in OF_ATTENTION else bright_net
        if (build, kind) not in built:
            built[build, kind] = build(*KINDS[kind])
        return built[build, kind]

    return network


@pytest.mark.parametrize("kind", ["float32", "grey"])
def test_what_a_network_does_not_have_is_told_beforehand(kind, networks):
    """All but techniques of attention explain the one; the other has no ReLU and a class token."""
    shape = (None, *KINDS[kind][:3])
    assert [*attribution.undefined_for(networks("cam", kind), shape)] == [*OF_ATTENTION]
    told = attribution.undefined_for(networks("raw_attention", kind), shape)
    assert [*told] == ["guided_backprop", "deconvnet", "guided_grad_cam", "cam"]
    with pytest.raises(ValueError) as said:
        attribution.cam(networks("raw_attention", kind), planted(*KINDS[kind][:3])[0])
    assert told["cam"] == str(said.value)


def maps_of(name, model, images, target=0):
    return attribution.METHODS[name](model, images, target, **CHEAP.get(name, {}))


@pytest.fixture(scope="module")
def of_any_size():
    return bright_net(None, None, 3), bright_net(20, 32, 3)


@pytest.mark.parametrize("name", [n for n in attribution.METHODS if n not in OF_ATTENTION])
def test_a_network_of_any_size_after_pictures_of_another_size(name, of_any_size):
    any_size, one_size = of_any_size
    maps_of(name, any_size, planted(24, 24, 3)[0])
    images, _ = planted(20, 32, 3)
    expected = maps_of(name, one_size, images)
    np.testing.assert_allclose(
        maps_of(name, any_size, images), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max()
    )


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "float32"])
@pytest.mark.parametrize("name", attribution.METHODS)
def test_float32_maps_find_the_object_and_a_batch_gives_what_its_images_give(name, kind, networks):
    model = networks(name, kind)
    images, masks = planted(*KINDS[kind][:3])
    assert forward(model, check_images(model, images)).dtype == "float32"
    maps = maps_of(name, model, images)
    assert maps.dtype == np.float32 and maps.ndim == 3 and np.isfinite(maps).all()
    singles = np.concatenate([maps_of(name, model, image[None]) for image in images])
    np.testing.assert_allclose(maps, singles, rtol=1e-3, atol=1e-3 * np.abs(maps).max())
    if name in (*attribution.FLOORS, "deconvnet"):  # which does not ask where ReLUs were active
        return
    sizes = np.abs(maps)
    for size, mask in zip(pictures.resize_map(sizes, masks.shape[1:]), masks):
        # gradients change sign at the rim of the object, so what is next to it counts as it
        near = keras.ops.max_pool(mask[None, ..., None].astype("f4"), 5, 1, "same")[0, ..., 0] > 0
        near = np.asarray(near)
        assert size[near].mean() > 2 * size[~near].mean()


@pytest.mark.parametrize("name", attribution.METHODS)
def test_half_precision_explains_as_float32_does(name, networks):
    images, _ = planted(24, 24, 3)
    single = maps_of(name, networks(name, "float32"), images)
    half = maps_of(name, networks(name, "float16"), images)
    assert np.corrcoef(half.ravel(), single.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("name", attribution.METHODS)
def test_maps_are_float32_of_a_network_of_float64_too(name, networks):
    model = (bright_vit if name in OF_ATTENTION else bright_net)(24, 24, 3, "float64")
    images, _ = planted(24, 24, 3)
    maps, single = maps_of(name, model, images), maps_of(name, networks(name, "float32"), images)
    assert model.compute_dtype == "float64" and maps.dtype == np.float32
    np.testing.assert_allclose(maps, single, rtol=1e-3, atol=1e-3 * np.abs(single).max())


COUNT_CHANNELS_TOGETHER = [
    *(name for name in attribution.METHODS if "cam" in name and "guided" not in name),
    *("gradient_x_input", "integrated_gradients", "lrp", "deep_lift", "xrai"),
    *("occlusion", "rise", "centre", "edges"),
    "sobol",
    "extremal_perturbation",
    *OF_ATTENTION,
]


@pytest.mark.parametrize("name", COUNT_CHANNELS_TOGETHER)
def test_a_grey_network_is_explained_as_the_same_of_equal_colours(name, networks):
    images, _ = planted(24, 24, 1)
    grey = maps_of(name, networks(name, "grey"), images)
    bands = maps_of(name, networks(name, "bands"), images.repeat(5, axis=3))
    np.testing.assert_allclose(bands, grey, rtol=1e-3, atol=1e-4 * np.abs(grey).max())


@pytest.mark.parametrize("name", ["saliency", "smooth_grad"])
def test_a_gradient_of_equal_channels_is_shared_among_them(name, networks):
    images, _ = planted(24, 24, 1)
    grey = attribution.saliency(networks(name, "grey"), images, 0)
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


@pytest.fixture(scope="module")
def ranged():
    limits = {"unit": (0.0, 1.0, True), "signed": (-1.0, 1.0, False)}
    return {
        (kind, build): in_range(*about, build)
        for kind, about in limits.items()
        for build in (bright_net, bright_vit)
    }


# what a map is multiplied with where pixels are so many times as large
POWERS = {"saliency": 1, "smooth_grad": 1, "var_grad": 2, "guided_backprop": 1, "deconvnet": 1}
POWERS |= {"guided_grad_cam": 1, "edges": -1}
UNLIKE = {"random": ("unit", "signed")}
UNLIKE |= {"gradient_x_input": ("signed",), "full_grad": ("signed",)}  # they count from grey, 0


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
    expected = maps_of(name, networks(name, "float32"), images)
    factor = (255 / (high - low)) ** POWERS.get(name, 0)
    build = bright_vit if name in OF_ATTENTION else bright_net
    maps = maps_of(name, ranged[kind, build], low + images * np.float32((high - low) / 255))
    largest = np.abs(expected).max() * factor
    np.testing.assert_allclose(maps, expected * factor, rtol=2e-3, atol=2e-3 * largest)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("grad_cam:relu=false", False),
        ("grad_cam:relu=False", False),
        ("hires_cam:relu=TRUE", True),
        ("cam:layer=inf", "inf"),
        ("cam:layer=7", "7"),
        ("cam:layer=None", None),
        ("occlusion:fill=7", 7),
        ("occlusion:fill=blur", "blur"),
        ("lime:fill=None", None),
        ("lime:penalty=1e-3", 0.001),
        ("integrated_gradients:seed=3", 3),
    ],
)
def test_a_setting_is_read_as_what_it_is(text, value):
    (found,) = attribution.parse(text)[text][1].values()
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("given", ["no", "0", "None"])
def test_a_switch_is_true_or_false(given):
    with pytest.raises(ValueError, match=f"^grad_cam: relu is true or false, not '{given}'$"):
        attribution.parse(f"grad_cam:relu={given}")


def test_the_range_of_noise_is_a_number_or_the_networks_own():
    techniques = attribution.parse("smooth_grad:input_range=2 var_grad:input_range=None")
    assert techniques["smooth_grad:input_range=2"] == ["smooth_grad", {"input_range": 2}]
    assert techniques["var_grad:input_range=None"] == ["var_grad", {"input_range": None}]
    with pytest.raises(ValueError, match="smooth_grad: input_range is a number, not 'wide'"):
        attribution.parse("smooth_grad:input_range=wide")
    model, (images, _) = bright_net(24, 24, 1), planted(24, 24, 1)
    given = attribution.smooth_grad(model, images, 0, 4, input_range=255.0)
    np.testing.assert_array_equal(attribution.smooth_grad(model, images, 0, 4), given)
    assert np.abs(attribution.smooth_grad(model, images, 0, 4, noise=1.0) - given).max() > 0
