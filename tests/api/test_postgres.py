"""The calls that lean on the database most, once more on PostgreSQL."""

import secrets

import pytest
from pydantic import SecretStr

from crewship.settings import Settings
from tests.api.test_deployments import test_the_same_upload_twice_is_one_deployment  # noqa: F401
from tests.api.test_projects import (  # noqa: F401
    test_deletion_waits_for_runs_unless_forced,
    test_each_change_is_a_version_and_old_ones_can_be_read,
    test_env_changes_at_once_each_have_a_version,
    test_projects_are_made_and_listed_by_name,
)
from tests.api.test_runs import (  # noqa: F401
    test_a_key_is_free_again_after_a_day_and_is_the_callers_own,
    test_a_run_is_recorded_then_started,
    test_a_run_that_cannot_be_started_leaves_nothing,
    test_a_run_without_a_place_in_its_project_is_held,
    test_filters,
    test_many_calls_at_once_with_one_key_make_one_run,
    test_pages_are_newest_first_without_gap_or_overlap,
    test_pending_runs_say_what_they_wait_for,
    test_runs_that_come_at_once_do_not_take_a_place_twice,
    test_the_first_key_is_stored_hashed,
)
from tests.api.test_uploads import (  # noqa: F401
    small_parts,
    test_a_source_in_parts_becomes_a_deployment,
    test_two_that_begin_the_same_at_once,
    test_uploads_that_nobody_goes_on_with_make_room,
)
from tests.fixtures.postgres import postgres_server, postgres_url  # noqa: F401

pytestmark = pytest.mark.server


@pytest.fixture
def settings(settings: Settings, postgres_url: str) -> Settings:  # noqa: F811
    on_postgres = settings.model_copy(
        update={"database_url": postgres_url, "secret_key": SecretStr(secrets.token_hex(32))}
    )
    assert on_postgres.database == postgres_url
    return on_postgres
