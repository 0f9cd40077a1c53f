"""Changes of pictures: exact answers, and the way back."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.transform import resize

from xai_utils import pictures
from xai_utils.pictures import TRANSFORMS, apply, undo

AMOUNTS = {
    "flip_horizontal": 1,
    "flip_vertical": 1,
    "rotate": 90,
    "zoom": 2,
    "shift": 3,
    "brightness": 40,
    "contrast": 0.5,
    "blur": 2,
    "noise": 10,
    "jpeg": 50,
}


def some_pictures(count=2, size=16):
    return np.random.default_rng(0).uniform(20, 200, (count, size, size, 3)).astype(np.float32)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_batch_is_its_pictures_one_by_one_and_the_input_is_left_alone(name):
    images = some_pictures()
    before = images.copy()
    changed = apply(name, images, AMOUNTS[name])
    np.testing.assert_array_equal(images, before)
    assert changed.shape == images.shape and changed.dtype == np.float32
    assert changed.min() >= 0 and changed.max() <= 255 and np.abs(changed - images).max() > 1
    for one, image in zip(changed, images):
        np.testing.assert_allclose(apply(name, image[None], AMOUNTS[name])[0], one, atol=1e-3)


@pytest.mark.parametrize("name", [name for name in TRANSFORMS if name != "jpeg"])
def test_the_still_amount_changes_nothing(name):
    np.testing.assert_allclose(
        apply(name, some_pictures(), TRANSFORMS[name].still), some_pictures(), atol=1e-3
    )


def test_geometry_moves_pixels_where_it_says():
    image = np.arange(25, dtype=np.float32).reshape(1, 5, 5)
    np.testing.assert_allclose(pictures.rotate(image, 90), np.rot90(image, axes=(1, 2)), atol=1e-4)
    np.testing.assert_array_equal(pictures.flip_horizontal(image)[0, 0], [4, 3, 2, 1, 0])
    np.testing.assert_array_equal(pictures.flip_vertical(image)[0, :, 0], [20, 15, 10, 5, 0])
    np.testing.assert_allclose(pictures.shift(image, 1, 2)[0, 2:, 1:], image[0, :3, :4], atol=1e-5)
    assert (
        not pictures.shift(image, 1, 2)[0, :2].any()
        and not pictures.shift(image, 1, 2)[0, :, 0].any()
    )
    np.testing.assert_allclose(pictures.zoom(image, 2)[0, 2], [11, 11.5, 12, 12.5, 13], atol=1e-4)
    assert pictures.zoom(image, 0.5, fill=7)[0, 0, 0] == 7


def test_pixel_changes_are_their_formulas():
    images = np.stack([np.full((4, 4, 3), 100.0), np.full((4, 4, 3), 250.0)]).astype(np.float32)
    np.testing.assert_array_equal(pictures.brightness(images, 20)[:, 0, 0, 0], [120, 255])
    images[:, :2] -= 50
    np.testing.assert_allclose(pictures.contrast(images, 0)[:, 0, 0, 0], [75, 225])
    np.testing.assert_allclose(pictures.contrast(images, 0.5)[0, :, 0, 0], [62.5, 62.5, 87.5, 87.5])
    noisy = pictures.noise(np.full((2, 64, 64, 3), 128, np.float32), 10, seed=3)
    assert noisy.std() == pytest.approx(10, rel=0.05)
    np.testing.assert_array_equal(noisy[0], noisy[1])
    dot = np.zeros((1, 41, 41, 1), np.float32)
    dot[0, 20, 20] = 100
    spread = pictures.blur(dot, 3)[0, ..., 0] / 100
    assert spread.sum() == pytest.approx(1, rel=1e-3)
    assert (spread.sum(0) * (np.arange(41) - 20) ** 2).sum() == pytest.approx(9, rel=0.02)


@pytest.mark.parametrize("name", [name for name, each in TRANSFORMS.items() if each.inverse])
def test_the_way_back(name):
    rows, columns = np.mgrid[:32, :32]
    maps = (rows * 3 + columns)[None].astype(np.float32)  # bilinear sampling keeps a slope exactly
    amount = 30 if name == "rotate" else AMOUNTS[name]
    back, seen = undo(name, apply(name, maps, amount), amount)
    assert seen.mean() > 0.2
    np.testing.assert_allclose(back[0][seen], maps[0][seen], atol=0.02)


def test_pixels_that_left_the_picture_are_not_seen():
    _, seen = undo("shift", np.ones((1, 10, 10)), 4)
    assert seen[:, :6].all() and not seen[:, 6:].any()
    _, seen = undo("zoom", np.ones((1, 8, 8)), 2)
    assert seen[2:6, 2:6].all() and not seen[0].any()
    assert undo("blur", np.ones((1, 8, 8)), 2)[1].all()


def test_maps_of_another_size():
    maps = np.random.default_rng(0).normal(size=(2, 3, 7, 5)).astype(np.float32)
    large = pictures.resize_map(maps, (30, 24))
    for index in np.ndindex(2, 3):
        np.testing.assert_allclose(
            large[index], resize(maps[index], (30, 24), order=1, mode="edge"), atol=1e-5
        )
    np.testing.assert_array_equal(pictures.resize_map(maps[0, 0], (30, 24)), large[0, 0])
    np.testing.assert_array_equal(pictures.resize_map(maps, (7, 5)), maps)


def test_the_blurred_filling_is_a_gaussian_blur():
    images = np.random.default_rng(0).uniform(0, 255, (2, 30, 20, 3)).astype(np.float32)
    expected = gaussian_filter(images, (0, 3, 3, 0), mode="nearest")  # a tenth of the longer side
    np.testing.assert_allclose(pictures.filling(images, "blur"), expected, atol=1e-3)


def test_masked_pictures():
    images, covers = np.random.default_rng(0).uniform(0, 255, (2, 2, 4, 5, 3)).astype(np.float32)
    masks = np.random.default_rng(1).integers(0, 2, (2, 4, 5)).astype(np.float32)
    np.testing.assert_array_equal(
        pictures.masked(images, masks), np.where(masks[..., None], images, 0)
    )
    np.testing.assert_array_equal(
        pictures.masked(images, masks, covers), np.where(masks[..., None], images, covers)
    )
    each = pictures.masked(images[:, None], masks[None])
    np.testing.assert_array_equal(each[1, 0], images[1] * masks[0, ..., None])


def test_fillings():
    images = some_pictures()
    assert not pictures.filling(images, "black").any()
    np.testing.assert_allclose(
        pictures.filling(images, "mean")[1, 5, 5], images[1].mean((0, 1)), rtol=1e-5
    )
    np.testing.assert_array_equal(
        pictures.filling(images, "random", 1), pictures.filling(images, "random", 1)
    )
    np.testing.assert_array_equal(pictures.filling(images, [1, 2, 3])[0, 0, 0], [1, 2, 3])


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (
            lambda: apply("rotat", some_pictures(), 3),
            "no transform is called 'rotat'; nearest: rotate",
        ),
        (lambda: pictures.zoom(some_pictures(), 0), "factor must be above 0, not 0"),
        (lambda: pictures.jpeg(some_pictures(), 100), "quality goes from 1 to 95, not 100"),
        (
            lambda: pictures.filling(some_pictures(), "grey"),
            "no filling is called 'grey'; it may be black",
        ),
        (lambda: pictures.filling(some_pictures(), [1, 2]), r"a colour \(3,\)"),
        (
            lambda: pictures.filling(some_pictures(), np.zeros((32, 32, 3))),
            r"^fill must be a number, .* or pictures \(.*\); got shape \(32, 32, 3\)$",
        ),
        (
            lambda: pictures.filling(some_pictures(), np.full((32, 32, 3), np.nan)),
            r"^fill must be finite: .*; got float64 of shape \(32, 32, 3\)$",
        ),
        (lambda: pictures.filling(some_pictures(), np.inf), "^fill must be finite: .*; got inf$"),
    ],
)
def test_bad_input_is_one_clear_line(call, told):
    with pytest.raises(ValueError, match=told) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("channels", [1, 2, 4, 20])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_any_number_of_channels_each_as_in_a_grey_picture(name, channels):
    images = np.random.default_rng(0).uniform(20, 200, (2, 16, 24, channels)).astype(np.float32)
    changed = apply(name, images, AMOUNTS[name])
    assert changed.shape == images.shape and changed.dtype == np.float32
    if name in ("contrast", "noise"):  # whose mean and noise are of all channels
        return
    last = apply(name, images[..., -1:], AMOUNTS[name])
    np.testing.assert_allclose(changed[..., -1:], last, atol=1e-3)


def test_grey_of_any_number_of_channels():
    image = np.array([[[30.0, 60, 90, 20]]])
    assert pictures.grey(image[..., :1]).tolist() == [[30]]
    assert pictures.grey(image[..., :2]).tolist() == [[45]]
    assert pictures.grey(image[..., :3])[0, 0] == pytest.approx(
        0.299 * 30 + 0.587 * 60 + 0.114 * 90
    )
    assert pictures.grey(image).tolist() == [[50]]


def test_black_of_another_range():
    images = np.random.default_rng(0).uniform(-1, 1, (2, 4, 5, 6)).astype(np.float32)
    assert (pictures.filling(images, "black", black=-1.0) == -1).all()
    assert (pictures.filling(images, 0.5, black=-1.0) == 0.5).all()
    masks = np.random.default_rng(1).uniform(0, 1, (2, 4, 5)).astype(np.float32)
    left = np.asarray(pictures.masked(images, masks, black=-1.0))
    np.testing.assert_allclose(left + 1, (images + 1) * masks[..., None], atol=1e-6)
    for fill in ("mean", "blur", "random"):
        assert np.abs(pictures.filling(images, fill)).max() <= 1
