"""What CrewAI tells of memory, knowledge, guardrails, plans and questions, as one line of log each.

None of these is an agent, a task, a tool or a model call, so none is an event of its own; but each explains something that is
seen in the run: a second where nothing happened, a task that began anew, a crew that waits for a person.
"""

from .bounds import cut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Note = Callable[[str, str], None]

_LINE_BYTES = 500


def note_of(event: "Any") -> "tuple[str, str] | None":
    """The level and the text of the line that ``event`` is worth; None when it is worth none."""
    kind = event.type
    if kind in _QUESTIONS:
        question = getattr(event, "message", None) or "its output"
        return "warning", _line(f"{_who(event)} asks a person: {question}. A run has no keyboard.")
    if kind == "llm_guardrail_completed":
        if event.success:
            return "debug", _line(f"Guardrail of {_who(event)}: passed")
        return "warning", _line(f"Guardrail of {_who(event)}: refused ({event.error or event.result})")
    subject, _, step = kind.rpartition("_")
    name = _SUBJECTS.get(subject)
    if name is None:
        return None
    if step == "failed":
        return "debug", _line(f"{name} of {_who(event)} failed: {getattr(event, 'error', '')}")
    if step != "completed":
        return None
    took = getattr(event, "query_time_ms", None) or getattr(event, "save_time_ms", None)
    took = took or getattr(event, "retrieval_time_ms", None)
    return "debug", _line(f"{name} of {_who(event)}" + (f": {took:.0f} ms" if isinstance(took, (int, float)) else ""))


_QUESTIONS = frozenset({"human_feedback_requested", "flow_input_requested"})
_SUBJECTS = {
    "knowledge_query": "Knowledge query",
    "knowledge_search_query": "Knowledge search",
    "memory_query": "Memory query",
    "memory_retrieval": "Memory retrieval",
    "memory_save": "Memory save",
    "agent_reasoning": "Plan",
    "mcp_connection": "Connection to an MCP server",
}


def _who(event: "Any") -> str:
    for name in ("agent_role", "server_name", "task_name", "method_name", "flow_name"):
        value = getattr(event, name, None)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return "the crew"


def _line(text: str) -> str:
    return cut(" ".join(text.split()), _LINE_BYTES)
