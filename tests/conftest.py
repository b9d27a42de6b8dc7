"""How ``pytest -n`` divides the suite: by files (``--dist loadfile``), of which the long ones begin first.

Every session of the suite has servers, ports, bridges and an installation's name of its own, so several may run at once.
"""

import pytest

_LONG = ("tests/platform/", "tests/faults/", "tests/isolation/")
"""Folders whose tests take longest: the rest fills what is left."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the long ones first where the suite is divided; in one process the order is the files'."""

    def place(item: pytest.Item) -> int:
        return next((n for n, folder in enumerate(_LONG) if item.nodeid.startswith(folder)), len(_LONG))

    if hasattr(config, "workerinput"):
        items.sort(key=place)
