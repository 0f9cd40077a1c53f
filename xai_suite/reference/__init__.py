"""The reference: pages of the library's public names and of the suite's documents."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "names": ["WINGS", "names_of"],
        "pages": ["write_all"],
        "techniques": ["TECHNIQUES"],
    },
)
