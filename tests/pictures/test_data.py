"""Pictures come in right, or with one clear line why not."""

import numpy as np
import pytest
from PIL import Image

from xai_utils import pictures
from xai_utils.pictures import PictureError, load_image, load_mask, prepare
from xai_utils.pictures import load as loading

CORNERS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
NOISE = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)


def save(path, array_or_image, **settings):
    image = (
        array_or_image
        if isinstance(array_or_image, Image.Image)
        else Image.fromarray(array_or_image)
    )
    image.save(path, **settings)
    return path


def test_every_named_picture_loads():
    for name in pictures.image_names():
        image = load_image(name)
        assert (
            image.dtype == np.uint8
            and image.ndim == 3
            and image.shape[2] == 3
            and min(image.shape[:2]) >= 200
        ), name
    assert {"cat", "umbrella", "mushroom", "hound"} <= set(pictures.image_names())


def test_masks_belong_to_the_drawn_pictures():
    for name in pictures.SCENES:
        mask = load_mask(name)
        assert (
            mask.dtype == bool
            and mask.shape == load_image(name).shape[:2]
            and 0.05 < mask.mean() < 0.6
        )
    with pytest.raises(
        PictureError, match="'cat' has no object mask; drawn pictures have: umbrella, mushroom"
    ):
        load_mask("cat")


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, CORNERS),
        (2, CORNERS[:, ::-1]),
        (3, CORNERS[::-1, ::-1]),
        (4, CORNERS[::-1]),
        (5, CORNERS.transpose(1, 0, 2)),
        (6, np.rot90(CORNERS, -1)),
        (7, np.rot90(CORNERS, 2).transpose(1, 0, 2)),
        (8, np.rot90(CORNERS, 1)),
    ],
)
def test_exif_orientation(tmp_path, orientation, expected):
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(
        load_image(save(tmp_path / "x.png", CORNERS, exif=exif)), expected
    )


def test_modes_become_rgb_the_documented_way(tmp_path):
    def load(image, name="x.png", **settings):
        return load_image(save(tmp_path / name, image, **settings))[0, 0].tolist()

    assert load(np.full((2, 2), 77, np.uint8)) == [77, 77, 77]
    assert load(Image.fromarray(np.full((2, 2), 77 * 257, np.uint16))) == [77, 77, 77]
    assert load(Image.fromarray(np.full((2, 2), 77 * 257, np.uint16)), "x.tiff") == [77, 77, 77]
    (tmp_path / "x.pgm").write_bytes(b"P5 1 1 65535\n" + (77 * 257).to_bytes(2, "big"))
    assert load_image(tmp_path / "x.pgm").tolist() == [[[77, 77, 77]]]
    assert load(Image.new("1", (2, 2), 1)) == [255, 255, 255]
    assert load(Image.new("RGBA", (2, 2), (255, 0, 0, 0))) == [255, 255, 255]
    assert load(Image.new("RGBA", (2, 2), (200, 100, 0, 51))) == [244, 224, 204]
    assert load(Image.new("LA", (2, 2), (0, 0))) == [255, 255, 255]
    assert load(Image.fromarray(CORNERS).quantize(4)) == [255, 0, 0]
    palette = Image.fromarray(CORNERS).quantize(4)
    assert load(palette, transparency=palette.getpixel((0, 0))) == [255, 255, 255]
    assert load(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "x.tiff") == [255, 0, 0]
    assert load(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "x.jpg", quality=100) == pytest.approx(
        [255, 0, 0], abs=3
    )
    assert load(Image.fromarray(np.full((2, 2), 300.0, np.float32)), "x.tiff") == [255, 255, 255]
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for name in ("x.gif", "x.tiff", "x.webp"):
        red = load(frames[0], name, save_all=True, append_images=frames[1:])
        assert red == pytest.approx([255, 0, 0], abs=3), name


