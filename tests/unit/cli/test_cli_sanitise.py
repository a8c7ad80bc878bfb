"""What a sandbox prints reaches a terminal as text with colours, and with nothing else that controls it."""

from __future__ import annotations

import io
import re
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.cli import commands
from sandbox.cli.sanitise import Sanitiser, coloured
from tests.steps import LINEAR, steps

RED, RESET = "\x1b[1;31m", "\x1b[0m"


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        (f"{RED}red{RESET}\n\ttab ä 漢", f"{RED}red{RESET}\n\ttab ä 漢"),
        ("\x1b[38:5:208mcolon", "\x1b[38:5:208mcolon"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]52;c;cm0=\x1b\\after", "after"),
        ("\x1b]52;c;cm0=\x9cafter", "after"),
        ("\x9d52;c;cm0=\x07after", "after"),
        ("\x1b]52;never ended\nnext line", "\nnext line"),
        ("\x1bPdevice control\x1b\\after", "after"),
        ("\x1b[2J\x1b[H\x1b[10;10Hafter", "after"),
        ("\x9b2Jafter", "after"),
        ("\x1b[?1049h\x1b[6n\x1b[>cafter", "after"),
        ("\x1bc\x1b(0\x1b7after", "after"),
        ("\x07\x08\x00\x0e\x7f\x85after", "after"),
        ("10%\r20%\r\nend", "10%\n20%\nend"),
        ("\x1b[31", "31"),
        ("\x1b", ""),
    ],
)
def test_colours_stay_and_everything_else_goes(printed: str, shown: str) -> None:
    assert coloured(printed) == shown


@given(st.text(alphabet="\x1b[];m0123\x07\\\r\n\x9b\x9dPaHJ ", max_size=40), st.integers(1, 5))
def test_pieces_give_what_the_whole_gives_and_never_a_sequence(text: str, size: int) -> None:
    sanitise = Sanitiser()
    pieces = "".join(sanitise(text[start : start + size]) for start in range(0, len(text), size))
    for shown in (coloured(text), pieces):
        left = re.sub(r"\x1b\[[0-9;:]*m", "", shown)
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", left)
    assert coloured(text).startswith(pieces)


@pytest.mark.parametrize("piece", ["\x1b]", "\x1b[", "\x1b[1", "\x9d", "\r", "\x1b]52;c;x"])
def test_twice_the_output(piece: str) -> None:
    once, twice = (steps(partial(coloured, piece * many)) for many in (2_000, 4_000))
    assert twice < LINEAR * once


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "raw", "shown"),
    [(Terminal(), False, "ok"), (Terminal(), True, "\x1b]0;t\x07ok"), (io.StringIO(), False, "\x1b]0;t\x07ok")],
)
def test_output_of_a_command(stream: io.StringIO, raw: bool, shown: str) -> None:
    write = commands._writer(stream, raw=raw)
    for piece in ("\x1b]0;", "t\x07", "ok"):
        write(piece)
    assert stream.getvalue() == shown


WINDOW = "\x1b[2J\x1b[1;1H\x1b[?1049h\x1b[?25l\x1b[31mred\x1b[0m\r\n\x1b7\x1b[3A\x1b8\x1b(B\x1b[5 q\x08\x07\ttext ä"


def test_a_shell_may_draw_in_its_window() -> None:
    assert Sanitiser(interactive=True)(WINDOW) == WINDOW


@pytest.mark.parametrize(
    "printed",
    [
        "\x1b]0;title\x07",
        "\x1b]52;c;cm0=\x1b\\",
        "\x9d52;c;cm0=\x07",
        "\x1bP$q\x22p\x1b\\",
        "\x1b_payload\x1b\\",
        "\x1b[c",
        "\x1b[>0c",
        "\x9bc",
        "\x1b[6n",
        "\x1b[?6n",
        "\x1b[21t",
        "\x1b[8;10;10t",
        "\x1b[?2026$p",
        "\x1b[>0q",
        "\x1b[5i",
        "\x05",
    ],
)
def test_a_shell_does_not_reach_beyond_its_window(printed: str) -> None:
    assert Sanitiser(interactive=True)(f"before{printed}after") == "beforeafter"
    pieces = Sanitiser(interactive=True)
    assert "".join(map(pieces, f"before{printed}after")) == "beforeafter"
