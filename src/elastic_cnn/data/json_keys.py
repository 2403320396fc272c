"""JSON objects that name a key twice: Python would keep the last in silence."""

from collections import Counter
from typing import Any


def repeated_key(pairs: list[tuple[str, Any]]) -> str:
    """What to say of an object that holds a key twice."""
    name, count = Counter(key for key, _ in pairs).most_common(1)[0]
    return f"the key {name!r} stands {'twice' if count == 2 else f'{count} times'} in one object: keep one of them"


def distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `json.loads(..., object_pairs_hook=distinct_keys)`. `ValueError` where a key stands twice."""
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError(repeated_key(pairs))
    return values
