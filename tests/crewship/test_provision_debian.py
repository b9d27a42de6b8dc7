"""The package mirror of this machine, as its apt sources tell it."""

from pathlib import Path

import pytest

from crewship.provision.debian import Source, codename, find_source

SOURCES = """\
# A comment before
Types: deb deb-src
# and one within
URIs: http://mirror.example/debian/
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /nowhere.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
"""


def etc(folder: Path, **files: str) -> Path:
    (folder / "sources.list.d").mkdir()
    for name, text in files.items():
        at = folder / "sources.list" if name == "main" else folder / "sources.list.d" / name.replace("__", ".")
        at.write_text(text)
    return folder


def test_one_line_sources(tmp_path: Path) -> None:
    text = "#deb http://off.example/debian bookworm main\n\ndeb-src http://src.example/debian bookworm main\n"
    text += "deb [arch=amd64 signed-by=/nowhere.gpg] https://on.example/debian bookworm main contrib # here\n"
    found = find_source("bookworm", etc(tmp_path, main=text))
    assert found == Source("https://on.example/debian", "bookworm", ("main", "contrib"))


def test_deb822_sources(tmp_path: Path) -> None:
    found = find_source("bookworm", etc(tmp_path, debian__sources=SOURCES))
    assert found == Source("http://mirror.example/debian", "bookworm", ("main", "contrib"))


@pytest.mark.parametrize("word", ["no", "No", "false"])
def test_a_source_that_is_not_enabled_is_passed_over(tmp_path: Path, word: str) -> None:
    off = SOURCES.replace("Types: deb deb-src", f"Enabled: {word}\nTypes: deb")
    assert find_source("bookworm", etc(tmp_path, debian__sources=off)) is None


def test_a_source_of_other_software_or_of_updates_only_is_no_mirror(tmp_path: Path) -> None:
    files = {
        "node__sources": "Types: deb\nURIs: https://node.example\nSuites: nodistro\nComponents: main\n",
        "cloud__list": "deb https://cloud.example/apt bookworm-updates main\ndeb cdrom:[disc] bookworm main\n",
    }
    assert find_source("bookworm", etc(tmp_path, **files)) is None


def test_a_list_of_mirrors(tmp_path: Path) -> None:
    mirrors = tmp_path / "mirrors"
    mirrors.write_text("# near ones\nhttp://near.example/debian/ priority:1\nhttp://far.example/debian\n")
    found = find_source("trixie", etc(tmp_path, main=f"deb mirror+file:{mirrors} trixie main\n"))
    assert found is not None
    assert found.url == "http://near.example/debian"


def test_a_keyring_file_is_handed_on_and_a_key_within_the_source_is_not(tmp_path: Path) -> None:
    keyring = tmp_path / "keys.gpg"
    keyring.touch()
    files = {"a__sources": SOURCES.replace("/nowhere.gpg", str(keyring))}
    found = find_source("bookworm", etc(tmp_path, **files))
    assert found is not None
    assert found.keyring == keyring
    (tmp_path / "sources.list.d" / "a.sources").write_text(
        SOURCES.replace(" /nowhere.gpg", "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc: def")
    )
    found = find_source("bookworm", tmp_path)
    assert found is not None
    assert found.keyring is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("NAME=Debian\nVERSION_CODENAME=bookworm\n", "bookworm"),
        ('VERSION_CODENAME="noble"\nUBUNTU_CODENAME=noble\n', "noble"),
        ("NAME=Fedora\n", ""),
    ],
)
def test_the_code_name_of_this_machine(tmp_path: Path, text: str, name: str) -> None:
    (tmp_path / "os-release").write_text(text)
    assert codename(tmp_path / "os-release") == name
    assert codename(tmp_path / "none") == ""
