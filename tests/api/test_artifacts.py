import hashlib
from urllib.parse import quote

import pytest

from api.routes.artifacts import content_disposition
from crewship.models import Artifact
from crewship.objects import artifact_key
from tests.api.conftest import Api, assert_problem
from tests.api.test_runs import run

RUN = "/v1/runs/run_000000000001/artifacts"


def keep(api: Api, name: str, content: bytes, content_type: str = "text/plain") -> None:
    key = artifact_key("run_000000000001", name)
    api.store.put(key, content)
    api.add(
        Artifact(
            run_id="run_000000000001", name=name, size_bytes=len(content), content_type=content_type,
            sha256=hashlib.sha256(content).hexdigest(), key=key,
        )
    )  # fmt: skip


@pytest.fixture
def kept(ready: Api) -> Api:
    ready.add(run(1, status="succeeded"))
    return ready


NAMES = [
    "report.md", "deep/er/data.json", "with space", "ümläut/日本語.txt", "100%/a?b#c&d=e", 'quo"te', "semi;colon",
    "line\nbreak", "tab\t", "..hidden", "a//b", "back\\slash", "x" * 200, "-", "%2F", "+plus+", "emoji🚢",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
async def test_any_name_can_be_downloaded(kept: Api, name: str) -> None:
    keep(kept, name, b"bytes of " + name.encode())
    response = await kept.http.get(f"{RUN}/{quote(name)}")
    assert (response.status_code, response.content) == (200, b"bytes of " + name.encode())
    assert response.headers["content-disposition"].startswith("attachment; ")
    assert [item["name"] for item in (await kept.http.get(RUN)).json()["artifacts"]] == [name]


async def test_the_list(kept: Api) -> None:
    keep(kept, "b.md", b"# b", "text/markdown")
    keep(kept, "a/empty", b"", "application/octet-stream")
    artifacts = (await kept.http.get(RUN)).json()["artifacts"]
    assert [(item["name"], item["size"], item["content_type"]) for item in artifacts] == [
        ("a/empty", 0, "application/octet-stream"), ("b.md", 3, "text/markdown"),
    ]  # fmt: skip
    assert artifacts[1]["sha256"] == hashlib.sha256(b"# b").hexdigest()


async def test_headers_of_a_download(kept: Api) -> None:
    keep(kept, "page.html", b"<script>", "text/html")
    response = await kept.http.get(f"{RUN}/page.html")
    assert response.headers["etag"] == f'"{hashlib.sha256(b"<script>").hexdigest()}"'
    assert response.headers["content-length"] == "8"
    assert response.headers["content-type"].startswith("text/html")
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-disposition"].startswith("attachment")
    assert response.headers.get_list("content-security-policy") == ["sandbox; default-src 'none'"]
    head = await kept.http.head(f"{RUN}/page.html")
    for status, asked in ((206, {"range": "bytes=0-3"}), (304, {"if-none-match": response.headers["etag"]})):
        part = await kept.http.get(f"{RUN}/page.html", headers=asked)
        assert (part.status_code, part.headers["content-security-policy"]) == (status, "sandbox; default-src 'none'")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "8")
    same = await kept.http.get(f"{RUN}/page.html", headers={"if-none-match": response.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")


@pytest.mark.parametrize(
    ("asked", "status", "content", "content_range"),
    [
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=4-", 206, b"456789", "bytes 4-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=-99", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=9-100", 206, b"9", "bytes 9-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=-0", 416, None, "bytes */10"),
        ("bytes=5-2", 200, b"0123456789", None),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
        ("bytes=-", 200, b"0123456789", None),
    ],
)
async def test_ranges(kept: Api, asked: str, status: int, content: bytes | None, content_range: str | None) -> None:
    keep(kept, "digits", b"0123456789")
    response = await kept.http.get(f"{RUN}/digits", headers={"range": asked})
    assert response.status_code == status
    assert response.headers.get("content-range") == content_range
    if content is None:
        assert "0-9" in assert_problem(response, 416, "invalid_range")["hint"]
    else:
        assert response.content == content


async def test_a_range_of_other_bytes_is_the_whole(kept: Api) -> None:
    keep(kept, "digits", b"0123456789")
    response = await kept.http.get(f"{RUN}/digits", headers={"range": "bytes=0-1", "if-range": '"other"'})
    assert (response.status_code, response.content) == (200, b"0123456789")


async def test_a_large_one_is_streamed(kept: Api) -> None:
    content = bytes(range(256)) * 8192
    keep(kept, "big", content)
    assert (await kept.http.get(f"{RUN}/big")).content == content


async def test_what_is_not_there(kept: Api) -> None:
    assert_problem(await kept.http.get(f"{RUN}/nope"), 404, "artifact_not_found")
    assert_problem(await kept.http.get(f"{RUN}/nul%00"), 404, "artifact_not_found")
    keep(kept, "lost", b"x")
    kept.store.delete(artifact_key("run_000000000001", "lost"))
    assert_problem(await kept.http.get(f"{RUN}/lost"), 404, "artifact_not_found")


def test_a_name_cannot_break_out_of_its_header() -> None:
    header = content_disposition('a/b"; filename=evil\r\nX: y')
    assert "\r" not in header
    assert "\n" not in header
    assert header.count('"') == 2
    assert header.startswith('attachment; filename="b_; filename=evil__X: y"; ')
