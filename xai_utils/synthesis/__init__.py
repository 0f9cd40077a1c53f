"""Pictures made by optimisation: pre-images of a code, and what excites a class or unit."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    ["image_priors"],
    {
        "optimisation": ["Synthesis", "optimise"],
        "preimages": ["activation_maximization", "code", "invert"],
    },
)
