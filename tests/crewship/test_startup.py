"""What a process refuses to start with."""

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from crewship import db
from crewship.addresses import is_loopback
from crewship.errors import Usage
from crewship.keys import make_key
from crewship.settings import Settings
from crewship.startup import check_first_key, check_public_bind

ROOT = Path(__file__).parents[2]
STRONG = secrets.token_hex(32)
POSTGRES = "postgresql+psycopg://db/crewship"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True), ("localhost", True),
        ("0.0.0.0", False), ("::", False), ("192.0.2.1", False), ("", False), ("box.example", False),
    ],
)  # fmt: skip
def test_what_only_this_machine_reaches(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("host", "database", "key", "refused"),
    [
        ("0.0.0.0", "", "admin", True),
        ("0.0.0.0", "", "change-me", True),
        ("127.0.0.1", POSTGRES, "change-me", True),
        ("127.0.0.1", "", "admin", False),
        pytest.param("0.0.0.0", "", STRONG, False, id="strong"),  # the same name in each process of `pytest -n`
        ("0.0.0.0", "", "", False),
    ],
)
def test_first_keys(host: str, database: str, key: str, refused: bool) -> None:
    settings = Settings(api_host=host, database_url=database, bootstrap_admin_key=key)
    if refused:
        with pytest.raises(Usage, match="CREWSHIP_BOOTSTRAP_ADMIN_KEY is not fit"):
            check_first_key(settings)
    else:
        check_first_key(settings)


def test_a_public_address_needs_a_key(tmp_path: Path) -> None:
    public = Settings(data_dir=tmp_path, api_host="0.0.0.0")
    database = db.open_database(public.database)
    db.migrate(database)
    with pytest.raises(Usage, match="no API key yet"):
        check_public_bind(public, database)
    check_public_bind(public.model_copy(update={"bootstrap_admin_key": STRONG}), database)
    check_public_bind(public.model_copy(update={"api_host": "127.0.0.1"}), database)
    with db.session(database) as session:
        session.add(make_key("k", ["admin"]).row)
    check_public_bind(public, database)
    database.dispose()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"API_HOST": "0.0.0.0"}, "no API key yet"),
        ({"API_HOST": "0.0.0.0", "BOOTSTRAP_ADMIN_KEY": "change-me"}, "BOOTSTRAP_ADMIN_KEY is not fit"),
    ],
)
def test_the_process_ends_with_one_clear_error(tmp_path: Path, settings: dict[str, str], why: str) -> None:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CREWSHIP_")},
        "CREWSHIP_DATA_DIR": str(tmp_path), **{f"CREWSHIP_{name}": value for name, value in settings.items()},
    }  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-m", "api"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == Usage.exit_code
    assert why in ended.stderr
    assert "openssl rand -hex 32" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_nothing_in_the_repository_is_a_key_by_default() -> None:
    example = (ROOT / ".env.example").read_text()
    compose = (ROOT / "docker-compose.yml").read_text()
    given = dict(line.split("=", 1) for line in example.splitlines() if "=" in line and not line.startswith("#"))
    for name, value in given.items():
        if any(word in name for word in ("PASSWORD", "KEY", "SECRET")) and not name.endswith("_FILE"):
            assert value == "", name
            assert f"${{{name}:?" in compose, name
    assert json.dumps(given).count("change-me") == 0
