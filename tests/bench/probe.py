"""Measures response times as a client in a process of its own; prints them as JSON, in milliseconds.

It uses only the HTTP client of the standard library, so that its own time does not count for much.
"""

from __future__ import annotations

import http.client
import json
import select
import sys
import time
from urllib.parse import urlsplit

PROBES = 500


def main() -> None:
    """Send requests one after the other: PROBES of them in the mode `idle`, else until stdin is closed."""
    url, token, mode = sys.argv[1:]
    times: list[float] = []
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    headers = {"Authorization": f"Bearer {token}"}
    print("ready", flush=True)
    while len(times) < PROBES if mode == "idle" else not select.select([sys.stdin], [], [], 0)[0]:
        time.sleep(0.01)
        began = time.perf_counter()
        connection.request("GET", "/api/v1/projects", headers=headers)
        answer = connection.getresponse()
        answer.read()
        times.append(1000 * (time.perf_counter() - began))
        assert answer.status == 200
    json.dump(times, sys.stdout)


main()
