"""The heads of an app's HTTP answers, without the lines that HTTP forbids.

Browsers skip most of such lines, while the proxy in front refuses the whole answer because of one. A line is removed if
its name is empty or not a token (RFC 9110, 5.6.2), if it has no colon, or if its value contains control characters;
and of a head that is too long, the longest lines are. Lines that decide where the answer ends are never removed.

An answer is expected once the client has sent something. A piece that then begins like a head is one: HTTP clients
do not send the next request before they have read the answer. Bytes of other protocols pass unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Callable

#: Longest head that is passed on, in bytes, as the proxy in front accepts it.
LONGEST = 240 * 1024
#: Most that is kept of a head that has not ended yet; a longer one is passed on as it is.
MOST_KEPT = 1024 * 1024

_BEGINNING = b"HTTP/1."
_NAME = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_VALUE = rb"[\t\x20-\x7e\x80-\xff]*\r?\n"
_HEADER_PATTERN = _NAME + rb":" + _VALUE + rb"(?:[ \t]" + _VALUE + rb")*"
_HEADER = re.compile(_HEADER_PATTERN)
_HEADERS = re.compile(rb"(?:" + _HEADER_PATTERN + rb")*\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d\d\d)[^\n]*\n")
_LAST_HEAD = re.compile(rb"HTTP/1\.[01] (?:[2-9]\d\d|101)[^\n]*\n(?:" + _HEADER_PATTERN + rb")*\r?\n")
_END = re.compile(rb"\n\r?\n")
_FRAMING = re.compile(rb"(?:content-length|transfer-encoding|connection|upgrade)[ \t]*:", re.IGNORECASE)
#: Headers that a note names, and how much of the name of each.
_NAMED = 5
_LONGEST_NAME = 60


class AnswerHeads:
    """The bytes of one connection on their way from the app to the client."""

    def __init__(self, note: Callable[[str], None]) -> None:
        """`note` is called with a sentence for each head from which headers were removed."""
        self._note = note
        self._expected = True
        #: A head of which the end has not come yet.
        self._kept = b""

    def expect(self) -> None:
        """The client has sent something: what comes next may be the head of an answer."""
        self._expected = True

    def passed_on(self, piece: memoryview) -> memoryview | bytes:
        """What the client is sent of these bytes: nothing while a head is incomplete."""
        if not self._kept:
            if not self._expected or piece[: len(_BEGINNING)] != _BEGINNING:
                self._expected = False
                return piece
            head = _LAST_HEAD.match(piece)
            if head is not None and head.end() <= LONGEST:
                self._expected = False
                return piece
        passed, self._kept = self._checked_heads(self._kept + piece)
        return passed

    def _checked_heads(self, data: bytes) -> tuple[bytes, bytes]:
        """What can be passed on, and an unfinished head. An answer may have several heads: the status of all but the
        last one is below 200."""
        passed = []
        while (status_line := _STATUS_LINE.match(data)) is not None:
            end = _END.search(data, status_line.end() - 1)
            if end is None:
                break
            passed.append(self._checked(data[: status_line.end()], data[status_line.end() : end.end()]))
            data = data[end.end() :]
            status = int(status_line[1])
            if status >= 200 or status == 101:
                self._expected = False
                return b"".join((*passed, data)), b""
        if len(data) > MOST_KEPT or (status_line is None and b"\n" in data):
            self._expected = False
            return b"".join((*passed, data)), b""
        return b"".join(passed), data

    def _checked(self, status_line: bytes, lines: bytes) -> bytes:
        """One head: its status line, and its other lines with the empty one at the end."""
        if len(lines) <= LONGEST and _HEADERS.fullmatch(lines):
            return status_line + lines
        allowed, forbidden = _sorted_out(lines)
        kept, surplus = _shortened(allowed, LONGEST - len(status_line))
        if forbidden:
            self._note(f"HTTP does not allow {_names(forbidden)} in an answer: removed from what visitors get")
        if surplus:
            self._note(f"the head of an answer is longer than {LONGEST} bytes: removed {_names(surplus)} from it")
        return b"".join((status_line, *kept, b"\r\n"))


def _sorted_out(lines: bytes) -> tuple[list[bytes], list[bytes]]:
    """The headers that HTTP allows, and the others. Indented lines belong to the header before them."""
    headers: list[bytes] = []
    for line in lines.split(b"\n")[:-2]:
        if line[:1] in (b" ", b"\t") and headers:
            headers[-1] += line + b"\n"
        else:
            headers.append(line + b"\n")
    allowed: list[bytes] = []
    forbidden: list[bytes] = []
    for header in headers:
        ok = _HEADER.fullmatch(header) or _FRAMING.match(header)
        (allowed if ok else forbidden).append(header)
    return allowed, forbidden


def _shortened(headers: list[bytes], longest: int) -> tuple[list[bytes], list[bytes]]:
    """The headers that fit into that many bytes, in their order, and the longest ones, which do not."""
    surplus: set[int] = set()
    length = sum(map(len, headers))
    for index in sorted(range(len(headers)), key=lambda each: -len(headers[each])):
        if length <= longest:
            break
        if not _FRAMING.match(headers[index]):
            surplus.add(index)
            length -= len(headers[index])
    kept = [header for index, header in enumerate(headers) if index not in surplus]
    return kept, [headers[index] for index in sorted(surplus)]


def _names(headers: list[bytes]) -> str:
    """What the headers are called, without their values, in printable characters."""
    named = [ascii(header.partition(b":")[0].strip()[:_LONGEST_NAME].decode("latin-1")) for header in headers[:_NAMED]]
    rest = len(headers) - len(named)
    listed = ", ".join(named) + (f" and {rest} more" if rest else "")
    return f"the header{'s' if len(headers) > 1 else ''} {listed}"
