"""Ways to break a file: bytes changed, cut out, doubled, swapped; for hypothesis."""

from hypothesis import strategies as st

KINDS = ("change", "cut", "double", "insert", "zeros", "end")


@st.composite
def broken(draw: st.DrawFn, contents: tuple[bytes, ...], most: int = 4) -> bytes:
    """One of `contents` after up to `most` changes; few of them, so that readers get beyond the head."""
    content = bytearray(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(1, most))):
        kind = draw(st.sampled_from(KINDS))
        place = draw(st.integers(0, max(0, len(content) - 1)))
        length = draw(st.integers(1, 24))
        if kind == "change" and content:
            content[place] = draw(st.integers(0, 255))
        elif kind == "cut":
            del content[place : place + length]
        elif kind == "double":
            content[place:place] = content[place : place + length]
        elif kind == "insert":
            content[place:place] = draw(st.binary(min_size=1, max_size=24))
        elif kind == "zeros":
            content[place : place + length] = bytes(len(content[place : place + length]))
        elif kind == "end":
            del content[place:]
    return bytes(content)


SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8)
NAMES = st.text(max_size=6)
JSON = st.recursive(SCALARS, lambda v: st.lists(v, max_size=4) | st.dictionaries(NAMES, v, max_size=4), max_leaves=12)
