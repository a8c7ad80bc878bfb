"""How long other requests take, seen by a caller in a process of its own: JSON on stdout, in milliseconds.

The standard library's client, and nothing else: a probe that costs as much as what it measures would measure itself.
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
    """A fixed number of requests one after the other, or as many as there are until stdin closes."""
    url, token, mode = sys.argv[1:]
    taken: list[float] = []
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    headers = {"Authorization": f"Bearer {token}"}
    print("ready", flush=True)
    while len(taken) < PROBES if mode == "idle" else not select.select([sys.stdin], [], [], 0)[0]:
        time.sleep(0.01)
        began = time.perf_counter()
        connection.request("GET", "/api/v1/projects", headers=headers)
        answer = connection.getresponse()
        answer.read()
        taken.append(1000 * (time.perf_counter() - began))
        assert answer.status == 200
    json.dump(taken, sys.stdout)


main()
