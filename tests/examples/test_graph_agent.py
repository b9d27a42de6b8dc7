from pathlib import Path

import pytest

from tests.examples.projects import call, copy

pytestmark = pytest.mark.frameworks


def test_it_calculates_what_the_question_holds(tmp_path: Path) -> None:
    called = call(copy("graph-agent", tmp_path), {"question": "What is 12% of 480, and (3 + 4) * 12 / 7?"})
    answer = "- `12 / 100 * 480`: **57.6**\n- `(3 + 4) * 12 / 7`: **12**"
    assert called.output == {"answer": answer, "messages": ["human", "ai", "tool", "tool", "ai"]}
    assert called.custom == [
        {"name": "calculation", "done": 1, "of": 2, "result": "57.6"},
        {"name": "calculation", "done": 2, "of": 2, "result": "12"},
    ]
    expected = f"# What is 12% of 480, and (3 + 4) * 12 / 7?\n\n{answer}\n"
    assert (called.folder / "artifacts" / "answer.md").read_text() == expected


def test_the_tool_does_arithmetic_only(tmp_path: Path) -> None:
    called = call(copy("graph-agent", tmp_path), {"question": "And 9 ** 9 ** 9, or 1 / 0, or 0 - 2 ** 0.5?"})
    assert [update["result"] for update in called.custom] == [
        "cannot calculate '9 ** 9 ** 9': the exponent is too large",
        "cannot calculate '1 / 0': division by zero",
        "-1.41421356237",
    ]


def test_without_input_it_has_a_question_of_its_own(tmp_path: Path) -> None:
    called = call(copy("graph-agent", tmp_path), {})
    assert called.output["answer"].endswith("- `2 ** 10`: **1024**")


def test_a_question_without_sums_needs_no_tool(tmp_path: Path) -> None:
    called = call(copy("graph-agent", tmp_path), {"question": "How are you?"})
    assert called.output["messages"] == ["human", "ai"]
    assert called.custom == []
