"""Whether a map can be trusted: where it lies, what the network does about it, and how it is tried.

- Where a map lies (`localisation`): `mass_share`, `enrichment`, `pointing`, `grid_share`, ...
- Whether the network agrees (`faithfulness`, `infidelity`, `road`): `deletion`, `insertion`, ...
- Whether the map depends on what was learnt (`sanity`): `randomised`, `similarity`, ...
- Whether one technique is ahead of another (`comparison`): `compare`, `holm`
- Pictures changed to see what the answer does (`experiments`): `keep`, `cover_until_flip`, ...
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "comparison": ["CHANCE", "FEWEST", "Comparison", "compare", "holm"],
        "experiments": [
            "Flip",
            "accepted",
            "answer",
            "brightest_rectangles",
            "cover_in_turn",
            "cover_until_flip",
            "explain",
            "keep",
            "moved_at_random",
            "no_label",
            "paste",
            "top_share",
        ],
        "faithfulness": [
            "Curves",
            "Drop",
            "NoScoreError",
            "average_drop",
            "deletion",
            "deletion_and_insertion",
            "insertion",
            "picture_sized",
            "ranks",
        ],
        "imputation": ["impute"],
        "infidelity": ["infidelity", "max_sensitivity"],
        "localisation": [
            "coverage",
            "enrichment",
            "grid_share",
            "mass_share",
            "middle",
            "peak_distance",
            "peak_inside",
            "pointing",
            "share_inside",
        ],
        "road": ["Road", "road"],
        "sanity": ["cascade", "randomised", "rank_correlation", "similarity"],
    },
)
