"""A chat model without a model: it finds the sums in the question, asks for them to be calculated, and lists the results."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

_PERCENTAGE = re.compile(r"(\d+(?:\.\d+)?) *% +of +(\d+(?:\.\d+)?)")
_SUM = re.compile(r"[(\d.]+[\d. ()]*(?:(?:\*\*|//|[-+*/%])[\d. ()]+)+")


class OfflineChatModel(BaseChatModel):
    model_name: str = "offline"

    @property
    def _llm_type(self) -> str:
        return "offline"

    def bind_tools(
        self, tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool], **kwargs: Any
    ) -> Runnable[Any, AIMessage]:
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        question = next(str(message.content) for message in messages if isinstance(message, HumanMessage))
        expressions = sums(question)
        results = [str(message.content) for message in messages if isinstance(message, ToolMessage)]
        if expressions and not results and kwargs.get("tools"):
            name = kwargs["tools"][0]["function"]["name"]
            calls = [
                tool_call(name=name, args={"expression": expression}, id=f"call_{number}")
                for number, expression in enumerate(expressions, start=1)
            ]
            answer = AIMessage("", tool_calls=calls)
        elif results:
            pairs = zip(expressions, results, strict=True)
            answer = AIMessage("\n".join(f"- `{expression}`: **{result}**" for expression, result in pairs))
        else:
            answer = AIMessage("I found nothing to calculate in the question. Try: what is 12% of 480?")
        # Four characters a token, the usual rule of thumb for English.
        read, written = sum(len(str(message.content)) for message in messages) // 4, len(str(answer.content)) // 4
        answer.usage_metadata = UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)
        answer.response_metadata = {"model_name": self.model_name, "finish_reason": "stop"}
        return ChatResult(generations=[ChatGeneration(message=answer)])


def sums(question: str) -> list[str]:
    """The arithmetic expressions in ``question``; ``12% of 480`` becomes ``12 / 100 * 480``."""
    plain = _PERCENTAGE.sub(r"\1 / 100 * \2", question)
    return [found.strip().rstrip(".") for found in _SUM.findall(plain)]
