"""What the console changes besides sessions: alert rules, documents, memory, secrets; and a folder dropped on it."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from playwright.async_api import Page, expect

from tests.acceptance.api import Api
from tests.acceptance.console import NewPage, hold, sign_in, visit
from tests.acceptance.service import Service


@pytest.fixture
async def page(new_page: NewPage, service: Service) -> Page:
    """A page of the console in which the admin is signed in."""
    opened = await new_page()
    await sign_in(opened, service)
    return opened


async def confirm(page: Page) -> None:
    await page.get_by_role("dialog").get_by_role("button", name="Remove").click()


async def test_an_alert_rule_is_made_changed_and_removed(page: Page, service: Service, admin: Api) -> None:
    name = f"many-errors-{uuid4().hex[:6]}"
    await visit(page, f"{service.url}/platform/alerts")
    await page.get_by_role("button", name="New rule").click()
    dialog = page.get_by_role("dialog", name="New rule")
    await dialog.get_by_label("Name").fill(name)
    await dialog.get_by_role("combobox", name="Measure").fill("no_such_measure")
    await dialog.get_by_role("button", name="Save").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("error_logs")
    await dialog.get_by_role("combobox", name="Measure").fill("error_logs")
    await dialog.get_by_label("Threshold").fill("7")
    await dialog.get_by_role("button", name="Save").click()
    row = page.get_by_label("Alert rules").get_by_role("row").filter(has_text=name)
    await expect(row).to_contain_text("error_logs >= 7")
    await row.get_by_role("button", name=f"Edit {name}").click()
    await page.get_by_role("dialog").get_by_label("Threshold").fill("8")
    await page.get_by_role("dialog").get_by_role("button", name="Save").click()
    await expect(row).to_contain_text("error_logs >= 8")
    await row.get_by_role("button", name="Remove").click()
    await confirm(page)
    await expect(row).to_have_count(0)
    assert (await asyncio.to_thread(admin.http.get, f"/api/v1/alert-rules/{name}")).status_code == 404


async def test_a_document_is_made_changed_and_removed(page: Page, service: Service) -> None:
    title = f"Runbook {uuid4().hex[:6]}"
    await visit(page, f"{service.url}/platform/documents")
    await page.get_by_role("button", name="New document").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Title").fill(title)
    await dialog.get_by_label("Content").fill("# One\nfirst version")
    await dialog.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("heading", name=title)).to_be_visible()
    await page.get_by_role("link", name="All documents").click()
    await page.get_by_role("link", name=title).click()
    await page.get_by_role("button", name="Edit").click()
    await dialog.get_by_label("Content").fill("# One\nsecond version")
    await dialog.get_by_role("button", name="Save").click()
    await expect(page.locator("pre")).to_contain_text("second version")
    # The first version has been removed: until the list is read again there is no link to it.
    read_again = asyncio.Event()
    await hold(page, re.compile(r"/api/v1/documents\?"), read_again)
    await page.get_by_role("link", name="All documents").click()
    await expect(page.get_by_role("button", name="New document")).to_be_visible()
    await expect(page.get_by_role("link", name=title)).to_have_count(0)
    read_again.set()
    await page.get_by_role("link", name=title).click()
    await page.get_by_role("button", name="Remove").click()
    await confirm(page)
    await expect(page.get_by_role("button", name="New document")).to_be_visible()
    await expect(page.get_by_role("link", name=title)).to_have_count(0)


async def test_an_entry_of_memory_is_made_changed_and_removed(page: Page, service: Service, admin: Api) -> None:
    namespace = f"console-{uuid4().hex[:6]}"
    await visit(page, f"{service.url}/platform/memory")
    await page.get_by_role("combobox", name="Namespace").fill(namespace)
    await page.get_by_role("button", name="Open").click()
    await page.get_by_role("button", name="New entry").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Key").fill("plans/next")
    await dialog.get_by_label("Value").fill("not json")
    await dialog.get_by_role("button", name="Save").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("not JSON")
    await dialog.get_by_label("Value").fill('{"step": 1}')
    await dialog.get_by_role("button", name="Save").click()
    row = page.get_by_role("row").filter(has_text="plans/next")
    await row.get_by_role("button", name="Edit").click()
    # An agent writes it meanwhile: what the agent wrote is not overwritten.
    path = f"/api/v1/memory/{namespace}/plans/next"
    assert (await asyncio.to_thread(lambda: admin.http.put(path, json={"value": {"step": 2}}))).is_success
    await dialog.get_by_label("Value").fill('{"step": 3}')
    await dialog.get_by_role("button", name="Save").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("version")
    await dialog.get_by_role("button", name="Cancel").click()
    assert (await asyncio.to_thread(admin.http.get, path)).json()["value"] == {"step": 2}
    await row.get_by_role("button", name="Remove").click()
    await confirm(page)
    await expect(row).to_have_count(0)


async def test_a_secret_is_set_replaced_and_removed(page: Page, service: Service, admin: Api) -> None:
    name = f"API_KEY_{uuid4().hex[:6]}"
    await visit(page, f"{service.url}/platform/secrets")
    await page.get_by_role("button", name="New secret").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Name").fill(name)
    value = dialog.get_by_label(re.compile("^Value"))
    await value.fill("first-value")
    assert await value.get_attribute("type") == "password"
    await dialog.get_by_role("button", name="Save").click()
    row = page.get_by_role("row").filter(has_text=name)
    await expect(row).to_contain_text("all projects")
    (stored,) = await _secrets(admin, name)
    await row.get_by_role("button", name=f"Replace the value of {name}").click()
    await expect(value).to_have_value("")
    await value.fill("second-value")
    await dialog.get_by_role("button", name="Save").click()
    await expect(dialog).to_have_count(0)
    (replaced,) = await _secrets(admin, name)
    assert replaced["updated_at"] > stored["updated_at"]
    assert "-value" not in await page.content()
    await row.get_by_role("button", name=f"Remove {name}").click()
    await confirm(page)
    await expect(row).to_have_count(0)
    assert await _secrets(admin, name) == []
    await visit(page, f"{service.url}/platform/audit")
    await page.get_by_label("Kind").select_option("secret")
    actions = page.get_by_label("Audit log").get_by_role("row").filter(has_text=name)
    await expect(actions).to_have_count(3)
    await expect(actions.filter(has_text="secret.remove")).to_contain_text("succeeded")


async def _secrets(api: Api, name: str) -> list[dict[str, Any]]:
    answer = await asyncio.to_thread(api.http.get, "/api/v1/secrets", params={"limit": 500})
    return [secret for secret in answer.json()["items"] if secret["name"] == name]


async def test_a_folder_is_dropped(page: Page, service: Service, tmp_path: Path) -> None:
    folder = tmp_path / "Dropped Site"
    (folder / "pages" / "deep").mkdir(parents=True)
    (folder / "node_modules" / "x").mkdir(parents=True)
    (folder / "index.html").write_text("<h1>dropped</h1>")
    (folder / "pages" / "deep" / "a.html").write_text("a")
    (folder / "node_modules" / "x" / "index.js").write_text("x")
    await visit(page, f"{service.url}/new")
    box = await page.get_by_test_id("drop").bounding_box()
    assert box is not None
    browser = await page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        event = {"type": kind, "x": box["x"] + box["width"] / 2, "y": box["y"] + 10, "data": data}
        await browser.send("Input.dispatchDragEvent", event)
    await expect(page.locator("main")).to_contain_text("dropped-site: 2 files")
    await expect(page.get_by_role("group", name="Plan of")).to_be_visible()
