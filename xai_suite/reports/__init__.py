"""Runs become reports: what is out of date, kernels, pages, and the site around them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "explained": ["EXPLAINED_IN"],
        "reading": ["records_of"],
        "runs": [
            "RunError",
            "asked_model",
            "folders",
            "read_notebook",
            "typed_in",
            "where_typed",
        ],
        "site": ["refresh", "template"],
        "kernels": ["kernel_start_lock"],
    },
)
