"""What a request may say about egress."""

from ipaddress import IPv4Network
from typing import Any

import pytest

from sandbox.domain.egress import PUBLIC, Egress, parse_egress
from sandbox.domain.plan import LaunchPlan, NetworkPlan, RolePlan, blank_plan


def test_all_and_none_are_words():
    assert parse_egress("all") == PUBLIC
    assert parse_egress("none") == Egress("none")
    assert parse_egress(parse_egress("none").to_json()) == Egress("none")


def test_a_list_has_hosts_and_networks():
    egress = parse_egress(["API.example.com.", "203.0.113.0/24", "198.51.100.7", "api.example.com"])
    assert egress.destinations == ("api.example.com", "203.0.113.0/24", "198.51.100.7")
    assert egress.hosts == ("api.example.com",)
    assert egress.networks == (IPv4Network("203.0.113.0/24"), IPv4Network("198.51.100.7/32"))
    assert parse_egress(egress.to_json()) == egress


@pytest.mark.parametrize(
    "value",
    [
        "some",
        None,
        {},
        [],
        [7],
        ["*.example.com"],
        ["localhost"],
        ["https://example.com"],
        ["300.1.2.3"],
        ["10.0.0.0/33"],
        ["::1"],
        ["a b.example.com"],
        ["example.com\n"] * 51,
        ["x" * 64 + ".example.com"],
    ],
)
def test_anything_else_is_refused_with_the_reason(value: Any):
    with pytest.raises(ValueError, match=r"egress|neither a host name"):
        parse_egress(value)


def test_a_restricted_session_has_a_network_of_its_own():
    two = LaunchPlan(roles={"a": RolePlan(runtime="node20"), "b": RolePlan(runtime="node20")})
    assert two.has_own_network(PUBLIC)
    assert blank_plan("python312").has_own_network(parse_egress("none"))
    assert not blank_plan("python312").has_own_network(PUBLIC)


def test_a_project_may_restrict_itself_and_a_request_replaces_that():
    roles = {"a": RolePlan(runtime="node20")}
    plan = LaunchPlan(roles=roles, network=NetworkPlan(egress=("API.example.com",)))
    assert plan.reach(PUBLIC) == Egress("list", ("api.example.com",))
    assert plan.has_own_network(PUBLIC)
    assert plan.reach(parse_egress("none")) == Egress("none")
    assert LaunchPlan.model_validate_json(plan.model_dump_json()) == plan
    assert "network" not in LaunchPlan(roles=roles).model_dump()
