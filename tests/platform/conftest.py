"""One platform for all tests of this folder, and deployments that they share."""

from collections.abc import Callable, Generator, Iterator

import pytest

from tests.fixtures.platform import CREWS, ROOT, CrewshipDev


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the platform's logs beside what failed."""
    report = yield
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, CrewshipDev):
                report.sections.append((name, value.last_words()))
    return report


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrewshipDev]:
    """A running platform. At the end it has to stop in order and to leave nothing but caches."""
    dev = CrewshipDev(tmp_path_factory.mktemp("platform"))
    try:
        ready = dev.start()
        assert ready["url"] == dev.url
        assert ready["api_key"] == dev.key
        yield dev
        assert dev.stop() == 0, dev.last_words()
        assert [container.name for container in dev.containers()] == []
        assert [volume.name for volume in dev.volumes() if "-cache-" not in volume.name] == []
    finally:
        dev.destroy()


Deploy = Callable[[str], str]


@pytest.fixture(scope="session")
def deployed(platform: CrewshipDev) -> Deploy:
    """Deploys a crew at the first call and gives its project's name, which is also that of its table."""
    done: set[str] = set()

    def deploy(name: str) -> str:
        if name not in done:
            if (CREWS / name).is_dir() and name != "probe":
                found = platform.deploy(name, CREWS / name)
            elif (ROOT / "examples" / name).is_dir():
                found = platform.deploy(name, ROOT / "examples" / name)
            else:
                found = platform.deploy(name, CREWS / "probe", name=name)
            assert found["status"] == "ready", found
            done.add(name)
        return name

    return deploy


@pytest.fixture(scope="session")
def probe(deployed: Deploy) -> str:
    """The project of the crew that does what its input says."""
    return deployed("probe")
