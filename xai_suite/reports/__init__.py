"""Runs become reports: what is out of date, kernels, pages, and the site around them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "reading": ["records_of"],
        "runs": ["RunError", "asked_model", "read_notebook", "where_typed"],
        "kernels": ["kernel_start_lock"],
    },
)
