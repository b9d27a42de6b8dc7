import json
import os
import stat
from pathlib import Path

import pytest
from platformdirs import user_state_dir

from cli.credentials import clear_login, find_target, login_file, read_login, write_login
from crewship.errors import Unauthorized, Unavailable, Usage

DEAD_PID = 2**22 + 1  # over the largest pid that Linux gives


def put_dev(tmp_path: Path, port: int, pid: int, age_seconds: int = 0) -> str:
    data = tmp_path / f"data-{port}"
    data.mkdir()
    (data / "admin.key").write_text(f"key-{port}\n")
    folder = Path(user_state_dir("crewship")) / "dev"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{pid}-{port}.json"
    url = f"http://127.0.0.1:{port}"
    path.write_text(json.dumps({"url": url, "data": str(data), "pid": pid}))
    os.utime(path, (2_000_000_000 - age_seconds,) * 2)
    return url


def test_nothing_anywhere() -> None:
    with pytest.raises(Unavailable) as caught:
        find_target()
    assert caught.value.exit_code == 6
    assert "crewship dev" in (caught.value.hint or "")


def test_the_options_win(monkeypatch: pytest.MonkeyPatch) -> None:
    write_login("http://login", "login-key")
    monkeypatch.setenv("CREWSHIP_URL", "http://env")
    monkeypatch.setenv("CREWSHIP_API_KEY", "env-key")
    target = find_target("http://option/", "option-key")
    assert (target.url, target.api_key, target.source) == ("http://option", "option-key", "--url")
    assert find_target().url == "http://env"


def test_the_login_wins_over_a_running_dev(tmp_path: Path) -> None:
    put_dev(tmp_path, 8700, os.getpid())
    assert find_target().source == "crewship dev"
    write_login("http://login", "login-key")
    assert find_target().key() == "login-key"


def test_the_youngest_living_dev_is_taken(tmp_path: Path) -> None:
    old = put_dev(tmp_path, 8700, os.getpid(), age_seconds=60)
    young = put_dev(tmp_path, 8800, os.getpid())
    put_dev(tmp_path, 8900, DEAD_PID)
    target = find_target()
    assert (target.url, target.key(), target.others) == (young, "key-8800", (old,))


def test_a_torn_file_of_dev_is_no_dev() -> None:
    folder = Path(user_state_dir("crewship")) / "dev"
    folder.mkdir(parents=True)
    (folder / "1.json").write_text('{"url": "http')
    (folder / "2.json").write_text("[]")
    with pytest.raises(Unavailable):
        find_target()


def test_a_key_goes_only_where_it_was_stored_for(tmp_path: Path) -> None:
    write_login("http://login", "login-key")
    dev = put_dev(tmp_path, 8700, os.getpid())
    assert find_target("http://login").key() == "login-key"
    assert find_target(dev).key() == "key-8700"
    with pytest.raises(Unauthorized) as caught:
        find_target("http://stranger").key()
    assert caught.value.exit_code == 3


def test_the_login_file_is_its_owners_alone() -> None:
    assert not clear_login()
    write_login("http://one", "a")
    write_login("http://two", "b")
    assert read_login() == ("http://two", "b")
    assert stat.S_IMODE(login_file().stat().st_mode) == 0o600
    assert clear_login()
    assert read_login() is None


@pytest.mark.parametrize("url", ["localhost:8700", "ftp://x", "http://", ""])
def test_no_address(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not url:
        monkeypatch.setenv("CREWSHIP_URL", " ")
    with pytest.raises(Usage):
        find_target(url or None)
