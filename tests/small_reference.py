"""The reference written within seconds: every page, with one small picture for each figure."""

import numpy as np
import pytest
from PIL import Image

from xai_suite import reference
from xai_suite.reference import pages, techniques


def written(site) -> int:
    """Write the pages to `site/reference`; how many there are. Skips without pdoc."""
    pytest.importorskip("pdoc", reason="pdoc comes with requirements-dev.lock")
    grey = techniques._webp(Image.fromarray(np.full((4, 8, 3), 99, np.uint8)))
    drawn = {"src": grey, "thumbnail": grey, "width": 8, "height": 4, "caption": "grey"}
    with pytest.MonkeyPatch.context() as patch:
        figures = {name: drawn | {"alt": f"grey, for {name}"} for name in reference.TECHNIQUES}
        patch.setattr(techniques, "figures", lambda: figures)
        return pages.write_all(site / "reference", site, site / "bench.json")
