"""A service behind a proxy that ends TLS, with a domain of its own: the addresses that apps and visitors see."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import httpx

from tests.acceptance.api import Api
from tests.acceptance.service import ADMIN_TOKEN, Service

#: Answers as Vite and Django do: nothing for names that it does not know, and addresses made of what it is asked by.
SERVER = """
const port = Number(process.env.PORT);
require("http").createServer((request, response) => {
  if (request.headers.host !== `localhost:${port}`) return response.writeHead(403).end("This host is not allowed");
  const scheme = request.headers["x-forwarded-proto"];
  const notes = `${scheme}://localhost:${port}/notes/`;
  if (request.url === "/notes") return response.writeHead(307, { Location: notes }).end();
  response.end(JSON.stringify({ scheme, forwarded: request.headers.forwarded, seen: process.env.SANDBOX_PREVIEW_URL }));
}).listen(port);
"""
PACKAGE = '{"name": "notes", "private": true, "scripts": {"start": "node server.js"}}'


def test_apps_behind_a_proxy_with_tls_know_the_public_scheme_and_name(make_service: Callable[..., Service]) -> None:
    service = make_service(
        SANDBOX_PUBLIC_SCHEME="https", SANDBOX_PUBLIC_PORT="443", SANDBOX_PREVIEW_DOMAIN="preview.example.test"
    )
    service.start()
    admin = Api(service.url, ADMIN_TOKEN)
    admin.upload("notes", {"package.json": PACKAGE, "server.js": SERVER})
    session, _ = admin.launch(project_id="notes")
    assert (session["status"], session["warnings"]) == ("running", []), session
    public = f"https://{session['session_id']}.preview.example.test"
    link = urlsplit(session["preview_url"])
    assert f"{link.scheme}://{link.netloc}" == public
    headers = {"Host": link.netloc, "X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.7"}
    with httpx.Client(base_url=service.url, headers=headers, trust_env=False, timeout=60) as visitor:
        opened = visitor.get(f"{link.path}?{link.query}")
        cookie = opened.headers["set-cookie"]
        assert "Secure" in cookie
        visitor.headers["Cookie"] = cookie.partition(";")[0]
        seen = visitor.get("/").json()
        assert (seen["scheme"], seen["seen"]) == ("https", public)
        assert "proto=https" in seen["forwarded"]
        redirected = visitor.get("/notes")
        assert (redirected.status_code, redirected.headers["location"]) == (307, f"{public}/notes/")
    admin.end(session["session_id"])
    admin.http.close()
