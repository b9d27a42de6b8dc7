"""Requests per key, wrong keys per address, and the headers of every answer."""

import asyncio
from pathlib import Path

import httpx
import pytest

from api.quotas import GuessGuard, Rates
from crewship.errors import TooManyRequests
from crewship.keys import make_key, new_secret
from crewship.settings import Settings
from tests.api.conftest import Api, assert_problem, fill, running
from tests.api.test_keys import bearer


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_empties_and_fills_evenly() -> None:
    clock = Clock()
    rates = Rates(6, clock)  # one in ten seconds
    left = [rates.take("a") for _ in range(6)]
    assert [quota.remaining for quota in left] == [5, 4, 3, 2, 1, 0]
    assert (left[0].reset_seconds, left[-1].reset_seconds) == (10, 60)
    assert rates.wait_seconds("a") == pytest.approx(10)
    assert rates.wait_seconds("b") == 0
    clock.now += 10
    assert rates.wait_seconds("a") == 0
    assert rates.take("a").remaining == 0
    clock.now += 35
    assert rates.state("a").remaining == 3
    clock.now += 1000
    assert rates.take("a").remaining == 5


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.quotas._MOST_TRACKED", 3)
    rates = Rates(1, Clock())
    for name in "abcd":
        rates.take(name)
    assert [name for name in "abcd" if rates.wait_seconds(name)] == ["b", "c", "d"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        (None, "/socket", False),
    ],
)
def test_what_counts_as_one_address(one: str | None, other: str | None, same: bool) -> None:
    guard = GuessGuard(Rates(1, Clock()))
    guard.failed(one)
    with pytest.raises(TooManyRequests):
        guard.admit(one, "guess")
    if same:
        with pytest.raises(TooManyRequests):
            guard.admit(other, "guess")
    else:
        guard.admit(other, "guess")


@pytest.fixture
async def narrow(settings: Settings, tmp_path: Path) -> "httpx.AsyncClient":  # type: ignore[misc]
    limited = settings.model_copy(update={"rate_limit_per_minute": 5, "failed_auth_per_minute": 3})
    async with running(limited, tmp_path, served=False) as api:
        fill(api)
        yield api


async def test_a_key_has_a_quota_and_is_told_of_it(narrow: Api) -> None:
    first = await narrow.http.get("/v1/runs")
    assert first.headers["ratelimit-policy"] == '"key";q=5;w=60'
    assert first.headers["ratelimit"] == '"key";r=4;t=12'
    refused = await narrow.http.get("/v1/runs/run_x")
    assert (refused.status_code, refused.headers["ratelimit"]) == (404, '"key";r=3;t=24')
    for _ in range(3):
        await narrow.http.get("/v1/runs")
    response = await narrow.http.get("/v1/runs")
    assert "CREWSHIP_RATE_LIMIT_PER_MINUTE" in assert_problem(response, 429, "too_many_requests")["hint"]
    assert 11 <= int(response.headers["retry-after"]) <= 12
    assert response.headers["ratelimit"].startswith('"key";r=0;t=')
    other = make_key("other", ["read"])
    narrow.add(other.row)
    assert (await narrow.http.get("/v1/runs", headers=bearer(other.secret))).status_code == 200
    assert "ratelimit" not in (await narrow.http.get("/healthz")).headers


async def test_guessing_ends_and_working_clients_go_on(narrow: Api) -> None:
    valid, fresh = make_key("valid", ["read"]), make_key("fresh", ["read"])
    narrow.add(valid.row, fresh.row)
    assert (await narrow.http.get("/v1/runs", headers=bearer(valid.secret))).status_code == 200
    for _ in range(3):
        response = await narrow.http.get("/v1/runs", headers=bearer(new_secret()))
        assert_problem(response, 401, "unauthorized")
    response = await narrow.http.get("/v1/runs", headers=bearer(new_secret()))
    assert assert_problem(response, 429, "too_many_failures")["hint"]
    assert 19 <= int(response.headers["retry-after"]) <= 20
    # A right guess is answered as a wrong one; who was known before goes on; without a key nothing is guessed.
    assert (await narrow.http.get("/v1/runs", headers=bearer(fresh.secret))).status_code == 429
    assert (await narrow.http.get("/v1/runs", headers=bearer(valid.secret))).status_code == 200
    assert (await narrow.http.get("/v1/runs", headers={"authorization": ""})).status_code == 401


