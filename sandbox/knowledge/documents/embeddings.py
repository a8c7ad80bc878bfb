"""Embeddings of chunks and queries, from an endpoint with the API of OpenAI's embeddings."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from sandbox.errors import Unavailable
from sandbox.settings import Settings

#: Longest that a caller's search waits for the embedding of its query, and a job for those of chunks.
QUERY_SECONDS = 3.0
CHUNKS_SECONDS = 30.0
MAX_ANSWER_BYTES = 32 * 1024 * 1024
MAX_DIMENSIONS = 16_000


class EmbeddingsUnavailable(Unavailable):
    """The endpoint does not answer, or its answer cannot be used."""

    code = "embeddings_unavailable"


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """Where the model is."""

    #: Such as `https://api.example.com/v1`.
    url: str
    name: str
    key: str | None = None

    @classmethod
    def of(cls, settings: Settings) -> EmbeddingModel | None:
        """The configured model, or None."""
        if settings.embeddings_url is None or settings.embeddings_model is None:
            return None
        return cls(settings.embeddings_url, settings.embeddings_model, settings.embeddings_key)

    async def embed(self, texts: Sequence[str], *, timeout_seconds: float) -> list[list[float]]:
        """The embedding of each text, all of one length. Raises EmbeddingsUnavailable."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        body = b""
        try:
            async with (
                httpx.AsyncClient(timeout=timeout_seconds) as client,
                client.stream(
                    "POST",
                    f"{self.url.rstrip('/')}/embeddings",
                    json={"model": self.name, "input": list(texts)},
                    headers=headers,
                ) as answer,
            ):
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > MAX_ANSWER_BYTES:
                        raise EmbeddingsUnavailable(f"the endpoint's answer has more than {MAX_ANSWER_BYTES} bytes")
            if answer.status_code != httpx.codes.OK:
                raise EmbeddingsUnavailable(f"the endpoint answered {answer.status_code}")
            return _vectors(json.loads(body), len(texts))
        except httpx.HTTPError as error:
            raise EmbeddingsUnavailable(f"the endpoint cannot be reached: {type(error).__name__}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise EmbeddingsUnavailable("the endpoint's answer has no embeddings") from error


def _vectors(answer: dict[str, list[dict[str, list[float]]]], expected: int) -> list[list[float]]:
    vectors = [[float(value) for value in item["embedding"]] for item in answer["data"]]
    lengths = {len(vector) for vector in vectors}
    if len(vectors) != expected or len(lengths) != 1 or not 0 < lengths.pop() <= MAX_DIMENSIONS:
        raise ValueError("not one embedding of one length for each text")
    if not all(math.isfinite(value) for vector in vectors for value in vector):
        raise ValueError("an embedding has a value that is not finite")
    return vectors
