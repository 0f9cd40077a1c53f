"""The explorer: controls on one side, the answer and its explanation on the other."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={"controls": ["explore"], "state": ["State", "answer", "maps"]},
)