async def test_tokens_are_guesses_too(narrow: Api) -> None:
    async with httpx.AsyncClient(transport=narrow.http._transport, base_url=narrow.http.base_url) as browser:
        codes = [
            (await browser.get("/v1/runs/run_1/events", params={"token": f"run_1.99999999999.{number}"})).status_code
            for number in range(5)
        ]
        assert codes == [401, 401, 401, 429, 429]


async def test_limits_can_be_turned_off(settings: Settings, tmp_path: Path) -> None:
    free = settings.model_copy(update={"rate_limit_per_minute": 0, "failed_auth_per_minute": 0})
    async with running(free, tmp_path, served=False) as api:
        answers = await asyncio.gather(*(api.http.get("/v1/runs", headers=bearer("wrong")) for _ in range(50)))
        assert {answer.status_code for answer in answers} == {401}
        answer = await api.http.get("/v1/runs")
        assert answer.status_code == 200
        assert "ratelimit" not in answer.headers


@pytest.mark.parametrize(
    "path", ["/healthz", "/openapi.json", "/docs", "/v1/runs", "/v1/runs/run_x", "/nothing", "/v1/runs?limit=x"]
)
async def test_every_answer_has_the_headers(ready: Api, path: str) -> None:
    headers = (await ready.http.get(path)).headers
    for name, value in {
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
    }.items():
        assert headers.get_list(name) == [value], name
    [policy] = headers.get_list("content-security-policy")
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert ("'self'" in policy) == (path == "/docs")
    assert "strict-transport-security" not in headers


async def test_a_defect_has_them_too(ready: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken() -> None:
        raise ValueError("inside")

    monkeypatch.setattr(ready.dispatch, "check", broken)
    response = await ready.http.post("/v1/runs", json={"project": "crew"})
    assert_problem(response, 500, "internal_error")
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-store"


async def test_over_tls_it_stays_so(ready: Api) -> None:
    response = await ready.http.get("https://crewship.example/healthz")
    assert response.headers["strict-transport-security"] == "max-age=31536000"


async def test_a_stream_keeps_its_own(served: Api) -> None:
    from tests.api.test_runs import run

    served.add(run(1, status="running"))
    served.live_log("run-run_000000000001")
    async with served.http.stream("GET", "/v1/runs/run_000000000001/events") as response:
        assert response.headers.get_list("cache-control") == ["no-cache, no-transform"]
        assert response.headers["ratelimit"]
        assert response.headers["x-content-type-options"] == "nosniff"


async def test_a_stream_costs_one_request_and_goes_on_when_none_is_left(settings: Settings, tmp_path: Path) -> None:
    """However many events it has, live or archived, and whatever else its key asks for meanwhile."""
    from tests.api.test_runs import run

    limited = settings.model_copy(update={"rate_limit_per_minute": 4})
    name = "run_000000000001"
    async with running(limited, tmp_path, served=True) as api:
        fill(api)
        api.add(run(1, status="running"))
        log = api.live_log(f"run-{name}")
        log.write(*map(str, range(10)))
        headers = {"Accept": "application/x-ndjson"}
        async with api.http.stream("GET", f"/v1/runs/{name}/events", headers=headers) as live:
            assert live.headers["ratelimit"].startswith('"key";r=3')
            lines = live.aiter_lines()
            first = [await anext(lines) for _ in range(10)]
            for _ in range(2):
                assert (await api.http.get("/v1/runs")).status_code == 200
            async with api.http.stream("GET", f"/v1/runs/{name}/events", headers=headers) as last:
                assert (await api.http.get("/v1/runs")).status_code == 429
                for batch in range(20):
                    log.write(*(f"{batch} {number}" for number in range(100)))
                api.close_log(log)
                rest = [line async for line in lines]
                whole = [line async for line in last.aiter_lines()]
        assert first + rest == whole
        assert len(whole) == 10 + 20 * 100 + 1
        refused = await api.http.get(f"/v1/runs/{name}/events", headers=headers)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
