"""Small broken projects in families, generated: what `bench_learning` launches.

In each family every second project is held out: lessons are written from failures of the others only. The projects of a
family fail for the same cause with other particulars, and some of them in another wording or another language.
What a launch mends by itself without any lesson (`launch/install_repairs.py`) is not among them: a lock file that does
not fit, peer dependencies that contradict each other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Files = Mapping[str, str | bytes]


@dataclass(frozen=True, slots=True)
class BrokenProject:
    """A project whose first launch fails."""

    family: str
    name: str
    files: Files
    held_out: bool


def corpus() -> list[BrokenProject]:
    """All projects. Of each family the first is written from, the second is held out, and so on."""
    return [
        BrokenProject(family, f"{family}-{number}", files, held_out=bool(number % 2))
        for family, variants in _FAMILIES.items()
        for number, files in enumerate(variants)
    ]


def _flask(before: str = "", body: str = '"ok"', requirements: str | bytes = "flask\n") -> Files:
    app = (
        f'{before}\nfrom flask import Flask\napp = Flask(__name__)\n\n@app.get("/")\ndef index():\n    return {body}\n'
    )
    return {"requirements.txt": requirements, "app.py": app}


def _fastapi(before: str, body: str, *requirements: str) -> Files:
    app = f'{before}\nfrom fastapi import FastAPI\napp = FastAPI()\n\n@app.get("/")\ndef index():\n    return {body}\n'
    return {"requirements.txt": "\n".join(("fastapi", "uvicorn", *requirements)) + "\n", "main.py": app}


def _script(code: str, port: str) -> Files:
    handler = (
        "class Page(BaseHTTPRequestHandler):\n    def do_GET(self):\n        self.send_response(200)\n"
        "        self.end_headers()\n        self.wfile.write(b'ok')\n"
    )
    serve = f"HTTPServer(('0.0.0.0', {port}), Page).serve_forever()\n"
    head = "import os, time\nfrom http.server import BaseHTTPRequestHandler, HTTPServer\n"
    return {"main.py": f"{head}{handler}{code}\n{serve}"}


def _node(
    code: str,
    dependencies: Mapping[str, str] | None = None,
    *,
    script: str = "node server.js",
    listen: str = "process.env.PORT || 3000",
    **package: object,
) -> Files:
    described = {"name": "broken", "version": "1.0.0", "scripts": {"start": script}, **package}
    described["dependencies"] = dict(dependencies or {"ms": "2.1.3"})
    serve = f"require('http').createServer((_, answer) => answer.end('ok')).listen({listen});\n"
    return {"package.json": json.dumps(described), "server.js": f"{code}\n{serve}"}


def _variables() -> Iterator[Files]:
    yield _flask("import os\nKEY = os.environ['API_KEY']")
    yield _fastapi("import os\nSECRET = os.environ['SESSION_SECRET']", '{"ok": True}')
    yield _node("if (!process.env.MAIL_TOKEN) throw new Error('MAIL_TOKEN is not set');")
    yield _node("if (!process.env.STORE_ID) throw new Error('Missing required environment variable: STORE_ID');")
    yield _flask("import os\nif 'PAYMENT_URL' not in os.environ:\n    raise RuntimeError('PAYMENT_URL must be set')")
    yield _flask("import os\nassert os.getenv('REGION'), 'configuration is incomplete: no region'")


_FAMILIES: dict[str, list[Files]] = {
    "python-module": [
        _flask("import yaml", "yaml.safe_dump({'a': 1})"),
        _flask("import requests", "requests.__version__"),
        _fastapi("import bs4", '{"version": bs4.__version__}'),
        _fastapi("from dateutil import parser", '{"year": parser.parse("2026-11-30").year}'),
        _flask("from dotenv import load_dotenv\nload_dotenv()"),
        _flask("from slugify import slugify", "slugify('A b')"),
    ],
    "node-module": [
        _node("require('dayjs');"),
        _node("const { v4 } = require('uuid'); v4();"),
        _node("require('lodash/fp');"),
        _node("require('@sindresorhus/slugify/package.json');"),
    ],
    "variable": list(_variables()),
    "version": [
        _flask(requirements="flask==99.0\n"),
        _flask("import markupsafe", requirements="flask\nmarkupsafe==99.1\n"),
        _node("require('ms');", {"ms": "99.0.0"}),
        _node("require('bytes');", {"bytes": "^88.1.0"}),
        _flask("import click", requirements="flask\nclick>=99\n"),
        _flask("import itsdangerous", requirements="flask\nitsdangerous==0.0.99\n"),
    ],
    "python-version": [
        _flask("import annotatedyaml", "annotatedyaml.__name__", "flask\nannotatedyaml==1.0.0\n"),
        _flask("import pysmartthings", "pysmartthings.__name__", "flask\npysmartthings>=4.0.0\n"),
        _flask("import yaml", "yaml.__version__", "flask\npyyaml==5.4.1\n"),
        _flask("import PIL", "PIL.__version__", "flask\npillow==8.4.0\n"),
    ],
    "conflict": [
        _flask(requirements="flask==3.0.0\nwerkzeug<2\n"),
        _flask(requirements="flask==3.1.0\nclick<8\n"),
    ],
    "encoding": [
        _flask(requirements="# pages of the café\nflask\n".encode("latin-1")),
        _flask(requirements="flask  # größer\n".encode("latin-1")),
    ],
    "system-library": [
        _flask("import cv2", "cv2.__version__", "flask\nopencv-python\n"),
        _fastapi("import cv2", '{"version": cv2.__version__}', "opencv-contrib-python"),
    ],
    "start-command": [
        _node("", script="nodemon server.js"),
        _node("", script="tsx server.js"),
        _node("", script="serve -l 3000 ."),
        _node("", script="http-server -p 3000 ."),
    ],
    "port": [
        _script("PORT = 9123", "PORT"),
        _script("PORT = int(os.environ.get('LISTEN_PORT', 7007))", "PORT"),
        _node("const port = Number(process.env.LISTEN || 4321);", listen="port"),
        _node("const port = 5678 - 1;", listen="port"),
    ],
    "address": [
        _node("", listen="process.env.PORT || 3000, process.env.HOST || '10.99.99.99'"),
        _node("", listen="process.env.PORT || 3000, process.env.HOST || 'db.internal.example'"),
    ],
    "slow-start": [
        _script("time.sleep(70)", "8000"),
        _node("Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 70000);"),
    ],
    "engine": [
        {**_node("", engines={"node": ">=99"}), ".npmrc": "engine-strict=true\n"},
        {**_node("", engines={"node": "18.x"}), ".npmrc": "engine-strict=true\n"},
    ],
}
