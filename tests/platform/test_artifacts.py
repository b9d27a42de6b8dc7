"""Files that a crew leaves: any name, any size, byte for byte."""

import hashlib
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.fixtures.platform import CrewshipDev

pytestmark = pytest.mark.platform

FILES = {
    "report.md": "# Report\n",
    "empty": "",
    "deep/er/and deeper/data.json": "{}",
    "with spaces & signs #1?.txt": "spaces",
    "quo\"te's;.txt": "quotes",
    "grüße-世界.csv": "a,b\n1,2\n",
    "100%.txt": "percent",
    "back\\slash.txt": "backslash",
    "-leading.txt": "dash",
    "line\nbreak.txt": "break",
    ".hidden": "hidden",
}


@pytest.fixture(scope="module")
def written(platform: CrewshipDev, probe: str) -> str:
    run = platform.run(probe, {"do": "write", "files": FILES})
    assert run["status"] == "succeeded", run
    assert run["artifact_count"] == len(FILES)
    return str(run["id"])


def test_all_are_listed_with_their_facts(platform: CrewshipDev, written: str) -> None:
    listed = platform.get(f"/runs/{written}/artifacts")["artifacts"]
    assert {item["name"]: item["size"] for item in listed} == {
        name: len(content.encode()) for name, content in FILES.items()
    }
    for item in listed:
        assert item["sha256"] == hashlib.sha256(FILES[item["name"]].encode()).hexdigest()
        assert set(item) == {"name", "size", "content_type", "sha256", "created_at"}
    types = {item["name"]: item["content_type"] for item in listed}
    assert types["report.md"] == "text/markdown"
    assert types["deep/er/and deeper/data.json"] == "application/json"
    assert types["empty"] == "application/octet-stream"


def test_each_has_an_event(platform: CrewshipDev, written: str) -> None:
    told = [event["data"] for event in platform.events(written, types="artifact")]
    assert {data["name"]: data["size"] for data in told} == {
        name: len(content.encode()) for name, content in FILES.items()
    }
    assert all("content_type" in data for data in told)


@pytest.mark.parametrize("name", FILES)
def test_each_can_be_downloaded(platform: CrewshipDev, written: str, name: str) -> None:
    answer = platform.http.get(f"/runs/{written}/artifacts/{quote(name)}")
    assert answer.status_code == 200, answer.text
    content = FILES[name].encode()
    assert answer.content == content
    assert answer.headers["etag"] == f'"{hashlib.sha256(content).hexdigest()}"'
    disposition = answer.headers["content-disposition"]
    assert disposition.startswith("attachment; ")
    assert disposition.endswith(f"filename*=UTF-8''{quote(name.rpartition('/')[2], safe='')}")


def test_ranges_and_validators(platform: CrewshipDev, written: str) -> None:
    path, content = f"/runs/{written}/artifacts/report.md", FILES["report.md"].encode()

    def part(value: str, **headers: str) -> tuple[int, bytes, str | None]:
        answer = platform.http.get(path, headers={"Range": value, **headers})
        return answer.status_code, answer.content, answer.headers.get("content-range")

    size = len(content)
    assert part("bytes=0-1") == (206, content[:2], f"bytes 0-1/{size}")
    assert part("bytes=3-") == (206, content[3:], f"bytes 3-{size - 1}/{size}")
    assert part("bytes=-4") == (206, content[-4:], f"bytes {size - 4}-{size - 1}/{size}")
    assert part("bytes=2-9999") == (206, content[2:], f"bytes 2-{size - 1}/{size}")
    assert part(f"bytes={size}-")[0::2] == (416, f"bytes */{size}")
    assert part("lines=1-2")[:2] == (200, content)
    assert part("bytes=0-1", **{"If-Range": '"other"'})[:2] == (200, content)
    etag = platform.http.get(path).headers["etag"]
    fresh = platform.http.get(path, headers={"If-None-Match": etag})
    assert (fresh.status_code, fresh.content) == (304, b"")
    head = platform.http.head(path)
    assert (head.status_code, head.headers["content-length"]) == (200, str(size))
    empty = platform.http.get(f"/runs/{written}/artifacts/empty", headers={"Range": "bytes=0-"})
    assert empty.status_code == 416


def test_one_that_is_not_there(platform: CrewshipDev, written: str) -> None:
    for name in ("nothing.md", "..%2F..%2Fcrewship.db", "deep", "report.md%00"):
        answer = platform.http.get(f"/runs/{written}/artifacts/{name}")
        assert answer.status_code == 404, name
        assert answer.json()["code"] == "artifact_not_found"
        assert written in answer.json()["hint"]


def test_a_large_one_is_streamed(platform: CrewshipDev, probe: str) -> None:
    run = platform.run(probe, {"do": "write_large", "mebibytes": 50})
    assert run["status"] == "succeeded", run
    digest, size = hashlib.sha256(), 0
    with platform.http.stream("GET", f"/runs/{run['id']}/artifacts/large.bin") as answer:
        assert answer.headers["content-length"] == str(50 << 20)
        for chunk in answer.iter_raw():
            digest.update(chunk)
            size += len(chunk)
    assert (size, digest.hexdigest()) == (50 << 20, run["output"])
    middle = platform.http.get(
        f"/runs/{run['id']}/artifacts/large.bin", headers={"Range": f"bytes={7 << 20}-{(7 << 20) + 31}"}
    )
    assert middle.content == hashlib.sha256(b"7").digest()


def test_links_are_not_followed_and_other_files_are_named(platform: CrewshipDev, probe: str) -> None:
    run = platform.run(probe, {"do": "write_elsewhere"})
    names = {item["name"] for item in platform.get(f"/runs/{run['id']}/artifacts")["artifacts"]}
    assert "real.txt" in names
    assert "passwd" not in names
    assert any(name.endswith("kept.txt") for name in names), names  # [run] artifacts = ["out/*.txt"]
    warnings = [
        event["data"]["message"] for event in platform.events(run["id"]) if event["data"].get("source") == "crewship"
    ]
    assert any("notes.md" in warning for warning in warnings), warnings


def test_what_was_written_before_a_failure_is_kept(platform: CrewshipDev, probe: str) -> None:
    run = platform.run(probe, {"do": "crash"})
    assert run["status"] == "failed"
    answer = platform.http.get(f"/runs/{run['id']}/artifacts/before.txt")
    assert answer.text == "written before"


def test_the_command_line_downloads_all(platform: CrewshipDev, written: str, tmp_path: Path) -> None:
    listed = platform.crewship("runs", "artifacts", written)
    assert listed.returncode == 0
    assert "grüße-世界.csv" in listed.stdout
    done = platform.crewship("runs", "download", written, "-o", str(tmp_path / "all"))
    assert done.returncode == 0, done.stderr
    found = {path.read_bytes() for path in (tmp_path / "all").rglob("*") if path.is_file()}
    assert found == {content.encode() for content in FILES.values()}
    assert (tmp_path / "all" / "deep/er/and deeper/data.json").read_text() == "{}"
    one = platform.crewship("runs", "download", written, "report.md", "-o", "-")
    assert one.stdout == FILES["report.md"]
    missing = platform.crewship("runs", "download", written, "nothing.md")
    assert missing.returncode == 4
    assert "hint:" in missing.stderr
