"""How long other requests take, seen by a caller in a process of its own: JSON on stdout, in milliseconds."""

from __future__ import annotations

import json
import select
import sys
import time

import httpx

from tests.bench.world import HEADERS

PROBES = 300


def main() -> None:
    """A fixed number of requests one after the other, or as many as there are until stdin closes."""
    url, mode = sys.argv[1:]
    taken = []
    with httpx.Client(base_url=url, headers=HEADERS, timeout=60, trust_env=False) as http:
        while len(taken) < PROBES if mode == "idle" else not select.select([sys.stdin], [], [], 0.01)[0]:
            began = time.perf_counter()
            answer = http.get("/api/v1/projects")
            taken.append(1000 * (time.perf_counter() - began))
            assert answer.status_code == 200
            time.sleep(0.01)
    json.dump(taken, sys.stdout)


main()
