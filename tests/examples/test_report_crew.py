import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from tests.examples.projects import call, copy


def test_it_measures_text_and_rows(tmp_path: Path) -> None:
    text = "The harbour was quiet. The harbour master slept.\n\nA boat came in, and the boat was called Aurora."
    rows = [{"port": "Oslo", "calls": 41}, {"port": "Bergen", "calls": 17}, {"port": "Bodø", "calls": None}]
    called = call(copy("report-crew", tmp_path), {"topic": "Harbour <log>", "text": text, "rows": rows, "top": 2})

    assert called.output == {
        "version": "1.0",
        "topic": "Harbour <log>",
        "words": 18,
        "sentences": 3,
        "reading_ease": 92.6,
        "reading_level": "very easy",
        "top_words": ["boat", "harbour"],
        "rows": 3,
        "columns": ["port", "calls"],
        "files": ["data.json", "report.md", "words.svg"],
    }
    artifacts = called.folder / "artifacts"
    data = json.loads((artifacts / "data.json").read_text())
    assert data["text"]["top_words"] == [["boat", 2], ["harbour", 2]]
    calls = next(column for column in data["columns"] if column["name"] == "calls")
    assert (calls["minimum"], calls["median"], calls["maximum"], calls["total"], calls["missing"]) == (
        17,
        29,
        41,
        58,
        1,
    )
    report = (artifacts / "report.md").read_text()
    assert report.startswith("# Report: Harbour <log>\n")
    assert "Bodø (1)" in report
    ElementTree.parse(artifacts / "words.svg")
    assert "report_crew: column 'calls': 1 of 3 values are missing" in called.stdout
    assert called.stderr == ""


def test_it_reads_csv(tmp_path: Path) -> None:
    called = call(copy("report-crew", tmp_path), {"rows": "port,calls\nOslo,41\nBergen,17\n"})
    assert called.output["rows"] == 2
    assert called.output["files"] == ["data.json", "report.md"]


def test_without_input_it_takes_the_sample_and_says_so(tmp_path: Path) -> None:
    called = call(copy("report-crew", tmp_path), {})
    assert called.output["words"] == 271
    assert called.output["top_words"][0] == "nation"
    assert "measuring the bundled sample" in called.stdout


def test_the_same_input_gives_the_same_files(tmp_path: Path) -> None:
    one, two = (call(copy("report-crew", tmp_path / side), {"topic": "Twice"}) for side in ("one", "two"))
    for name in one.output["files"]:
        assert (one.folder / "artifacts" / name).read_bytes() == (two.folder / "artifacts" / name).read_bytes()


def test_a_wrong_input_is_named(tmp_path: Path) -> None:
    folder = copy("report-crew", tmp_path)
    called = call(folder, {"rows": 7})
    assert called.exit_code == 1
    assert called.stderr.endswith("ValueError: input 'rows' must be CSV text with a header, or a list of objects\n")
    assert call(folder, {"top": -1}).stderr.endswith("must be a number that is not negative, not -1\n")
