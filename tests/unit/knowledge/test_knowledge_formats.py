"""Documents of several formats: their text, their headings, and those that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.errors import SandboxError
from sandbox.knowledge.documents.chunks import Chunk
from sandbox.knowledge.documents.reading import read_document


def pdf(*pages: str) -> bytes:
    """A minimal PDF with one line of text on each page."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"", b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for page in pages:
        stream = f"BT /F1 12 Tf 72 720 Td ({page}) Tj ET".encode()
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R"
            b" /Resources << /Font << /F1 3 0 R >> >> >>" % len(objects)
        )
        kids.append(b"%d 0 R" % len(objects))
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(kids), b" ".join(kids))
    body, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, len(body))
    return body + head + table + trailer


def test_html_keeps_its_headings_and_loses_its_scripts() -> None:
    page = (
        b"<html><head><title>x</title><style>p {}</style></head><body><nav>Menu</nav><h1>Guide</h1>"
        b"<p>Use <b>blue</b> pipes.</p><script>alert('no')</script><h2>Valves</h2><ul><li>open</li></ul></body></html>"
    )
    document = read_document(page.decode(), "text/html; charset=utf-8")
    assert document.chunks == [
        Chunk("Guide", "Use **blue** pipes."),
        Chunk("Guide > Valves", "- open"),
    ]


def test_a_pdf_has_its_pages_as_headings(tmp_path: Path) -> None:
    file = tmp_path / "report.pdf"
    file.write_bytes(pdf("Blue pipes", "# Valves"))
    document = read_document(file, "application/pdf")
    assert document.chunks == [Chunk("Page 1", "Blue pipes"), Chunk("Page 2", "\\# Valves")]


@pytest.mark.parametrize(
    ("data", "content_type", "code"),
    [
        (b"%PDF-1.4 nothing", "application/pdf", "document_unreadable"),
        (pdf(), "application/pdf", "document_unreadable"),
        (b"caf\xe9", "text/plain", "document_unreadable"),
        (b"  \n", "text/markdown", "document_unreadable"),
        (b"<p></p>", "text/html", "document_unreadable"),
        (b"<b>" * 20_000, "text/html", "document_unreadable"),
        (b"GIF89a", "image/gif", "document_type_unsupported"),
        (b"x", "", "document_type_unsupported"),
    ],
)
def test_what_cannot_be_read_is_refused(data: bytes, content_type: str, code: str, tmp_path: Path) -> None:
    file = tmp_path / "document"
    file.write_bytes(data)
    with pytest.raises(SandboxError) as refused:
        read_document(file, content_type)
    assert refused.value.code == code
    assert refused.value.hint
