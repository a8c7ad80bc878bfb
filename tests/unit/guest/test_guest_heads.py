"""Heads of answers that a proxy would refuse."""

from __future__ import annotations

import pytest

from sandbox.guest.heads import LONGEST, MOST_KEPT, AnswerHeads

START, BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", b"\r\nhi"


class Connection:
    """What a client gets of the pieces that an app sends, and the notes about them."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.heads = AnswerHeads(self.notes.append)

    def client_gets(self, *pieces: bytes) -> bytes:
        return b"".join(bytes(self.heads.passed_on(memoryview(piece))) for piece in pieces)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b"X-Odd: a\0b\r\n", "'X-Odd'"),
        (b"X-Odd: a\x1b[0mb\r\n", "'X-Odd'"),
        (b"X-Odd: a\rb\r\n", "'X-Odd'"),
        (b": nameless\r\n", "''"),
        (b"no colon\r\n", "'no colon'"),
        (b"X-\xc3\x96dd: a\r\n", "'X-\\xc3\\x96dd'"),
        (b"X Odd: a\r\n", "'X Odd'"),
        (b"X-Odd: a\r\n b\0c\r\n", "'X-Odd'"),
    ],
)
def test_a_header_that_http_forbids_is_removed_and_named(line: bytes, name: str) -> None:
    connection = Connection()
    assert connection.client_gets(START + line + b"A: b\r\n" + BODY) == START + b"A: b\r\n" + BODY
    assert [name in note for note in connection.notes] == [True]


@pytest.mark.parametrize(
    "line",
    [b"", b"A: b\n", b"A:\r\n", b"A: \xe4\xff\r\n", b"A: b\r\n\tc\r\n", b"A:" + b"b" * 100_000 + b"\r\n"],
)
def test_other_heads_pass_as_they_are(line: bytes) -> None:
    connection = Connection()
    assert connection.client_gets(START + line + BODY) == START + line + BODY
    assert connection.notes == []


def test_a_head_in_pieces_is_read_as_a_whole() -> None:
    connection = Connection()
    answer = START + b"Bad Name: 1\r\n" + BODY
    pieces = [answer[:20], *(answer[index : index + 1] for index in range(20, len(answer)))]
    assert connection.client_gets(*pieces) == START + BODY


def test_an_early_answer_is_followed_by_the_final_one() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nBad Name: 1\r\n\r\n"
    connection = Connection()
    assert connection.client_gets(early, START + b"nonsense\r\n" + BODY) == (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + START + BODY
    )
    assert connection.client_gets(early + START) == early + START, "what follows belongs to the body"


def test_only_what_follows_a_request_is_a_head() -> None:
    connection = Connection()
    quoted = START + b"nonsense\r\n" + BODY
    assert connection.client_gets(START + BODY, quoted) == START + BODY + quoted, "a body may quote an answer"
    connection.heads.expect()
    assert connection.client_gets(quoted) == START + BODY


def test_another_protocol_passes_after_an_upgrade() -> None:
    connection = Connection()
    switched = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nBad Name: 1\r\n\r\n\0\1"
    assert connection.client_gets(switched) == switched.replace(b"Bad Name: 1\r\n", b"")
    connection.heads.expect()
    assert connection.client_gets(b"\x81\x03abc") == b"\x81\x03abc"


def test_lines_that_decide_about_the_length_stay() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\nBad Name: 1\r\n" + BODY
    assert Connection().client_gets(answer) == b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n" + BODY


def test_the_longest_headers_of_a_head_that_is_too_long_are_removed() -> None:
    connection = Connection()
    long = b"X-Long: " + b"a" * LONGEST + b"\r\n"
    assert connection.client_gets((START + long + b"A: b\r\n" + BODY)[:1000], b"") == b"", "it has not ended yet"
    connection = Connection()
    assert connection.client_gets(START + long + b"A: b\r\n" + BODY) == START + b"A: b\r\n" + BODY
    assert "'X-Long'" in connection.notes[0]


def test_a_head_without_end_is_not_kept_without_end() -> None:
    connection = Connection()
    endless = START + b"A: " + b"a" * MOST_KEPT
    assert connection.client_gets(endless) == endless
