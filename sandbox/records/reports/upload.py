"""The body of a report upload, as it was received into a file. Its content is read in a worker process only."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, parse_form

from sandbox.errors import InvalidInput
from sandbox.records.otlp.messages import unpack

ReadT = TypeVar("ReadT")


@dataclass(frozen=True, slots=True)
class Upload:
    """A received body and the headers that say what it is."""

    file: Path
    content_type: str
    content_encoding: str
    #: Most bytes that it may have once its `Content-Encoding` is undone.
    max_bytes: int


def read_upload(upload: Upload, names: tuple[str, ...], reader: Callable[..., ReadT]) -> ReadT:
    """The result of `reader` with the parts of a form by name; a body that is no form is the first part.

    Parts that the form does not have are None, except the first, which must be there. Raises InvalidInput for a
    malformed form, and what `unpack` and the reader raise. Call it in a worker process.
    """
    body = unpack(upload.file.read_bytes(), upload.content_encoding, upload.max_bytes)
    if not upload.content_type.lower().startswith("multipart/form-data"):
        return reader(body, *(None for _ in names[1:]))
    parts = _form(body, upload.content_type)
    if len(parts) > len(names):
        raise InvalidInput(
            f"The form has {len(parts)} parts.", hint=f"Send no others than {' and '.join(names)}, as `curl -F` does."
        )
    if names[0] not in parts:
        raise InvalidInput(f"The form has no part {names[0]}.", hint=f"Send it as `curl -F {names[0]}=@FILE` does.")
    return reader(*(parts.get(name) for name in names))


def _form(body: bytes, content_type: str) -> dict[str, bytes]:
    parts: dict[str, bytes] = {}

    def on_field(field: Field) -> None:
        parts.setdefault(_name(field.field_name), field.value or b"")

    def on_file(file: File) -> None:
        file.file_object.seek(0)
        parts.setdefault(_name(file.field_name), file.file_object.read())

    headers = {"Content-Type": content_type.encode("latin-1", "replace")}
    try:
        parse_form(headers, io.BytesIO(body), on_field, on_file)
    except (FormParserError, ValueError, KeyError) as error:
        raise InvalidInput(f"The form cannot be read: {error}.", hint="Send it as `curl -F` does.") from error
    return parts


def _name(name: bytes | None) -> str:
    return (name or b"").decode("utf-8", "replace")
