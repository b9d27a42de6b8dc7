"""Calls an entrypoint without the platform; runs in the example's own interpreter, so it uses the standard library only.

::

    python entrypoint.py module.path:attribute '{"input": "..."}'

The working directory is the project's root, and ``src/`` is importable too, as on the platform. The last line of stdout is
``{"output": ..., "custom": [...]}``.
"""

import asyncio
import importlib
import json
import sys
from typing import Any


def resolve(reference: str) -> Any:
    sys.path[:0] = [".", "src"]
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


async def drive_graph(graph: Any, inputs: dict[str, Any]) -> tuple[Any, list[Any]]:
    output, custom = None, []
    async for mode, chunk in graph.astream(inputs, stream_mode=["custom", "values"]):
        if mode == "custom":
            custom.append(chunk)
        else:
            output = chunk
    return output, custom


def main() -> None:
    entrypoint, inputs = resolve(sys.argv[1]), json.loads(sys.argv[2])
    custom: list[Any] = []
    if getattr(entrypoint, "is_crew_class", False):
        output = entrypoint().crew().kickoff(inputs=inputs).raw
    elif hasattr(entrypoint, "astream"):
        state, custom = asyncio.run(drive_graph(entrypoint, inputs))
        output = {"answer": state["answer"], "messages": [message.type for message in state["messages"]]}
    else:
        output = entrypoint(inputs)
    sys.stdout.write(json.dumps({"output": output, "custom": custom}) + "\n")


if __name__ == "__main__":
    main()
