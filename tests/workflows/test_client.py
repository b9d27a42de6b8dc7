"""What the client makes of Temporal's answers."""

import pytest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from crewship import temporal
from crewship.errors import NotFound, Unavailable

pytestmark = pytest.mark.temporal


async def test_a_workflow_that_is_not_there(client: Client) -> None:
    await temporal.check(client)
    with pytest.raises(NotFound):
        await temporal.query_head(client, "run-run_of-nobody")


async def test_of_a_namespace_that_is_not_there_nothing_is_known(temporal_server: str) -> None:
    """A server whose database does not answer says so of every namespace; no run may be taken for gone because of it."""
    client = await Client.connect(temporal_server, namespace="nobodys", data_converter=pydantic_data_converter)
    with pytest.raises(Unavailable):
        await temporal.query_head(client, "run-run_of-nobody")
    with pytest.raises(Unavailable):
        await temporal.check(client)
