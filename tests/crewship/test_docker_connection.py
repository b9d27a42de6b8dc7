"""What is said of an engine that cannot be reached."""

import socket
import tempfile

import pytest

from crewship.docker_connection import DockerConnection
from crewship.errors import Unavailable


@pytest.mark.parametrize(
    ("state", "reason"),
    [("missing", "No such file or directory"), ("refusing", "Connection refused"), ("silent", "no answer in time")],
)
def test_why_it_cannot_be_reached(state: str, reason: str) -> None:
    # A folder with a short name: a socket's may have 107 characters.
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listening:
        if state != "missing":
            listening.bind(f"{folder}/docker.sock")
        if state == "silent":
            listening.listen()
        connection = DockerConnection(f"unix://{folder}/docker.sock", timeout_seconds=0.2)
        with pytest.raises(Unavailable) as refused:
            _ = connection.api
    assert refused.value.detail == f"The container engine (Docker) cannot be reached: {reason}"
