"""What errors say."""

import pytest

from xai_utils.engine import first_line, nearest

MANY = tuple(f"layer{i}" for i in range(34))


@pytest.mark.parametrize(
    "name, known, most, expected",
    [
        ("gradcam", ("cam", "grad_cam", "rise"), 1, "nearest: grad_cam"),
        ("Grad-CAM", ("cam", "grad_cam", "rise"), 1, "nearest: grad_cam"),
        ("healty", ("Healthy", "pneumonia"), 3, "nearest: Healthy"),
        ("crane", ("crane", "Crane", "crate"), 2, "nearest: crane, crate"),
        (
            "cat",
            ("21_grad_cam--cat", "21_grad_cam--cats_and_dogs", "x"),
            1,
            "nearest: 21_grad_cam--cat",
        ),
        ("", ("healthy", "dog"), 3, "there are healthy, dog"),
        ("circle", ("healthy", "dog"), 3, "there are healthy, dog"),
        ("zzz", MANY, 3, "there are 34, such as layer0, layer1, layer2, layer3, layer4"),
        ("zzz", (), 3, "there are none"),
        (3, ("a", "b"), 3, "there are a, b"),
    ],
)
def test_the_nearest_name_or_what_there_is(name, known, most, expected):
    assert nearest(name, known, most) == expected


@pytest.mark.parametrize(
    "error, expected",
    [(ValueError("\n two\nthree"), "two"), (MemoryError(), "MemoryError")],
)
def test_the_first_line_of_an_error(error, expected):
    assert first_line(error) == expected
