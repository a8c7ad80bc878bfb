"""Splitting documents into chunks."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from sandbox.knowledge.documents.chunks import MAX_CHUNK, OVERLAP, Chunk, split


def test_a_heading_begins_a_new_chunk_and_names_those_above_it():
    assert split("intro\n\n# One\nfirst\n\nsecond\n\n## Two ##\n\nthird\n\nThree\n=====\nfourth") == [
        Chunk(None, "intro"),
        Chunk("One", "first\n\nsecond"),
        Chunk("One > Two", "third"),
        Chunk("Three", "fourth"),
    ]
    assert split("  \n\n ") == []


def test_a_line_of_code_is_no_heading():
    assert split("# Setup\n\n```sh\n# install everything\nmake\n```") == [
        Chunk("Setup", "```sh\n# install everything\nmake\n```")
    ]


def test_a_chunk_begins_with_the_end_of_the_one_before():
    words = [f"word{number}" for number in range(1000)]
    chunks = split(" ".join(words))
    assert len(chunks) > 3
    for before, after in pairwise(chunks):
        overlap, _, _ = after.content.partition("\n\n")
        assert 0 < len(overlap) <= OVERLAP
        assert before.content.endswith(overlap)


@given(st.lists(st.text("ab c\n", max_size=3 * MAX_CHUNK), max_size=4))
def test_chunks_have_all_words_and_a_limited_size(paragraphs):
    content = "\n\n".join(paragraphs)
    chunks = split(content)
    assert all(0 < len(chunk.content) <= MAX_CHUNK for chunk in chunks)
    rest = "".join(content.split())
    for chunk in chunks:
        letters = "".join(chunk.content.split())
        # Its beginning may repeat the end of the chunk before.
        start = next(start for start in range(len(letters)) if rest.startswith(letters[start:]))
        rest = rest[len(letters) - start :]
    assert rest == ""
