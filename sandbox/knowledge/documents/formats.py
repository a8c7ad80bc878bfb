"""Documents of several formats as Markdown. Hostile input: call it in a worker that can be killed.

The parsers are imported where they are used: they would add a tenth to the time that the service needs to start.
"""

from __future__ import annotations

import io
from collections.abc import Callable

from sandbox.errors import InvalidInput, Kind

#: What a worker should have imported before it gets a document.
PARSERS = ("bs4", "markdownify", "pypdf")
MAX_PAGES = 2_000
#: Elements of a page that are not its text.
_NOT_TEXT = ("script", "style", "template", "noscript", "nav", "iframe", "svg", "head")


class DocumentUnreadable(InvalidInput):
    """The document cannot be read as what its content type says."""

    code = "document_unreadable"


class FormatUnsupported(InvalidInput):
    """Documents of this content type are not read."""

    code = "document_type_unsupported"
    kind = Kind.UNSUPPORTED


def to_markdown(data: bytes, content_type: str) -> str:
    """The document's text in Markdown. Raises DocumentUnreadable and FormatUnsupported."""
    kind = media_type(content_type)
    if kind not in _READERS:
        known = ", ".join(_READERS)
        raise FormatUnsupported(f"documents of type {kind[:100]} are not read", hint=f"Send one of {known}.")
    text = _READERS[kind](data).replace("\0", "")
    if not text.strip():
        hint = "A scanned PDF has pictures of text only: recognise the text first." if kind == "application/pdf" else ""
        raise DocumentUnreadable("the document has no text", hint=hint or "Send a document that has text.")
    return text


def media_type(content_type: str) -> str:
    """The content type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DocumentUnreadable(f"the document is not UTF-8 (byte {error.start})", hint="Save it as UTF-8.") from error


def _html(data: bytes) -> str:
    from bs4 import BeautifulSoup
    from markdownify import MarkdownConverter

    page = BeautifulSoup(data, "html.parser")
    for element in page(_NOT_TEXT):
        element.decompose()
    try:
        return str(MarkdownConverter(heading_style="ATX", bullets="-").convert_soup(page))
    except RecursionError as error:
        raise DocumentUnreadable("the page is nested too deeply", hint="Send its text.") from error


def _pdf(data: bytes) -> str:
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    try:
        reader = PdfReader(io.BytesIO(data))
        found = len(reader.pages)
        pages = [page.extract_text().strip() for page in reader.pages] if found <= MAX_PAGES else []
    except (PyPdfError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, OSError) as error:
        # Of a damaged file, the library raises whatever its structure leads to.
        raise DocumentUnreadable(
            f"the PDF cannot be read ({type(error).__name__})", hint="Export it again, without a password."
        ) from error
    if found > MAX_PAGES:
        raise DocumentUnreadable(f"the PDF has {found} pages, and at most {MAX_PAGES} are read", hint="Split it.")
    return "\n\n".join(f"# Page {number}\n\n{_escaped(text)}" for number, text in enumerate(pages, 1) if text)


def _escaped(text: str) -> str:
    """Text of a page whose lines are no Markdown headings."""
    return "\n".join(f"\\{line}" if line.lstrip().startswith("#") else line for line in text.splitlines())


_READERS: dict[str, Callable[[bytes], str]] = {
    "text/plain": _text,
    "text/markdown": _text,
    "text/html": _html,
    "application/pdf": _pdf,
}
