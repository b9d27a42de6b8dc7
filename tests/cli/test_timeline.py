from typing import Any

import pytest

from cli.output import Paint
from cli.timeline import Timeline
from crewship.events import parse
from tests.cli.platform import Log, crew_log

EXPECTED = """\
   0.0s  started on dep_one
   0.1s  ○ Research quantum computing
   0.1s  ● Researcher
   2.1s    ◇ gpt-4o-mini  812 → 214 tokens  1.9 s
   2.2s    ▸ web_search(query="qubits")
   2.3s    │ red line
   3.4s    ✓ web_search  1.2 s  3 pages
   3.5s    err│ careful
   3.6s    ▪ notes.md  1.2 kB
   3.7s  ✓ Researcher  3.6 s
   4.4s  ✓ succeeded in 4.4 s
"""


def draw(log: Log, *, color: bool = False, width: int = 120) -> str:
    timeline = Timeline(Paint(color), width)
    return "".join(f"{line}\n" for event in parse(log.lines) for line in timeline.lines(event))


def one(type_: str, **data: Any) -> str:
    log = Log()
    log.write(0, type_, **data)
    return draw(log)[9:].rstrip("\n")


def test_a_crews_run() -> None:
    assert draw(crew_log()) == EXPECTED


def test_colours_change_no_text() -> None:
    from cli.ansi import plain

    colored = draw(crew_log(), color=True)
    assert "\x1b[31mred" in colored
    assert "\x1b[2J" not in colored
    assert "".join(f"{plain(line)}\n" for line in colored.splitlines()) == EXPECTED


@pytest.mark.parametrize(
    ("type_", "data", "line"),
    [
        ("run.failed", {"duration_ms": 3200, "error": {"code": "user_error"}}, "✗ failed after 3.2 s"),
        ("run.canceled", {"sigterm_at": None}, "■ canceled after 0 ms"),
        (
            "run.retrying",
            {"attempt": 2, "of": 3, "delay_ms": 1000, "error": {"code": "user_error", "message": "ValueError: no"}},
            "! retrying  attempt 2 of 3 in 1.0 s  user_error: ValueError: no",
        ),
        ("agent.error", {"agent": "A", "error": "boom\nat x", "ms": 5}, "✗ A  5 ms  boom at x"),
        ("tool.error", {"tool": "t", "error": {"message": "no"}}, "✗ t  no"),
        ("tool.called", {"tool": "t", "input": None}, "▸ t()"),
        ("tool.called", {"tool": "t", "input": [1, "x"]}, '▸ t([1, "x"])'),
        ("tool.called", {}, "▸ tool()"),
        ("llm.completed", {"model": "m", "error": "quota", "ms": 1000}, "✗ m  1.0 s  quota"),
        ("llm.completed", {"model": "m"}, "◇ m"),
        ("custom", {"name": "score", "value": {"a": 1}}, '◆ score  {"a": 1}'),
        ("custom", {"value": "text"}, "◆ text"),
        ("log", {"message": "slow", "source": "crewship", "level": "warning"}, "! slow"),
        ("log", {"message": ""}, "│"),
        ("log.gap", {"from": 5, "to": 9}, '! a piece of the log is lost  {"from": 5, "to": 9}'),
        ("network.denied", {"host": "x.org"}, "! network denied  x.org"),
        ("network.denied", {"host": "10.0.0.1", "port": 80, "protocol": "tcp"}, "! network denied  10.0.0.1:80"),
        (
            "network.denied",
            {"host": "10.0.0.1", "port": 53, "protocol": "udp", "count": 7},
            "! network denied  10.0.0.1:53 udp 7 times",
        ),
        ("task.started", {"task": "gather", "kind": "flow"}, "○ gather"),
        ("something.new", {"k": 1}, '· something.new  {"k": 1}'),
        ("agent.started", {"agent": "\x1b]0;x\x07Evil\x1b[2J\nname"}, "● Evil name"),
        ("artifact", {"name": "a\x1b[2J.md", "size": 0}, "▪ a.md  0 B"),
    ],
)
def test_single_events(type_: str, data: dict[str, Any], line: str) -> None:
    assert one(type_, **data) == line


