"""Splitting documents into chunks."""

from hypothesis import given
from hypothesis import strategies as st

from sandbox.knowledge.chunks import MAX_CHUNK, Chunk, split


def test_a_heading_begins_a_new_chunk():
    assert split("intro\n\n# One\nfirst\n\nsecond\n\n## Two ##\n\nthird") == [
        Chunk(None, "intro"),
        Chunk("One", "first\n\nsecond"),
        Chunk("Two", "third"),
    ]
    assert split("  \n\n ") == []


@given(st.lists(st.text("ab \n", max_size=3 * MAX_CHUNK), max_size=4))
def test_chunks_have_all_words_and_a_limited_size(paragraphs):
    content = "\n\n".join(paragraphs)
    chunks = split(content)
    assert all(0 < len(chunk.content) <= MAX_CHUNK for chunk in chunks)
    letters = "".join("".join(chunk.content.split()) for chunk in chunks)
    assert letters == "".join(content.split())
