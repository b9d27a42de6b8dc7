"""Every operation of the API's document, called with thousands of inputs: no answer is a defect, and each is as documented.

``CREWSHIP_FUZZ_CASES`` says how many calls there are in all; by default as many as fit into every run of the tests. With more of
them (``make fuzz``) they differ from time to time; a failure prints what to call.
"""

import os
from collections import Counter
from collections.abc import Iterator

import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import APIOperation, Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.fuzz.cases import cases, operations
from tests.fuzz.platform import Target, target

pytestmark = pytest.mark.fuzz

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
    allow_header_conformance,
]
CASES = int(os.environ.get("CREWSHIP_FUZZ_CASES") or 1000)
_TIMEOUT_SECONDS = 30
_DEFAULT = "CREWSHIP_FUZZ_CASES" not in os.environ


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("fuzz")) as found:
        yield found


@pytest.mark.timeout(0)
def test_every_answer_is_as_documented(api: Target) -> None:
    found = operations(api.url)
    assert len(found) > 20
    statuses: dict[str, Counter[int]] = {}
    failures: list[BaseException] = []
    with requests.Session() as session:
        for operation in found:
            statuses[operation.label] = counts = Counter[int]()
            try:
                _try(operation, api, session, counts, max_examples=-(-CASES // len(found)))
            except (Exception, BaseExceptionGroup) as failure:
                failures.append(failure)
    print(f"{sum(counts.total() for counts in statuses.values())} cases")  # noqa: T201
    for label, counts in statuses.items():
        print(f"{label}: {dict(sorted(counts.items()))}")  # noqa: T201
    if failures:
        raise BaseExceptionGroup(f"{len(failures)} of {len(found)} operations", failures)
    # Else the cases would tell nothing: each operation has to have done what it is for.
    idle = [label for label, counts in statuses.items() if not any(200 <= status < 300 for status in counts)]
    assert idle == []


def _try(
    operation: APIOperation,
    api: Target,
    session: requests.Session,
    counts: Counter[int],
    max_examples: int,
) -> None:
    @settings(
        max_examples=max_examples, deadline=None, database=None, derandomize=_DEFAULT,
        suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink],
    )  # fmt: skip
    @given(cases(operation, api.key))
    def call(case: Case) -> None:
        response = case.call(session=session, timeout=_TIMEOUT_SECONDS)
        counts[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    call()


def test_without_a_key_nothing_is_answered_but_the_open_calls(api: Target) -> None:
    """Each operation once with no key, once with a wrong one, and once with nothing after ``Bearer``."""
    for operation in operations(api.url):
        path = operation.path.format_map(Counter())  # every parameter is "0"
        for headers in (
            {},
            {"Authorization": "Bearer crewship_wrong"},
            {"Authorization": "Bearer "},
            {"Authorization": "Basic eDp4"},
        ):
            answer = requests.request(
                operation.method.upper(), f"{api.url}{path}", headers=headers, timeout=_TIMEOUT_SECONDS
            )
            open_call = not operation.definition.raw.get("security")
            assert answer.status_code == (200 if open_call else 401), (operation.label, answer.text)
