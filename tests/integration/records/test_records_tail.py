"""Log lines followed as they are written."""

from __future__ import annotations

import asyncio
import json

import httpx


async def test_logs_are_followed(server, ada, bob):
    def line(message: str) -> dict[str, object]:
        return {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": message}}]}]}]}

    await ada.post("/v1/logs", json=line("before"))
    headers = {"X-API-Key": ada.headers["x-api-key"]}
    async with (
        httpx.AsyncClient(base_url=server, headers=headers, timeout=30, trust_env=False) as http,
        http.stream("GET", "/api/v1/logs/tail") as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        seen: list[str] = []

        async def follow() -> None:
            async for text in answer.aiter_lines():
                if text.startswith("data: "):
                    seen.append(json.loads(text[6:])["message"])
                if len(seen) == 20:
                    return

        following = asyncio.create_task(follow())
        # The place to follow from is taken once the stream is read; lines from then on are all told, each once.
        while not seen:
            await ada.post("/v1/logs", json=line("first"))
            await asyncio.sleep(0.1)
        await bob.post("/v1/logs", json=line("somebody else's"))
        for number in range(20):
            await ada.post("/v1/logs", json=line(str(number)))
        await asyncio.wait_for(following, 60)
    numbers = [message for message in seen if message != "first"]
    assert numbers == [str(number) for number in range(len(numbers))]
    assert "before" not in seen
    assert "somebody else's" not in seen
