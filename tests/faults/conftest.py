"""How often to strike (``--trials``), where (``--seed``), and what it is that is struck."""

import math
import random
import secrets
from collections import defaultdict
from collections.abc import Generator, Iterator

import pytest

from tests.faults.runs import RUNS_AT_ONCE, deployed
from tests.fixtures.platform import CrewshipDev

_TRIALS = 3


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--trials", type=int, default=_TRIALS, help="runs that each kind of fault strikes (default: 3)")
    parser.addoption("--seed", default=None, help="repeat the random points of an earlier session")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--seed", None) is None:
        config.option.seed = secrets.token_hex(4)


def pytest_report_header(config: pytest.Config) -> str:
    return f"faults: --trials {config.getoption('--trials', _TRIALS)} --seed {config.getoption('--seed', '')}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A strike hits several runs at once, each at another point of its life."""
    if "strike_number" in metafunc.fixturenames:
        strikes = math.ceil(metafunc.config.getoption("--trials", _TRIALS) / RUNS_AT_ONCE)
        metafunc.parametrize("strike_number", range(strikes))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the platform's logs beside what failed."""
    report = yield
    for value in getattr(item, "funcargs", {}).values():
        if report.failed and isinstance(value, CrewshipDev):
            report.sections.append(("platform", value.last_words()))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How long runs took that were struck, by kind; and what the neighbours of greedy ones felt."""
    found: dict[str, list[float]] = defaultdict(list)
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties:
                if name.startswith("struck: ") and isinstance(value, float):
                    found[name].append(value)
                elif name.startswith("neighbour: ") and isinstance(value, dict):
                    told = "; ".join(
                        f"{what} {times['p50']} / {times['p99']} / {times['max']} ms" for what, times in value.items()
                    )
                    terminalreporter.write_line(f"{name}: {told} (later than wanted: p50, p99, most)")
    for name, seconds in found.items():
        ordered = sorted(seconds)
        terminalreporter.write_line(
            f"{name}: {len(ordered)} runs, from the strike to the end {ordered[0]:.1f} / "
            f"{ordered[len(ordered) // 2]:.1f} / {ordered[-1]:.1f} s (least, median, most)"
        )


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Where to strike: another point in each test and session."""
    return random.Random(f"{request.config.getoption('--seed', '')} {request.node.name}")


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrewshipDev]:
    """A platform with the crew deployed. At the end it has to stop in order and to leave nothing."""
    settings = {"CREWSHIP_RUN_CAPACITY": str(RUNS_AT_ONCE + 1)}
    with deployed(CrewshipDev(tmp_path_factory.mktemp("faults"), settings)) as dev:
        yield dev
