"""The model behind the agents.

Without a key: :class:`OfflineLLM`, which needs no network and answers from what it is shown. It calls the tool once when
it is given one, and then repeats the findings in order. So the crew runs as it stands, the same way each time, and every
event of a real run is there: agents, tasks, the tool's call, the model's calls with their tokens.

With ``OPENAI_API_KEY``: any OpenAI-compatible endpoint (``OPENAI_BASE_URL``, ``MODEL``).
"""

import json
import os
import re
from typing import Any

from crewai import LLM, BaseLLM
from crewai.events.types.llm_events import LLMCallType
from crewai.llms.base_llm import llm_call_context

DEFAULT_MODEL = "gpt-4o-mini"

_SUBJECT = re.compile(r"(?:everything about|Its subject): *(.+)")
_FINDING = re.compile(r"^- (?P<text>.+?) \[(?P<note>[\w-]+)\]$", re.MULTILINE)


def chosen() -> BaseLLM:
    """The endpoint that the environment names, else the offline model."""
    if not os.environ.get("OPENAI_API_KEY"):
        return OfflineLLM(model="offline")
    model: BaseLLM = LLM(
        model=os.environ.get("MODEL", DEFAULT_MODEL),
        api_key=os.environ["OPENAI_API_KEY"],
        base_url=os.environ.get("OPENAI_BASE_URL") or None,
    )
    return model


class OfflineLLM(BaseLLM):
    """A model without a model: it quotes."""

    def supports_function_calling(self) -> bool:
        return True

    def get_context_window_size(self) -> int:
        return 128_000

    def get_input_tokens_count(self, messages: Any, tools: Any = None, response_model: Any = None) -> int:
        return _tokens(messages)

    def call(
        self,
        messages: Any,
        tools: list[dict[str, Any]] | None = None,
        callbacks: list[Any] | None = None,
        available_functions: dict[str, Any] | None = None,
        from_task: Any = None,
        from_agent: Any = None,
        response_model: Any = None,
    ) -> Any:
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        # CrewAI leaves it to a custom model to announce its calls; without this no event would tell of them.
        with llm_call_context():
            self._emit_call_started_event(messages=messages, tools=tools, from_task=from_task, from_agent=from_agent)
            answer = _answer(messages, tools)
            read, written = _tokens(messages), _tokens(answer)
            usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
            self._track_token_usage_internal(usage)
            self._emit_call_completed_event(
                response=answer,
                call_type=LLMCallType.LLM_CALL if isinstance(answer, str) else LLMCallType.TOOL_CALL,
                from_task=from_task,
                from_agent=from_agent,
                messages=messages,
                usage=usage,
            )
            return answer


def _answer(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str | list[dict[str, Any]]:
    prompt = "\n".join(str(message.get("content") or "") for message in messages if message["role"] == "user")
    found = [str(message["content"]) for message in messages if message["role"] == "tool"]
    subject = match[1].strip() if (match := _SUBJECT.search(prompt)) else "the notes"
    if tools and not found:
        function = {"name": tools[0]["function"]["name"], "arguments": json.dumps({"query": subject})}
        return [{"id": "call_1", "type": "function", "function": function}]
    if found:
        return "\n".join(found)
    return _report(subject, prompt)


def _report(subject: str, prompt: str) -> str:
    by_note: dict[str, list[str]] = {}
    for finding in _FINDING.finditer(prompt):
        by_note.setdefault(finding["note"], []).append(finding["text"])
    parts = [f"# {subject[:1].upper()}{subject[1:]}"]
    for note, findings in by_note.items():
        parts.append(f"## {note.replace('-', ' ').capitalize()}")
        parts.append("\n".join(f"- {text}" for text in findings))
    if by_note:
        parts.append("_Quoted from the notes by the offline model. With a provider's key a model writes the report._")
    else:
        parts.append("The notes say nothing about this.")
    return "\n\n".join(parts)


def _tokens(messages: Any) -> int:
    """Tokens at four characters each, the usual rule of thumb for English."""
    if isinstance(messages, str):
        return len(messages) // 4
    return sum(len(str(message.get("content") or message.get("function") or "")) for message in messages) // 4
