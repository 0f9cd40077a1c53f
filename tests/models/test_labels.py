"""Class names are Keras' own, and found however people write them."""

import hashlib
import json

import numpy as np
import pytest

from xai_utils import keras, models
from xai_utils.engine import DATA_FOLDER
from xai_utils.models import class_index, imagenet_labels, imagenet_wnids, read_labels


def test_the_table_is_keras_own_file():
    text = (DATA_FOLDER / "imagenet_classes.json").read_bytes()
    assert hashlib.md5(text).hexdigest() == "c2c37ea517e94d9795004a39431a14cb"
    assert len(imagenet_labels()) == len(set(imagenet_wnids())) == 1000
    assert imagenet_labels()[285] == "Egyptian_cat" and imagenet_wnids()[0] == "n01440764"


@pytest.mark.parametrize(
    "name", [285, "Egyptian_cat", "egyptian cat", " Egyptian-Cat ", "n02124075"]
)
def test_a_class_is_found(name):
    assert class_index(name, imagenet_labels(), imagenet_wnids()) == 285


def test_digits_are_an_index_unless_a_class_is_called_so():
    names = ("7", "1", "0", "3.0", "dog")
    for text, index in (("7", 0), ("0", 2), ("0.0", 2), (" 1 ", 1), ("3.0", 3)):
        assert class_index(text, names) == index, text
    for text, index in (("3", 3), ("4", 4), ("4.", 4), ("4.00", 4), ("2.0", 2), ("03", 3)):
        assert class_index(text, names) == index, text
    for number in range(5):
        assert class_index(number, names) == number
    assert class_index("285", imagenet_labels(), imagenet_wnids()) == 285
    with pytest.raises(ValueError, match="class 1000 is out of range: there are classes 0 to 999"):
        class_index("1000", imagenet_labels())
    for text in ("-1", "2.5", "1e2"):
        with pytest.raises(ValueError, match=f"no class is called '{text}'"):
            class_index(text, imagenet_labels())


def test_a_target_in_digits_follows_the_same_rule():
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.GlobalAveragePooling2D()])
    models.name_classes(model, ("2", "1", "dog"))
    images = np.zeros((2, 4, 4, 3), np.float32)
    for target, indices in (("2", [0, 0]), (2, [2, 2]), ("0", [0, 0]), (["dog", "2"], [2, 0])):
        assert models.check_target(model, images, target)[0].numpy().tolist() == indices


def test_a_class_is_not_found():
    with pytest.raises(ValueError, match="nearest: .*umbrella"):
        class_index("umbrela", imagenet_labels(), imagenet_wnids())
    with pytest.raises(ValueError, match=r"2 classes: .* 134 \(n02012849\), 517 \(n03126707\)"):
        class_index("crane", imagenet_labels(), imagenet_wnids())
    for bad in (1000, -1, True, 2.5, float("nan"), float("inf"), None):
        with pytest.raises(ValueError, match="out of range: there are classes 0 to 999"):
            class_index(bad, imagenet_labels())


def test_label_files(tmp_path):
    (tmp_path / "a.txt").write_text("cat\n dog \n\n")
    (tmp_path / "b.json").write_text(json.dumps(["cat", "dog"]))
    (tmp_path / "c.json").write_text(json.dumps({"1": "dog", "0": "cat"}))
    (tmp_path / "marked.txt").write_text("cat\ndog", encoding="utf-8-sig")
    (tmp_path / "LOUD.JSON").write_text(json.dumps(["cat", "dog"]))
    names = ("a.txt", "b.json", "c.json", "marked.txt", "LOUD.JSON")
    assert {read_labels(tmp_path / name) for name in names} == {("cat", "dog")}
    for name, text, message in [
        ("d.json", "{", "d.json is not a label file"),
        ("e.json", '{"1": "dog"}', "class '0' has no name"),
        ("f.txt", "", "blank|holds no list"),
        ("h.txt", "cat\n\ndog\n", "h.txt: line 2 is blank"),
        ("g.json", "[1, 2]", "holds no list"),
        ("h.json", "5", "holds no list"),
        ("i.json", '"cat"', "holds no list"),
    ]:
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=message):
            read_labels(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no label file at"):
        read_labels(tmp_path / "none.txt")
    assert models.imagenet_labels()[134] == "crane"
