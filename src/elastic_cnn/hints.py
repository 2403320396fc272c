"""What someone may have meant who wrote a name that is not known."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], *, most: int = 2, otherwise_all: bool = False) -> str:
    """`; did you mean a or b?` with at most so many names that are near.

    Where none is: `; known are a, b, c` with `otherwise_all`, else nothing.
    """
    names = list(known)
    if near := difflib.get_close_matches(name, names, n=most, cutoff=0.5):
        return f"; did you mean {' or '.join(near)}?"
    return f"; known are {', '.join(names)}" if otherwise_all and names else ""
