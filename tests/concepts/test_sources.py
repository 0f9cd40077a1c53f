"""Where a concept's pictures come from."""

import numpy as np
import pytest
from PIL import Image

from xai_utils import concepts, keras, models
from xai_utils.pictures import PictureError


@pytest.fixture(scope="module")
def classifier():
    inputs = keras.Input((12, 12, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(pooled))
    return models.load_model(model, preprocessing="unit", labels=["one", "other"])


@pytest.fixture
def folder(tmp_path):
    for name, level, where in (("dark", 30, ""), ("dark", 40, "deeper"), ("light", 220, "")):
        below = tmp_path / name / where
        below.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 16), (level,) * 3).save(below / f"{level}.png")
    (tmp_path / "light" / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden").mkdir()
    return tmp_path


def test_a_folder_a_concept(classifier, folder):
    found = concepts.from_folders(classifier, folder)
    assert [*found] == ["dark", "light"]
    assert found["dark"].shape == (2, 12, 12, 3) and found["light"].shape == (1, 12, 12, 3)
    assert sorted(found["dark"].mean(axis=(1, 2, 3))) == pytest.approx([30, 40])


def test_folders_that_hold_nothing_are_named(classifier, folder):
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds no pictures \(\.bmp"):
        concepts.from_folders(classifier, folder)
    with pytest.raises(ValueError, match="holds no folder"):
        concepts.from_folders(classifier, folder / "empty")
    with pytest.raises(ValueError, match="nowhere is no folder"):
        concepts.from_folders(classifier, folder / "nowhere")
    (folder / "empty" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(PictureError, match="broken.png"):
        concepts.from_folders(classifier, folder)


def a_square():
    """Two grey pictures with a white square at rows 2 to 5 and columns 6 to 9, and its mask."""
    images = np.full((2, 12, 12, 3), 100, np.uint8)
    mask = np.zeros((2, 12, 12), bool)
    mask[:, 2:6, 6:10] = True
    images[mask] = 255
    return images, mask


def test_only_the_masked_region_is_kept():
    images, mask = a_square()
    kept = concepts.from_masks(images, mask)
    mean = images[0].mean()
    np.testing.assert_allclose(kept[mask], 255)
    np.testing.assert_allclose(kept[~mask], mean, rtol=1e-5)
    around = concepts.from_masks(images, ~mask, (1, 2, 3))
    assert (around[mask] == [1, 2, 3]).all() and (around[~mask] == 100).all()
    ground = np.arange(2 * 12 * 12 * 3).reshape(2, 12, 12, 3) % 256
    elsewhere = concepts.from_masks(images, mask, ground)
    assert (elsewhere[~mask] == ground[~mask]).all() and (elsewhere[mask] == 255).all()


def test_pieces_around_a_mask_hold_it():
    images, mask = a_square()
    tight = concepts.around_masks(images, mask, 8, margin=0)
    assert tight.shape == (2, 8, 8, 3) and tight.dtype == np.float32
    np.testing.assert_allclose(tight, 255)
    wide = concepts.around_masks(images, mask, 8, margin=0.5)  # the 8 x 8 pixels around the square
    np.testing.assert_allclose(wide, images[:, :8, 4:], atol=1e-3)
    flat = concepts.around_masks(images, mask, (4, 8), margin=0)
    np.testing.assert_allclose(flat[0, :, :, 0], images[0, 2:6, 4:12, 0]), "as flat as was asked"


def test_pieces_of_pictures_are_pieces_of_them():
    rows, columns = np.mgrid[:40, :60].astype(np.float32)
    images = [np.stack([rows, columns, 0 * rows + k], axis=-1) for k in range(3)]
    pieces = concepts.crops(images, 20, (8, 10), 4, share=(0.2, 0.6))
    assert pieces.shape == (20, 8, 10, 3) and pieces.dtype == np.float32
    np.testing.assert_array_equal(pieces, concepts.crops(images, 20, (8, 10), 4, (0.2, 0.6)))
    assert sorted(np.bincount(pieces[:, 0, 0, 2].astype(int))) == [6, 7, 7]
    steps = np.diff(pieces[..., 1].mean(axis=1), axis=1)  # columns, from left to right
    mirrored = (steps < 0).all(axis=1)
    assert ((steps > 0).all(axis=1) | mirrored).all() and 0 < mirrored.sum() < 20
    reach = np.ptp(pieces[..., 0], axis=(1, 2)) * 8 / 7  # of rows
    assert reach.min() > 0.18 * 40 and reach.max() < 0.62 * 40
    assert concepts.crops(["cat"], 2, 16, share=(1, 1)).shape == (2, 16, 16, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda i, m: concepts.from_masks(i, m[:1]),
            r"not bool \(1, 12, 12\) for \(2, 12, 12, 3\)",
        ),
        (lambda i, m: concepts.from_masks(i, m * 1.0), "masks are bool"),
        (lambda i, m: concepts.from_masks(i, m & False), "mask 0 is empty"),
        (lambda i, m: concepts.from_masks(i, m, "grass"), "no filling is called 'grass'"),
        (lambda i, m: concepts.around_masks(i, m, 8, -1), "not -1"),
        (lambda i, m: concepts.around_masks(i, m[:1], 8), "2 pictures, but 1 masks"),
        (lambda i, m: concepts.crops(i, 0, 8), "at least 1 piece"),
        (lambda i, m: concepts.crops([], 4, 8), "not 4 of 0"),
        (lambda i, m: concepts.crops(i, 4, 8, share=(0.5, 2)), "at most 1"),
        (lambda i, m: concepts.crops(["nowhere"], 4, 8), "no picture is called 'nowhere'"),
    ],
)
def test_what_cannot_be_done_says_so(call, message):
    with pytest.raises(ValueError, match=message) as told:
        call(*a_square())
    assert "\n" not in str(told.value)


def test_a_concept_from_folders_goes_into_a_vector(classifier, folder):
    for level in range(60, 100, 5):
        Image.new("RGB", (20, 16), (level,) * 3).save(folder / "dark" / f"{level}.png")
        Image.new("RGB", (20, 16), (100 + level,) * 3).save(folder / "light" / f"{level}.png")
    found = concepts.from_folders(classifier, folder)
    vector = concepts.concept_vector(classifier.model, found["light"], found["dark"])
    lighter = concepts.codes(classifier.model, np.full((1, 12, 12, 3), 200.0))
    darker = concepts.codes(classifier.model, np.full((1, 12, 12, 3), 50.0))
    assert vector.accuracy == 1 and ((lighter - darker) @ vector.vector > 0).all()
