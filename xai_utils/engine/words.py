"""What errors say: in one line, and with what an unknown name may have meant."""

import difflib
from collections.abc import Iterable

FEW = 12  # names that a message lists whole; of more it says how many there are


def first_line(error: Exception) -> str:
    """What an error says, in one line; what it is called if it says nothing.

    Args:
        error: any exception.

    Returns:
        The first line of its message that is not empty, or the name of its type.
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def nearest(name, known: Iterable[str], most: int = 3) -> str:
    """What an unknown name may have meant, as the end of an error's message.

    Near are names spelt like it or, where there are none, that contain it; capitals do not matter.

    Args:
        name: what was given.
        known: the names there are.
        most: how many are named that are near; default 3.

    Returns:
        `nearest: a, b`. Where none is near, what there is: `there are a, b, c`, of many the first
        and how many.

    Example:
        >>> nearest("Masks", ["mask", "grid"])
        'nearest: mask'
        >>> nearest("circle", ["cat", "dog"])
        'there are cat, dog'
    """
    names = [*known]
    word, small = str(name).lower(), [known.lower() for known in names]
    different = [*dict.fromkeys(small)]
    near = difflib.get_close_matches(word, different, most, 0.4 if most > 1 else 0.6)
    near = near or [known for known in different if len(word) > 2 and word in known][:most]
    if near:
        return f"nearest: {', '.join(names[small.index(one)] for one in near)}"
    if len(names) > FEW:
        return f"there are {len(names)}, such as {', '.join(names[:5])}"
    return f"there are {', '.join(names) or 'none'}"