def test_where_pictures_are_looked_for(tmp_path, monkeypatch):
    own = tmp_path / "own"
    own.mkdir()
    monkeypatch.setattr(loading, "IMAGES_FOLDER", own)
    monkeypatch.chdir(tmp_path)
    save(own / "mine.png", CORNERS)
    np.testing.assert_array_equal(load_image("mine.png"), CORNERS)
    save(tmp_path / "mine.png", CORNERS[::-1].copy())
    np.testing.assert_array_equal(load_image("mine.png"), CORNERS[::-1])
    save(tmp_path / "cat", CORNERS, format="png")
    assert load_image("cat").shape == (300, 451, 3), "a known name comes first"
    np.testing.assert_array_equal(load_image("./cat"), CORNERS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p, "no picture at .*x.png.*, nor in data/images/"),
        (lambda p: p.touch() or p, r"x.png' is empty \(0 bytes\)"),
        (lambda p: p.mkdir() or p, "is a folder, not a picture"),
        (lambda p: p.write_text("hello") and p, "is not an image that Pillow can read"),
        (lambda p: (save(p, NOISE), p.write_bytes(p.read_bytes()[:5000]))[0], "damaged or cut"),
        (
            lambda p: save(p, Image.new("1", (9000, 9000))),
            "has 9000 x 9000 pixels; at most 64 million",
        ),
        (lambda p: save(p, Image.new("1", (20000, 20000))), "20000 x 20000|decompression bomb"),
        (lambda p: "kat", "nearest: cat"),
        (lambda p: "", "is a folder|no picture is called"),
        (lambda p: "x" * 5000, "cannot be looked up: File name too long|no picture is called"),
        (lambda p: "~no_such_user/x.png", "'~no_such_user/x.png' cannot be looked up"),
        (lambda p: None, "a name or a path, not None"),
        (lambda p: 3, "a name or a path, not 3"),
    ],
)
def test_bad_pictures_are_one_clear_line(tmp_path, make, message):
    with pytest.raises(PictureError, match=message) as caught:
        load_image(make(tmp_path / "x.png"))
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_truncated_jpeg_is_not_half_a_picture(tmp_path):
    path = save(tmp_path / "x.jpg", NOISE)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(PictureError, match="damaged or cut short"):
        load_image(path)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied"), "cannot be read: permission denied"),
        (MemoryError(), "damaged or cut short: MemoryError"),
    ],
)
def test_a_picture_that_cannot_be_decoded(tmp_path, monkeypatch, error, message):
    def refuse(*_, **__):
        raise error

    path = save(tmp_path / "x.png", CORNERS)
    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(PictureError, match=message):
        load_image(path)


def test_a_folder_without_permission_and_a_missing_package(monkeypatch):
    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(loading.Path, "exists", refuse)
    with pytest.raises(PictureError, match="'locked/x.png' cannot be looked up: Permission denied"):
        load_image("locked/x.png")
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        PictureError, match="'hound' comes with the package foolbox, which is not installed"
    ):
        load_image("hound")


def test_prepare_crops_the_middle_and_masks_follow():
    image = np.zeros((256, 320, 3), np.uint8)
    image[16:240, 48:272] = 200  # exactly what a network of 224 pixels shall see
    prepared = prepare(image, 224)
    assert prepared.dtype == np.float32 and prepared.shape == (224, 224, 3)
    np.testing.assert_array_equal(prepared[2:-2, 2:-2], 200)
    mask = prepare(image[..., 0] > 0, 224, nearest=True)
    assert mask.dtype == bool and mask.all()
    wide = np.zeros((256, 320), bool)
    wide[:, :160] = True
    assert (
        prepare(wide, 224, nearest=True)[:, :112].all()
        and not prepare(wide, 224, nearest=True)[:, 112:].any()
    )
    np.testing.assert_array_equal(prepare(image, (224, 224)), prepared)
    with pytest.raises(PictureError, match="makes squares, not 224 x 260"):
        prepare(image, (224, 260))
    for bad in (image[..., 0], image[:0], image.astype(str), None):
        with pytest.raises(PictureError, match="prepare takes a picture"):
            prepare(bad, 224)
    for count in (1, 4):  # any channels, of any numbers, as RGB
        bands = image[..., :1].repeat(count, axis=-1).astype(np.uint16) * 40
        np.testing.assert_allclose(prepare(bands, 224)[2:-2, 2:-2], 8000)
    with pytest.raises(PictureError, match="prepare takes a bool mask"):
        prepare(image, 224, nearest=True)
