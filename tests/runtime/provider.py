"""A model provider for crews under test: OpenAI's chat, responses and embeddings, answered by the crew's own process.

The frameworks' own model classes talk to it, so what is tested is what a user's crew does, without a key and without a network.
A project imports ``provider`` before it makes a model.
"""

PROVIDER = '''
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Provider(BaseHTTPRequestHandler):
    """Calls the first tool that it is offered once, then answers. Knows tool calls and CrewAI's way by text."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path.endswith("/embeddings"):
            texts = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
            data = [{"object": "embedding", "index": i, "embedding": [len(str(t)) % 7 + 0.5] * 8} for i, t in enumerate(texts)]
            usage = {"prompt_tokens": 1, "total_tokens": 1}
            return self.answer({"object": "list", "model": asked["model"], "data": data, "usage": usage})
        if self.path.endswith("/responses"):
            used = any(item.get("type") == "function_call_output" for item in asked["input"] if isinstance(item, dict))
            call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "search_notes",
                    "arguments": json.dumps({"query": "ships"}), "status": "completed"}
            text = {"type": "output_text", "text": "offline answer", "annotations": []}
            said = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [text]}
            usage = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18,
                     "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                     "output_tokens_details": {"reasoning_tokens": 0}}
            return self.answer({
                "id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": asked["model"],
                "output": [said if used else call], "usage": usage, "parallel_tool_calls": True, "tool_choice": "auto",
                "tools": [], "error": None, "incomplete_details": None, "instructions": None, "metadata": {},
            })
        text, tools = json.dumps(asked["messages"]), asked.get("tools")
        used = any(m["role"] == "tool" for m in asked["messages"]) or "Observation: found" in text
        message, reason = {"role": "assistant", "content": "offline answer"}, "stop"
        if tools and not used:
            call = {"name": tools[0]["function"]["name"], "arguments": json.dumps({"query": "ships"})}
            message = {"role": "assistant", "content": None,
                       "tool_calls": [{"id": "call_1", "type": "function", "function": call}]}
            reason = "tool_calls"
        elif "Action Input" in text and not used and "search_notes" in text:
            message["content"] = "Thought: look\\nAction: search_notes\\nAction Input: {\\"query\\": \\"ships\\"}"
        elif "Final Answer" in text:
            message["content"] = "Thought: done\\nFinal Answer: offline answer"
        usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
        self.answer({
            "id": "chat_1", "object": "chat.completion", "created": 1, "model": asked["model"], "usage": usage,
            "choices": [{"index": 0, "finish_reason": reason, "message": message}],
        })

    def answer(self, told):
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
URL = f"http://127.0.0.1:{server.server_port}/v1"
os.environ["OPENAI_BASE_URL"] = os.environ["OPENAI_API_BASE"] = URL
os.environ["OPENAI_API_KEY"] = "sk-none"
'''
WATCH = '''
import sys


def watch(event, arguments):
    """Says on stderr, to which name or address outside this machine the process wants to connect."""
    if event == "socket.getaddrinfo" and arguments[0] not in ("127.0.0.1", "localhost", b"127.0.0.1", None):
        sys.__stderr__.write(f"CONNECTS {arguments[0]}\\n")
    elif event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] not in ("127.0.0.1", "::1"):
        sys.__stderr__.write(f"CONNECTS {arguments[1][0]}\\n")


sys.addaudithook(watch)
'''
