"""A database with one run in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine as Database

from crewship.db import migrate, open_database, session
from crewship.models import Deployment, Project, Run


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(f"sqlite:///{tmp_path / 'crewship.db'}")
    migrate(opened)
    with session(opened) as rows:
        for row in (
            Project(name="crew"),
            Deployment(id="dep_1", project="crew", host="h", source_key="k", source_sha256="s"),
            Run(id="run_1", project="crew", deployment_id="dep_1", timeout_seconds=60, env_version=0),
        ):
            rows.add(row)
            rows.flush()
    yield opened
    opened.dispose()
