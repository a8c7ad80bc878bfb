"""The agents' memory over HTTP: preconditions, ownership, shared namespaces, listing by prefix, history."""

from __future__ import annotations

import asyncio

PATH = "/api/v1/memory"


async def keys(client, namespace: str, **params: str) -> list[str]:
    answer = await client.get(f"{PATH}/{namespace}", params=params)
    assert answer.status_code == 200, answer.text
    return [entry["key"] for entry in answer.json()["items"]]


async def test_preconditions_are_headers(ada):
    path = f"{PATH}/notes/plan"
    created = await ada.put(path, json={"value": 1}, headers={"If-None-Match": "*"})
    assert (created.status_code, created.headers["etag"]) == (200, '"1"')
    again = await ada.put(path, json={"value": 1}, headers={"If-None-Match": "*"})
    assert (again.status_code, again.json()["code"]) == (412, "memory_version_conflict")
    racing = await asyncio.gather(*(ada.put(path, json={"value": n}, headers={"If-Match": '"1"'}) for n in range(5)))
    assert sorted(answer.status_code for answer in racing) == [200, 412, 412, 412, 412]
    assert (await ada.get(path)).headers["etag"] == '"2"'
    assert (await ada.delete(path, headers={"If-Match": '"1"'})).status_code == 412
    for wrong in ("2", '"0"', '"1", "2"', "*"):
        refused = await ada.delete(path, headers={"If-Match": wrong})
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_etag")
    assert (await ada.delete(path, headers={"If-Match": '"2"'})).status_code == 204
    missing = await ada.put(path, json={"value": 1}, headers={"If-Match": '"2"'})
    assert missing.status_code == 412
    assert (await ada.put(path, json={"value": 1, "if_version": 7})).status_code == 409


async def test_a_namespace_belongs_to_the_user_that_wrote_first(ada, bob, admin):
    await ada.put(f"{PATH}/ada-notes/a", json={"value": "mine"})
    assert (await bob.get(f"{PATH}/ada-notes/a")).json()["code"] == "memory_not_found"
    assert await keys(bob, "ada-notes") == []
    assert (await bob.delete(f"{PATH}/ada-notes/a")).status_code == 404
    refused = await bob.put(f"{PATH}/ada-notes/b", json={"value": 1})
    assert (refused.status_code, refused.json()["code"]) == (403, "memory_forbidden")
    assert (await admin.get(f"{PATH}/ada-notes/a")).json()["written_by"] == "ada"
    assert (await bob.put("/api/v1/memory-namespaces/ada-notes", json={"access": "write"})).status_code == 403


async def test_a_namespace_of_the_admins_is_not_taken(admin, ada):
    await admin.put(f"{PATH}/platform/a", json={"value": 1})
    assert (await ada.get(f"{PATH}/platform/a")).status_code == 404
    assert (await ada.put(f"{PATH}/platform/b", json={"value": 1})).status_code == 403
    shared = await admin.put("/api/v1/memory-namespaces/platform", json={"access": "read", "owner": "ops"})
    assert (shared.json()["owner"], shared.json()["access"]) == ("ops", "read")
    assert (await ada.get(f"{PATH}/platform/a")).status_code == 200


async def test_an_owner_shares_a_namespace(ada, bob):
    await ada.put(f"{PATH}/team/a", json={"value": 1})
    for access, reads, writes in (("read", 200, 403), ("write", 200, 200), ("none", 404, 403)):
        await ada.put("/api/v1/memory-namespaces/team", json={"access": access})
        assert (await bob.get(f"{PATH}/team/a")).status_code == reads
        assert (await bob.put(f"{PATH}/team/b", json={"value": 1})).status_code == writes
        listed = (await bob.get("/api/v1/memory-namespaces")).json()["items"]
        assert [one["namespace"] for one in listed] == (["team"] if reads == 200 else [])
    assert (await ada.put("/api/v1/memory-namespaces/team", json={"access": "all"})).status_code == 422
    handed = await ada.put("/api/v1/memory-namespaces/team", json={"access": "read", "owner": "bob"})
    assert handed.status_code == 403


async def test_of_two_first_writers_one_is_the_owner(ada, bob):
    answers = await asyncio.gather(*(client.put(f"{PATH}/new/k", json={"value": 1}) for client in (ada, bob)))
    assert sorted(answer.status_code for answer in answers) == [200, 403]


async def test_keys_are_listed_by_prefix(ada):
    for key in ("plan/a", "plan/b", "other", "plan_c"):
        await ada.put(f"{PATH}/n/{key}", json={"value": key})
    assert await keys(ada, "n", prefix="plan/") == ["plan/b", "plan/a"]
    assert await keys(ada, "n", prefix="plan/", q="b") == ["plan/b"]


async def test_the_history_of_a_key_is_kept(ada, bob):
    path = f"{PATH}/n/k/x"
    for value in range(3):
        await ada.put(path, json={"value": value, "agent_name": "Backend"})
    await ada.delete(path)
    await ada.put(path, json={"value": None})
    changes = (await ada.get("/api/v1/memory-history/n/k/x")).json()["items"]
    assert [(change["version"], change["value"], change["removed"]) for change in changes] == [
        (1, None, False),
        (3, None, True),
        (3, 2, False),
        (2, 1, False),
        (1, 0, False),
    ]
    assert changes[2]["agent_name"] == "Backend"
    assert changes[2]["written_by"] == "ada"
    assert (await bob.get("/api/v1/memory-history/n/k/x")).status_code == 404
    for value in range(60):
        await ada.put(path, json={"value": value})
    everything = (await ada.get("/api/v1/memory-history/n/k/x", params={"limit": 500})).json()["items"]
    assert [change["value"] for change in everything] == list(reversed(range(10, 60)))
