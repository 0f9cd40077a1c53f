"""The workshop: what a student gets of a notebook, what the teacher gets, and the archive."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "copies": ["WorkshopError", "student_copy", "teacher_copy"],
    },
)
