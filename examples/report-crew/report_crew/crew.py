"""A crew without a framework: one function that reads its input, works, writes artifacts and returns a summary.

Input, all of it optional::

    {"topic": "Launch notes",            a title for the report
     "text": "...",                      prose to measure; without text and rows a bundled sample is taken
     "rows": [{"port": "Oslo", "calls": 41}, ...]   or CSV as one string, first line the header
     "top": 10,                          how many words to rank
     "pace_seconds": 0.0}                a pause after each step, so that a person can watch the events arrive

Files go to ``artifacts/`` below the working directory, which on Crewship is ``/app/artifacts``.
"""

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

from report_crew import report, tables, texts

try:
    from crewship_runtime import progress  # there in every run on Crewship: becomes a "custom" event
except ImportError:

    def progress(done: float, total: float | None = None) -> None:
        """Without Crewship nobody asks how far the run is."""


VERSION = "1.0"
TITLE = "Report: {topic}"

ARTIFACTS = Path("artifacts")
SAMPLE = Path(__file__).with_name("samples") / "gettysburg.txt"

log = logging.getLogger("report_crew")


def kickoff(inputs: dict[str, Any]) -> dict[str, Any]:
    """Measure the given text and rows; the summary that becomes the run's output.

    Raises:
        ValueError: an input has the wrong shape; says which, and what is expected.
    """
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stdout)
    topic = str(inputs.get("topic") or "Untitled")
    top = int(_number(inputs, "top", 10.0))
    pace_seconds = _number(inputs, "pace_seconds", 0.0)
    text, rows = inputs.get("text"), inputs.get("rows")
    if text is None and rows is None:
        log.warning("no text and no rows given; measuring the bundled sample %s", SAMPLE.name)
        text = SAMPLE.read_text()

    print(f"report-crew {VERSION} on {topic!r}")
    ARTIFACTS.mkdir(exist_ok=True)
    summary: dict[str, Any] = {"version": VERSION, "topic": topic}
    data = dict(summary)
    sections = [f"# {TITLE.format(topic=topic)}\n"]
    steps = 1 + (text is not None) + (rows is not None)

    if text is not None:
        measured = _measure_text(text, top)
        _write("words.svg", report.chart(f"Most frequent words: {topic}", measured.top_words))
        sections.append(report.text_section(measured))
        data["text"] = measured.as_dict()
        summary |= {name: data["text"][name] for name in ("words", "sentences", "reading_ease", "reading_level")}
        summary["top_words"] = [word for word, _ in measured.top_words[:5]]
        progress(1, steps)
        time.sleep(pace_seconds)

    if rows is not None:
        table = tables.read(rows)
        columns = _measure_rows(table)
        sections.append(report.rows_section(len(table), columns))
        data["columns"] = [column.as_dict() for column in columns]
        summary |= {"rows": len(table), "columns": [column.name for column in columns]}
        progress(steps - 1, steps)
        time.sleep(pace_seconds)

    _write("report.md", "\n".join(sections))
    _write("data.json", json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    progress(steps, steps)
    summary["files"] = sorted(path.name for path in ARTIFACTS.iterdir())
    log.info("done: %s", ", ".join(summary["files"]))
    return summary


def _measure_text(text: object, top: int) -> texts.TextMeasures:
    if not isinstance(text, str):
        raise ValueError(f"input 'text' must be a string, not {type(text).__name__}")
    measured = texts.measure(text, top=top)
    print(f"text: {measured.words} words in {measured.sentences} sentences, {measured.unique_words} different")
    if measured.words < 100:
        log.warning("readability of %d words says little; it was made for samples of 100 and more", measured.words)
    log.info("reading ease %.1f (%s)", measured.reading_ease, measured.reading_level)
    return measured


def _measure_rows(rows: list[tables.Row]) -> list[tables.Column]:
    columns = tables.measure(rows)
    print(f"rows: {len(rows)} with {len(columns)} columns")
    for column in columns:
        if column.missing:
            log.warning("column %r: %d of %d values are missing", column.name, column.missing, len(rows))
    return columns


def _write(name: str, content: str) -> None:
    (ARTIFACTS / name).write_text(content, encoding="utf-8")
    print(f"wrote {name} ({len(content.encode())} bytes)")


def _number(inputs: dict[str, Any], name: str, default: float) -> float:
    value = inputs.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ValueError(f"input {name!r} must be a number that is not negative, not {value!r}")
    return float(value)
