"""Which model the agents talk to: OpenAI's when its key is set, else an offline stand-in, so that the project runs without one.

Any other provider: ``crewai.LLM(model="anthropic/claude-...")`` and the like, see CrewAI's documentation.
"""

import os
import re
from typing import Any

from crewai import LLM, BaseLLM
from crewai.events.types.llm_events import LLMCallType
from crewai.llms.base_llm import llm_call_context


def chosen() -> BaseLLM:
    """The model that the environment names."""
    if not os.environ.get("OPENAI_API_KEY"):
        return OfflineLLM(model="offline")
    model: BaseLLM = LLM(model=os.environ.get("MODEL", "gpt-4o-mini"))
    return model


class OfflineLLM(BaseLLM):
    """A model without a model: it says what it was asked about."""

    def get_context_window_size(self) -> int:
        return 128_000

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
        prompt = "\n".join(str(message.get("content") or "") for message in messages if message["role"] == "user")
        # CrewAI leaves it to a custom model to announce its calls; without this no event would tell of them.
        with llm_call_context():
            self._emit_call_started_event(messages=messages, tools=tools, from_task=from_task, from_agent=from_agent)
            answer = _answer(prompt)
            # Four characters a token, the usual rule of thumb for English.
            read, written = len(prompt) // 4, len(answer) // 4
            usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
            self._track_token_usage_internal(usage)
            self._emit_call_completed_event(
                response=answer,
                call_type=LLMCallType.LLM_CALL,
                from_task=from_task,
                from_agent=from_agent,
                messages=messages,
                usage=usage,
            )
            return answer


def _answer(prompt: str) -> str:
    subject = re.search(r"(?:is known about|Its subject): *(.+)", prompt)
    about = subject[1].strip() if subject else "the subject"
    if "Write a report" in prompt:
        return f"# {about[:1].upper()}{about[1:]}\n\nWritten by the offline model; set OPENAI_API_KEY for a real one."
    return f"- The offline model knows nothing about {about}."
