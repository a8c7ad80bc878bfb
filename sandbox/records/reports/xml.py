"""Parses XML from clients safely: entities and external references are refused."""

from __future__ import annotations

from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from sandbox.errors import InvalidInput

#: Deepest nesting of elements; reports of test tools have a tenth of it.
MAX_DEPTH = 64


class ReportRefused(InvalidInput):
    """The report is malformed, of another format, or uses XML features that reports never use."""

    code = "report_refused"


def parse(content: bytes, what: str) -> Element:
    """The root element of a document; `what` names the document in errors. Raises ReportRefused."""
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


def number(text: str | None) -> float:
    """A number in a report; 0 if it is missing, not a number, negative or absurdly large."""
    try:
        value = float((text or "").replace(",", ""))
    except ValueError:
        return 0.0
    return value if 0 <= value < 10**9 else 0.0
