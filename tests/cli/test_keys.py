import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.responses import Response

from cli.moments import ago, ahead
from crewship.errors import Usage
from tests.cli.platform import AT, Platform, problem


def test_the_secret_alone_is_on_stdout(crewship: Any, platform: Platform) -> None:
    result = crewship("keys", "create", "ci", "--scope", "deploy", "-s", "env", "-p", "crew", "--expires", "90d")
    assert (result.exit_code, result.stdout) == (0, "crewship_the-secret-of-the-new-one\n")
    assert "may deploy, env in crew" in result.stderr
    assert "this once" in result.stderr
    method, path, body = platform.requests[-1]
    assert (method, path) == ("POST", "/v1/keys")
    assert (body["name"], body["scopes"], body["project"]) == ("ci", ["deploy", "env"], "crew")
    ends = datetime.fromisoformat(body["expires_at"])
    assert timedelta(days=89) < ends - datetime.now(UTC) <= timedelta(days=90)


def test_create_as_json(crewship: Any, platform: Platform) -> None:
    made = json.loads(crewship("keys", "create", "ci", "-s", "read", "--json").stdout)
    assert (made["id"], made["key"]) == ("key_0", "crewship_the-secret-of-the-new-one")
    assert platform.requests[-1][2]["expires_at"] is None


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["ci"], "--scope"),
        (["ci", "-s", "root"], "root"),
        (["ci", "-s", "read", "--expires", "soon"], "'soon' is no time"),
    ],
)
def test_what_cannot_be_created(crewship: Any, platform: Platform, arguments: list[str], error: str) -> None:
    result = crewship("keys", "create", *arguments)
    assert result.exit_code == 2
    assert error in result.stderr
    assert platform.keys == []


def test_list(crewship: Any, platform: Platform) -> None:
    platform.add_key("key_1", name="ci", scopes=["deploy", "env"], project="crew", last_used_at=AT)
    platform.add_key("key_2", name="old", scopes=["read"], revoked_at=AT, status="revoked")
    header, row = crewship("keys", "list").stdout.splitlines()
    assert header.split()[:4] == ["KEY", "NAME", "BEGINS", "SCOPES"]
    assert row.split()[:5] == ["key_1", "ci", "crewship_Jb3kTz9…", "deploy,env", "crew"]
    assert row.endswith("never expires")
    assert crewship("keys", "list", "--all").stdout.splitlines()[-1].endswith("revoked")
    assert [key["id"] for key in json.loads(crewship("keys", "list", "--json").stdout)["keys"]] == ["key_1"]


def test_revoke_by_id_or_name(crewship: Any, platform: Platform) -> None:
    for number, name in enumerate(("ci", "two", "two")):
        platform.add_key(f"key_{number}", name=name, scopes=["read"])
    assert crewship("keys", "revoke", "key_1").exit_code == 0
    assert "key_0 (ci) is revoked" in crewship("keys", "revoke", "ci").stderr
    assert [key["status"] for key in platform.keys] == ["revoked", "revoked", "active"]
    assert crewship("keys", "revoke", "ci").exit_code == 4
    assert crewship("keys", "revoke", "key_9").exit_code == 4
    platform.add_key("key_3", name="two", scopes=["read"])
    result = crewship("keys", "revoke", "two")
    assert result.exit_code == 5
    assert "key_2 | key_3" in result.stderr


def entry(action: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": "aud_000000000001", "at": AT, "action": action, "actor": {"key_id": "key_1", "name": "ci"},
        "address": "192.0.2.1", "project": "crew", "target": "crew", "before": None, "after": None,
    } | fields  # fmt: skip


def test_audit(crewship: Any, platform: Platform) -> None:
    assert "Nothing was changed" in crewship("audit").stderr
    platform.audit = [
        entry("env.changed", before={"version": 1, "names": ["A"]}, after={"version": 2, "set": ["A"], "unset": []}),
        entry(
            "deployment.rolled_back", target="dep_1", before={"current_deployment_id": "dep_2"},
            after={"current_deployment_id": "dep_1"},
        ),
        entry("garbage.removed", actor={"key_id": None, "name": "platform"}, address=None, before={"removals": [{}, {}]}),
    ]  # fmt: skip
    header, env, rollback, garbage = crewship("audit").stdout.splitlines()
    assert header.split() == ["WHEN", "WHAT", "OF", "BY", "FROM", "CHANGE"]
    assert env.startswith("2026-01-31 09:05:00  env.changed")
    assert env.endswith("version: 1 → 2; set: A; unset: none; names: A before")
    assert rollback.split()[2:6] == ["deployment.rolled_back", "dep_1", "ci", "192.0.2.1"]
    assert rollback.endswith("current_deployment_id: dep_2 → dep_1")
    assert garbage.split()[3:] == ["crew", "platform", "-", "was", "removals:", "2"]
    assert json.loads(crewship("audit", "--json").stdout)["audit"] == platform.audit


def test_audits_filters(crewship: Any, platform: Platform) -> None:
    arguments = ["-p", "crew", "--action", "env", "--key", "key_1", "--target", "x", "--since", "2026-01-31T00:00:00Z"]
    assert crewship("audit", *arguments, "--limit", "7").exit_code == 0
    assert platform.requests[-1][1] == (
        "/v1/audit?limit=7&project=crew&action=env&key_id=key_1&target=x&since=2026-01-31T00%3A00%3A00.000Z"
    )
    assert crewship("audit", "--since", "yesterday").exit_code == 2


def test_moments() -> None:
    for text, seconds in {"30s": 30, "5 min": 300, "24h": 86_400, "7d": 604_800, "2w": 1_209_600}.items():
        distance = datetime.now(UTC) - datetime.fromisoformat(ago(text, "--since"))
        assert abs(distance.total_seconds() - seconds) < 5
    assert ahead("2026-01-31T10:00:00+01:00", "--x") == "2026-01-31T09:00:00.000Z"
    for text in ("", "7", "d", "999999w", "2026-13-01"):
        with pytest.raises(Usage):
            ago(text, "--since")


def test_it_waits_when_it_asks_too_often(crewship: Any, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("cli.client.time.sleep", waits.append)

    def refused(seconds: int) -> Response:
        response = problem(429, "too_many_requests", "too often")
        response.headers["retry-after"] = str(seconds)
        return response

    platform.fail_next = [refused(1), refused(2)]
    assert crewship("keys", "list").exit_code == 0
    assert waits == [1, 2]
    platform.fail_next = [refused(60)]
    result = crewship("keys", "list")
    assert result.exit_code == 1
    assert "too often" in result.stderr
    assert waits == [1, 2]
