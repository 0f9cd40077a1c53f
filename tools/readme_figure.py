"""Draw `data/readme.jpg`, the strip of real figures at the head of the README:  python
tools/readme_figure.py
"""

import io

from PIL import Image

from xai_utils import attribution, models, show
from xai_utils.pictures import load as loading

SUBJECTS = ("cat", "umbrella", "mushroom", "hound")


def main() -> None:
    classifier = models.load_model()
    images = classifier.prepare(*SUBJECTS)
    maps = attribution.grad_cam(classifier.model, images)
    titles = [classifier.title(top) for top in classifier.top(images, 1)]
    tiles = [show.Tile(image, values, title) for image, values, title in zip(images, maps, titles)]
    fig = show.tiles(
        [[show.Tile(tile.image, title=tile.title) for tile in tiles], tiles], width=2.4
    )
    picture = Image.open(io.BytesIO(show.png(fig))).convert("RGB")
    picture.resize((1000, 1000 * picture.height // picture.width)).save(
        loading.DATA_FOLDER / "readme.jpg", quality=88
    )


if __name__ == "__main__":
    main()
