"""Class names are Keras' own, and found however people write them."""

import hashlib

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


def test_where_no_class_is_near_the_message_says_which_there_are():
    with pytest.raises(ValueError, match="^no class is called 'circle'; there are healthy, dog$"):
        class_index("circle", ("healthy", "dog"))
    with pytest.raises(ValueError, match="^no class is called 'healty'; nearest: Healthy$"):
        class_index("healty", ("Healthy", "dog"))
    with pytest.raises(ValueError, match="'qqqq'; there are 1000, such as tench, goldfish, "):
        class_index("qqqq", imagenet_labels())


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


CAT_AND_DOG = {
    "a.txt": "cat\n dog \n\n",
    "marked.txt": "\ufeffcat\ndog",
    "windows.txt": "cat\r\ndog\r\n",
    "teachable.txt": "0 cat\n1 dog\n",
    "colons.txt": "1: dog\n0: cat",
    "commas.csv": "1,dog\n0,cat\n",
    "list.json": '["cat", "dog"]',
    "LOUD.JSON": '["cat", "dog"]',
    "by_index.json": '{"1": "dog", "0": "cat"}',
    "by_name.json": '{"dog": 1, "cat": 0}',
}


@pytest.mark.parametrize("name", CAT_AND_DOG)
def test_label_files(tmp_path, name):
    (tmp_path / name).write_bytes(CAT_AND_DOG[name].encode())
    assert read_labels(tmp_path / name) == read_labels(str(tmp_path / name)) == ("cat", "dog")


@pytest.mark.parametrize(
    "given",
    [
        ["cat", "dog"],
        ("cat", "dog"),
        {"dog": 1, "cat": 0},
        {"dog": np.int64(1), "cat": np.int64(0)},
        {1: "dog", 0: "cat"},
        {"1": "dog", "0": "cat"},
    ],
)
def test_labels_in_hand(given):
    assert read_labels(given) == ("cat", "dog")


def test_labels_of_imagenet_and_names_that_occur_twice(tmp_path):
    assert read_labels("imagenet") == imagenet_labels()
    assert imagenet_labels()[134] == imagenet_labels()[517] == "crane"
    (tmp_path / "cranes.txt").write_text("0 crane\n1 crane\n")
    assert read_labels(tmp_path / "cranes.txt") == ("crane", "crane")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("2 doors\n4 doors", ("2 doors", "4 doors")),
        ("1 door\n0 doors", ("doors", "door")),  # each of 0 to n - 1 once: an index
        ("0 cat\ndog", ("0 cat", "dog")),
        ("0\n1\n2", ("0", "1", "2")),
        ("0, tabby, cat\n1: dog: big", ("tabby, cat", "dog: big")),
        (
            "10 ten\n" + "\n".join(f"{i} n{i}" for i in range(10)),
            "n0 n1 n2 n3 n4 n5 n6 n7 n8 n9 ten",
        ),
    ],
)
def test_lines_that_begin_with_numbers(tmp_path, text, names):
    (tmp_path / "names.txt").write_text(text)
    assert read_labels(tmp_path / "names.txt") == tuple(
        names.split() if isinstance(names, str) else names
    )


def test_digits_as_names_and_as_indices(tmp_path):
    assert read_labels({"0": 1, "1": 0}) == ("1", "0"), "class folders that are called by digits"
    assert read_labels({"0": "1", "1": "0"}) == ("1", "0")


def test_class_folders_are_those_of_keras(tmp_path):
    for name in ("b dog", "Zebra", "a cat", ".hidden", "10", "9", "empty"):
        (tmp_path / name).mkdir()
    for name in ("b dog", "Zebra", "a cat", ".hidden", "10", "9"):
        keras.utils.save_img(tmp_path / name / "x.png", np.zeros((4, 4, 3)))
    (tmp_path / "notes.txt").touch()
    expected = keras.utils.image_dataset_from_directory(tmp_path, verbose=False).class_names
    assert (
        read_labels(tmp_path) == tuple(expected) == ("10", "9", "Zebra", "a cat", "b dog", "empty")
    )


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("d.json", "{", "d.json is not a label file: Expecting"),
        ("d.json", '{"1": "dog"}', "d.json: class 0 has no name; 1 names need the indices 0 to 0"),
        ("d.json", '{"0": "cat", "0": "dog"}', "two classes have the index 0"),
        ("d.json", '{"cat": 0, "dog": 0}', "two classes have the index 0"),
        ("d.json", '{"cat": 1, "dog": 2}', "class 0 has no name; 2 names need the indices 0 to 1"),
        ("d.json", '{"cat": "tabby"}', "a class has the index 'cat'; it must be 0, 1, 2, ..."),
        ("d.json", '{"cat": -1}', "class 0 has no name"),
        ("d.json", '{"cat": 0.5}', "a class has the index 'cat'"),
        ("d.json", '{"0": ["a"]}', "the name of class 0 is not text, but ['a']"),
        ("d.json", "{}", "d.json holds no list of class names: it is empty"),
        ("d.json", "[1, 2]", "d.json: the name of class 0 is not text, but 1"),
        ("d.json", '["cat", ""]', "d.json: the name of class 1 is blank"),
        ("d.json", "5", "holds no list of class names, but 5"),
        ("d.json", '"cat"', "holds no list of class names, but 'cat'"),
        ("d.txt", "", "d.txt holds no list of class names: it is empty"),
        ("d.txt", "cat\n\ndog\n", "d.txt: line 2 is blank, which would shift"),
        ("d.txt", "\ncat\ndog\n", "d.txt: line 1 is blank, which would shift"),
        ("d.txt", "0 cat\n1 dog\n1 bird", "d.txt: two classes have the index 1; names that begin"),
        ("d.txt", "0 cat\n2 dog", "d.txt: class 1 has no name; 2 names need the indices 0 to 1"),
        ("d.txt", "1: cat\n2: dog", "d.txt: class 0 has no name"),
        ("d.txt", b"\xff\xfec\x00a\x00", "d.txt is not a label file: it is not text in UTF-8"),
    ],
)
def test_a_bad_label_file_is_one_line(tmp_path, name, text, told):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError) as caught:
        read_labels(tmp_path / name)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_labels_is_one_line(tmp_path):
    (tmp_path / "picture.png").touch()
    for given, told in (
        ([], "labels holds no list of class names: it is empty"),
        (["cat", 7], "labels: the name of class 1 is not text, but 7"),
        ({"cat", "dog"}, "labels are a list of names, .*, not a set"),
        (7, "labels are a list of names, .*, not a int"),
        ({True: "cat"}, "a class has the index True"),
        (tmp_path, "has no class folders"),
    ):
        with pytest.raises(ValueError, match=told):
            read_labels(given)
    with pytest.raises(FileNotFoundError, match="no label file at"):
        read_labels(tmp_path / "none.txt")
