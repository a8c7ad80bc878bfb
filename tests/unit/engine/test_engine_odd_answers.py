"""Answers of the container engine that should not occur: they end in an error, and never in waiting for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast
from unittest.mock import AsyncMock, MagicMock
from uuid import uuid4

import docker
import pytest

from sandbox.domain.egress import PUBLIC
from sandbox.engine.docker import events
from sandbox.engine.docker.calls import DockerCalls
from sandbox.engine.docker.errors import EngineConflict
from sandbox.engine.docker.networks import DockerNetworks
from sandbox.errors import EngineError


class Calls:
    """Runs calls on a client that tests script."""

    local = False

    def __init__(self) -> None:
        self.client = MagicMock(spec=docker.APIClient)

    async def call(self, work: Callable[[Any], Any], **_: float) -> Any:
        return self.run(work)

    def run(self, work: Callable[[Any], Any]) -> Any:
        return work(self.client)


@pytest.fixture
def calls() -> Calls:
    return Calls()


async def test_an_event_that_cannot_be_read_ends_the_stream_with_an_error(calls: Calls) -> None:
    calls.client.events.return_value = MagicMock(__iter__=lambda _: iter([None]))
    async with asyncio.timeout(20):
        with pytest.raises(EngineError, match="cannot be read") as caught:
            await anext(events.follow(cast("DockerCalls", calls), uuid4()))
    assert caught.value.code == "engine_unreachable"


async def test_a_network_that_exists_and_is_never_listed_is_given_up(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.engine.docker.networks._PAUSE_SECONDS", 0)
    calls.client.networks.return_value = []
    calls.client.create_network.side_effect = EngineConflict("it exists already")
    networks = DockerNetworks(
        cast("DockerCalls", calls), uuid4(), AsyncMock(), pool="10.0.0.0/8", prefix=28, guard="off"
    )
    async with asyncio.timeout(20):
        with pytest.raises(EngineError, match="it exists already") as caught:
            await networks.ensure_session(uuid4(), PUBLIC)
    assert caught.value.code == "network_contended"
