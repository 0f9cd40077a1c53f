"""From where to what: concepts, parts and examples that a network's codes know.

A code is what a layer returns for a picture. `concept_vector` finds the direction of a concept in
it, `tcav` asks whether the score depends on that direction more than on random ones. `craft` finds
the parts that codes are sums of, and how much a class rests on each, `similar` the pictures whose
codes are nearest to a picture's. `influence` says which training pictures made an answer,
`exchange` and `counterfactual` what would change it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "channels": ["Channels", "channels", "highest_crops"],
        "codes": ["codes", "slopes"],
        "counterfactual": ["Counterfactual", "Exchange", "counterfactual", "exchange"],
        "factors": ["Factors", "craft", "factor_amounts", "factor_maps"],
        "influence": ["Influence", "influence", "self_influence"],
        "neighbours": [
            "Examples",
            "Index",
            "Neighbours",
            "index_of",
            "listed",
            "prototypes",
            "similar",
        ],
        "sources": ["around_masks", "crops", "from_folders", "from_masks"],
        "vectors": ["ConceptVector", "TestedConcept", "concept_map", "concept_vector", "tcav"],
    },
)
