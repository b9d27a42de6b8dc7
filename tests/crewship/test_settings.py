"""Every setting is documented with its default, and nothing else is."""

import re
from pathlib import Path

import pytest

from crewship.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
ROW = re.compile(r"^\| `CREWSHIP_(?P<name>[A-Z_]+)` \| (?P<default>[^|]+) \| (?P<meaning>[^|]+) \|$", re.MULTILINE)

# Defaults that depend on the machine or on other settings; the page says what they are in words.
COMPUTED = {
    "data_dir",
    "cache_dir",
    "host",
    "database_url",
    "object_store",
    "tail",
    "secret_key_file",
    "network_guard_socket",
    "network_proxy_socket",
}


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"CREWSHIP_{name.upper()}", raising=False)


def test_every_setting_is_documented_and_nothing_else() -> None:
    names = [match["name"].lower() for match in ROW.finditer(PAGE.read_text())]
    assert sorted(names) == sorted(Settings.model_fields)


def test_documented_defaults_are_true() -> None:
    settings = Settings()
    documented = {match["name"].lower(): match["default"].strip("`") for match in ROW.finditer(PAGE.read_text())}
    for name in set(Settings.model_fields) - COMPUTED:
        value = getattr(settings, name)
        shown = (
            "–" if value is None or str(value) == "" else str(value).lower() if isinstance(value, bool) else str(value)
        )
        assert documented[name] == shown, name


def test_a_blank_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREWSHIP_API_PORT", "")
    monkeypatch.setenv("CREWSHIP_BUILD_CA_BUNDLE", "")
    settings = Settings()
    assert settings.api_port == 8700
    assert settings.build_ca_bundle is None


def test_state_is_below_the_data_folder_unless_it_is_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREWSHIP_DATA_DIR", "/srv/crewship")
    embedded = Settings()
    assert embedded.database == "sqlite:////srv/crewship/crewship.db"
    assert embedded.objects == "file:///srv/crewship/objects"
    assert embedded.tail_url == "unix:///srv/crewship/tail.sock"
    assert embedded.secret_key_path == Path("/srv/crewship/secret.key")

    monkeypatch.setenv("CREWSHIP_DATABASE_URL", "postgresql+psycopg://db/crewship")
    monkeypatch.setenv("CREWSHIP_OBJECT_STORE", "s3+http://key:secret@store:9000/crewship")
    monkeypatch.setenv("CREWSHIP_TAIL", "redis://tail:6379/0")
    monkeypatch.setenv("CREWSHIP_SECRET_KEY_FILE", "/run/secrets/crewship")
    production = Settings()
    assert production.database == "postgresql+psycopg://db/crewship"
    assert production.objects == "s3+http://key:secret@store:9000/crewship"
    assert production.tail_url == "redis://tail:6379/0"
    assert production.secret_key_path == Path("/run/secrets/crewship")


def test_what_may_be_reached_is_read_when_the_settings_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREWSHIP_NETWORK_REACH", "10.0.0.5:5432, 10.1.0.0/16 ,")
    monkeypatch.setenv("CREWSHIP_NETWORK_DNS", "9.9.9.9,1.1.1.1")
    options = Settings().guard_options
    assert [str(reach) for reach in options.reach] == ["10.0.0.5:5432", "10.1.0.0/16"]
    assert [str(server) for server in options.dns] == ["9.9.9.9", "1.1.1.1"]
    for wrong in ("db.internal", "10.0.0.5:", "10.0.0.5:99999", "10.0.0.5/8", "fd00::1"):
        monkeypatch.setenv("CREWSHIP_NETWORK_REACH", wrong)
        with pytest.raises(ValueError, match="is not an IPv4 address or network"):
            Settings()


def test_origins_are_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREWSHIP_CORS_ORIGINS", "https://a.example, https://b.example,")
    assert Settings().cors_origin_list == ["https://a.example", "https://b.example"]


def test_a_capacity_of_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREWSHIP_RUN_CAPACITY", "0")
    with pytest.raises(ValueError, match="run_capacity"):
        Settings()