def test_agents_at_the_same_time_are_named_on_each_line() -> None:
    log = Log()
    log.write(0, "agent.started", agent="A")
    log.write(1, "agent.started", agent="B")
    log.write(2, "tool.called", agent="A", tool="t", input={})
    log.write(3, "agent.completed", agent="A")
    log.write(4, "tool.result", agent="B", tool="t", ms=1)
    lines = [line[9:] for line in draw(log).splitlines()]
    assert lines == ["● A", "● B", "  ▸ t()  A", "✓ A  3 ms", "  ✓ t  1 ms"]


def test_what_the_platform_words_is_cut_to_the_width() -> None:
    log = Log()
    log.write(0, "agent.started", agent="A", task="word " * 60)
    log.write(1, "tool.called", agent="A", tool="t", input={"query": "x" * 500})
    log.write(2, "log", message="y" * 300)
    agent, tool, printed = draw(log, width=60).splitlines()
    assert len(agent) <= 60
    assert len(tool) <= 60
    assert printed.endswith("y" * 300)


def test_the_activity_names_what_is_open() -> None:
    timeline = Timeline(Paint(False))
    seen = []
    for event in parse(crew_log().lines):
        timeline.lines(event)
        seen.append(timeline.activity)
    assert seen == [
        "", "Research quantum computing", "Researcher", "Researcher · gpt-4o-mini", "Researcher", "Researcher · web_search",
        "Researcher · web_search", "Researcher", "Researcher", "Researcher", "Research quantum computing", "", "", "",
    ]  # fmt: skip


def box(title: str, *texts: str, width: int = 60) -> list[str]:
    """As CrewAI prints one, with an empty line after it."""
    sides = [f"│  {text.ljust(width - 6)}  │" for text in ["", *texts, ""]]
    return [f"╭{f' {title} '.center(width - 2, '─')}╮", *sides, f"╰{'─' * (width - 2)}╯", ""]


def drawn(messages: list[str], *, flow: bool = False, color: bool = False) -> list[str]:
    log = Log()
    if flow:
        log.write(0, "task.started", task="gather", kind="flow")
    for message in messages:
        log.write(1, "log", message=message, level="info", stream="stdout")
    lines = draw(log, color=color).splitlines()[flow:]
    return [line.partition("│")[2].removeprefix(" ") for line in lines]


def test_of_a_box_its_text_is_shown() -> None:
    final = box("✅ Agent Final Answer", "Agent: Writer", "  - one", "", "  - two")
    assert drawn(final) == ["✅ Agent Final Answer", "Agent: Writer", "  - one", "  - two"]
    assert drawn(final, flow=True) == drawn(final)


def test_boxes_that_repeat_a_flows_events_are_left_out() -> None:
    running, done = box("🔄 Flow Method Running", "Method: gather"), box("✅ Flow Method Completed", "Method: gather")
    failed = box("❌ Flow Method Failed", "Method: gather")
    printed = [*running, "gathering", *done, *failed, *box("notes", "kept")]
    assert drawn(printed, flow=True) == ["gathering", "❌ Flow Method Failed", "Method: gather", "notes", "kept"]
    assert drawn(running) == ["🔄 Flow Method Running", "Method: gather"], "nothing else tells it"
    assert drawn([*running[:3], "cut off", "", *done], flow=True) == ["cut off", ""]


@pytest.mark.parametrize(
    "line",
    [
        "", "  indented", "│", "│ open", "| a | b |", "│ a │ b │", "┌──┬──┐", "├──┼──┤", "└── a tree", "───", "╭ a smile ╭",
        "see ╭─ box ─╮", "Flow Method Running", "\x1b[31mred\x1b[0m",
    ],
)  # fmt: skip
def test_what_has_no_box_is_shown_as_it_was_printed(line: str) -> None:
    from cli.ansi import plain

    assert drawn([line, "x", line], flow=True) == [plain(line), "x", plain(line)]
