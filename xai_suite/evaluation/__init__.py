"""Techniques scored over any number of pictures, on one machine or on a Dask cluster."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "command": ["LOW_IS_GOOD", "results_text"],
        "scoring": ["GROUPS", "evaluate"],
        "results": ["errors", "read", "read_about", "summary"],
        "manifest": ["read_manifest"],
    },
)
