"""Settings that follow from others."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.settings import Settings


@pytest.mark.parametrize(
    ("given", "counts"),
    [
        ({}, True),
        ({"preview_domain": "box.localhost."}, True),
        ({"preview_domain": "preview.example.com"}, False),
        ({"preview_domain": "preview.notlocalhost"}, False),
        ({"preview_domain": "preview.example.com", "trusted_proxies": "10.0.0.1/32"}, True),
        ({"preview_domain": "preview.example.com", "preview_by_address": "on"}, True),
        ({"preview_by_address": "off"}, False),
    ],
)
def test_addresses_count_only_where_they_tell_visitors_apart(given: dict[str, Any], counts: bool) -> None:
    assert Settings(**given).addresses_count is counts
