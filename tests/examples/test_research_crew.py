import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.examples.projects import call, copy

pytestmark = pytest.mark.frameworks


def test_offline_it_quotes_what_the_tool_found(tmp_path: Path) -> None:
    called = call(copy("research-crew", tmp_path), {"topic": "heartbeats and lost workers"})
    assert called.output.startswith("# Heartbeats and lost workers\n")
    assert "- A heartbeat tells the engine that a long activity is still alive." in called.output
    assert (called.folder / "report.md").read_text() == called.output


def test_offline_it_says_when_nothing_was_found(tmp_path: Path) -> None:
    called = call(copy("research-crew", tmp_path), {"topic": "zeppelins"})
    assert "The notes say nothing about this." in called.output


def test_with_a_key_it_talks_to_the_endpoint_that_is_named(tmp_path: Path) -> None:
    with _provider() as (url, requests):
        env = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": url, "MODEL": "small-model", "NO_PROXY": "127.0.0.1"}
        called = call(copy("research-crew", tmp_path), {"topic": "event streams"}, env)
    assert called.output == "written by small-model"
    assert {request["model"] for request in requests} == {"small-model"}
    tool_answers = [m["content"] for request in requests for m in request["messages"] if m["role"] == "tool"]
    assert any("Numbering events without gaps" in answer for answer in tool_answers)


@contextmanager
def _provider() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An OpenAI-compatible endpoint that calls the first tool once and then answers; with the requests it saw."""
    requests: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append(request)
            message: dict[str, Any] = {"role": "assistant", "content": f"written by {request['model']}"}
            if request.get("tools") and not any(m["role"] == "tool" for m in request["messages"]):
                function = {"name": request["tools"][0]["function"]["name"], "arguments": '{"query": "event streams"}'}
                calls = [{"id": "call_1", "type": "function", "function": function}]
                message = {"role": "assistant", "content": None, "tool_calls": calls}
            answer = {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 1,
                "model": request["model"],
                "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
                "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
            }
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
