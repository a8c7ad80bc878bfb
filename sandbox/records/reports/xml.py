"""Parses XML from clients safely: entities and external references are refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from sandbox.errors import InvalidInput

#: Deepest nesting of elements; reports of test tools have a tenth of it.
MAX_DEPTH = 64


class ReportRefused(InvalidInput):
    """The report is malformed, of another format, or uses XML features that reports never use."""

    code = "report_refused"


#: Colour codes of a terminal and single control characters, which XML 1.0 cannot have: as such and as references.
_ESCAPE = rb"(?:\x1b|&#0{0,5}27;|&#[xX]0{0,5}1[bB];)"
_FORBIDDEN = re.compile(
    _ESCAPE
    + rb"\[[0-9;:?]{0,64}[@-~]"
    + rb"|[\x00-\x08\x0b\x0c\x0e-\x1f]"
    + rb"|&#0{0,5}(?:[0-8]|1[124-9]|2[0-9]|3[01]);"
    + rb"|&#[xX]0{0,5}(?:[0-8bBcCeEfF]|1[0-9a-fA-F]|[dD][89a-fA-F][0-9a-fA-F]{2}|[fF]{3}[eEfF]);"
    + rb"|\xef\xbf[\xbe\xbf]"
)


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed document."""

    root: Element
    #: How many control characters and colour codes were taken out, because XML cannot have them.
    removed: int = 0


def parse(content: bytes, what: str) -> Document:
    """Parse a document; `what` names it in errors.

    Test tools write the colour codes of a terminal into their reports. They are taken out. Raises ReportRefused.
    """
    try:
        return Document(_root(content, what))
    except ReportRefused:
        # A document in UTF-16 has NUL bytes in every character.
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise
        cleaned, removed = _FORBIDDEN.subn(b"", content)
        if not removed:
            raise
        return Document(_root(cleaned, what), removed)


def _root(content: bytes, what: str) -> Element:
    try:
        root: Element = fromstring(content, forbid_entities=True, forbid_external=True)
    except DefusedXmlException as error:
        raise ReportRefused(
            f"The {what} defines entities.", hint="Reports of test tools do not; send the tool's own file."
        ) from error
    except (ParseError, ValueError, LookupError) as error:
        raise ReportRefused(f"The {what} is not XML: {error}.", hint="Send the file as the tool wrote it.") from error
    if _is_deeper(root, MAX_DEPTH):
        raise ReportRefused(
            f"The {what} has elements nested more than {MAX_DEPTH} deep.", hint="Send the file as the tool wrote it."
        )
    return root


def _is_deeper(root: Element, depth: int) -> bool:
    """Whether elements are nested deeper. Readers look for elements within elements, which takes time by depth."""
    level = [root]
    for _ in range(depth):
        level = [child for element in level for child in element]
    return bool(level)


#: Longer texts are no numbers.
_MAX_NUMBER = 100


def number(text: str | None, most: float = 10**9) -> float:
    """A number in a report, of seconds if it has a unit; 0 if it is missing, not a number or negative, or larger than
    `most`.

    The comma of a German or French locale is a decimal point (`0,5`). It separates thousands if a point follows it, or
    exactly three digits do (`2,120`), unless there is nothing but zero before it. Spaces separate thousands, too.
    """
    compact = "".join((text or "")[:_MAX_NUMBER].split())
    scale = next((scale for unit, scale in (("ms", 0.001), ("s", 1.0)) if compact.endswith(unit)), None)
    digits = compact.rstrip("ms") if scale is not None else compact
    try:
        value = float(_without_commas(digits)) * (scale or 1.0)
    except ValueError:
        return 0.0
    return value if 0 <= value <= most else 0.0


def _without_commas(text: str) -> str:
    whole, comma, fraction = text.rpartition(",")
    if not comma:
        return text
    is_group = len(fraction) == 3 and fraction.isdigit() and whole.strip("0") != ""
    if "." in fraction or is_group:
        return text.replace(",", "")
    return f"{whole.replace('.', '').replace(',', '')}.{fraction}"
