import json
from datetime import UTC, datetime

import pytest

from crewship import sbom
from crewship.contents import Build, compare, flat, packages
from crewship.system_packages import SystemPackage, SystemPackages

STATUS = b"""Package: adduser
Status: install ok installed
Architecture: all
Version: 3.134
Description: add and remove users and groups
 Version: of a line that goes on, which is no field

Package: removed-one
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u10
"""


def test_system_packages() -> None:
    found = SystemPackages.parse(STATUS, b'NAME="Debian GNU/Linux"\nID=debian\nVERSION_ID="12"\n')
    assert found == SystemPackages(
        "debian", "12",
        (SystemPackage("adduser", "3.134", "all"), SystemPackage("libc6", "2.36-9+deb12u10", "amd64")),
    )  # fmt: skip


def test_an_image_without_a_package_database() -> None:
    assert SystemPackages.parse(b"", b"") == SystemPackages()
    assert SystemPackages.parse(b"\xff\x00 no: such\n\nthing", b"=\n==") == SystemPackages()


@pytest.mark.parametrize(
    ("line", "name", "pin"),
    [
        ("httpx==0.28.1", "httpx", "0.28.1"),
        ("Some_Name==1.0", "some-name", "1.0"),
        ("here @ file:///build/source/here", "here", "file:///build/source/here"),
        ("git @ git+https://example.org/x.git@abc", "git", "git+https://example.org/x.git@abc"),
        ('colorama==0.4 ; sys_platform == "win32"', "colorama", "0.4"),
        ("hashed==1 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb", "hashed", "1"),
        ("commented==2 # via x", "commented", "2"),
    ],
)
def test_lines_of_a_lock(line: str, name: str, pin: str) -> None:
    assert {key: package.pin for key, package in packages(f"# made by a tool\n--index-url x\n\n{line}\n").items()} == {
        name: pin
    }


def test_what_differs() -> None:
    found = compare({"a": 1, "b": 1, "c": 1}, {"b": 2, "c": 1, "d": 1})
    assert (found.added, found.removed, found.changed) == ({"d": 1}, {"a": 1}, {"b": (1, 2)})
    assert found
    assert not compare({"a": 1}, {"a": 1})


def test_a_config_by_dotted_keys() -> None:
    config = {"framework": "python", "name": None, "run": {"memory": "1g", "cpus": None, "artifacts": ["a"]}}
    assert flat(config) == {"framework": "python", "run.memory": "1g", "run.artifacts": ["a"]}


def test_a_bill_of_materials_of_an_image_without_anything() -> None:
    build = Build("registry.example:5000/base", f"sha256:{'0' * 64}", "3.11.2", "", SystemPackages())
    made = [
        sbom.document(
            deployment_id="dep_1", project="crew", source_sha256="1", created_at=datetime(2026, 1, 31, tzinfo=UTC),
            image=None, build=build,
        )
        for _ in range(2)
    ]  # fmt: skip
    assert made[0] == made[1]
    found = json.loads(made[0])
    assert found["metadata"]["timestamp"] == "2026-01-31T00:00:00+00:00"
    (base,) = found["components"]
    assert (base["name"], base.get("version")) == ("registry.example:5000/base", None)
