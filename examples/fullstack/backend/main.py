"""The backend of the example, with a single route."""

import platform
import socket
from itertools import count

from fastapi import FastAPI

app = FastAPI(title="Two containers, one page")
asked = count(1)


@app.get("/api/hello")
async def hello() -> dict[str, str | int]:
    return {
        "message": "Hello from the back end!",
        "python": platform.python_version(),
        "host": socket.gethostname(),
        "asked": next(asked),
    }
