"""How ``pytest -n`` divides the suite: what shares a platform stays together, elsewhere each file does.

Every session of the suite has servers, ports, bridges and an installation's name of its own, so several may run at once.
"""

import pytest

_LOCAL_RUNS = ("tests/cli/test_run.py", "tests/cli/test_template.py")
"""Both look that no local run on the machine leaves anything behind."""
_SHARE_A_PLATFORM = ("tests/platform/", "tests/faults/", "tests/isolation/")
"""Folders whose tests are those of one platform. They take longest, so they begin first: the rest fills what is left."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Name each test's group, and put the long ones first where they are divided; in one process the order is the files'."""
    if not config.pluginmanager.hasplugin("xdist"):
        return

    def group(item: pytest.Item) -> str:
        file = item.nodeid.partition("::")[0]
        if file in _LOCAL_RUNS:
            return "local runs"
        return next((folder for folder in _SHARE_A_PLATFORM if file.startswith(folder)), file)

    for item in items:
        item.add_marker(pytest.mark.xdist_group(group(item)))
    if hasattr(config, "workerinput"):
        order = {name: place for place, name in enumerate(_SHARE_A_PLATFORM)}
        items.sort(key=lambda item: order.get(group(item), len(order)))
