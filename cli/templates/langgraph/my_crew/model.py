"""Which model the agent talks to. Until you choose one it is an offline stand-in, so that the project runs without a key.

For a provider's model add its package to requirements.txt (``langchain-openai``), set its key
(``crewship env set OPENAI_API_KEY=sk-...``), and return it from ``chosen``::

    from langchain_openai import ChatOpenAI
    return ChatOpenAI(model="gpt-4o-mini").bind_tools(tools)
"""

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


def chosen(tools: Sequence[BaseTool]) -> Runnable[Any, AIMessage]:
    """The model, which knows ``tools``."""
    return OfflineChatModel().bind_tools(tools)


class OfflineChatModel(BaseChatModel):
    """A model without a model: it hands the question to the first tool, and repeats what that says."""

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
        question = next(message.text for message in messages if isinstance(message, HumanMessage))
        found = [message.text for message in messages if isinstance(message, ToolMessage)]
        if found or not kwargs.get("tools"):
            answer = AIMessage(f"The tool says: {', '.join(found)}" if found else "There is no tool to ask.")
        else:
            function = kwargs["tools"][0]["function"]
            argument = next(iter(function["parameters"]["properties"]))
            answer = AIMessage(
                "", tool_calls=[tool_call(name=function["name"], args={argument: question}, id="call_1")]
            )
        # Four characters a token, the usual rule of thumb for English.
        read, written = sum(len(message.text) for message in messages) // 4, len(answer.text) // 4
        answer.usage_metadata = UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)
        answer.response_metadata = {"model_name": self.model_name, "finish_reason": "stop"}
        return ChatResult(generations=[ChatGeneration(message=answer)])
