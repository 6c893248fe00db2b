"""Files that anybody may read, and nothing else."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from controlplane.api.app import ApiServer, Around
from controlplane.api.server import Listener
from controlplane.api.static import StaticFiles
from tests.fakes.api_server import serving

CHART = b"\x1f\x8b a chart"


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    """Of an API server with two folders of files; a secret lies beside them."""
    packaged, own = tmp_path / "packaged", tmp_path / "own"
    (packaged / "charts").mkdir(parents=True)
    own.mkdir()
    (packaged / "charts" / "web-1.0.0.tgz").write_bytes(CHART)
    (packaged / "both").write_text("packaged")
    (own / "both").write_text("own")
    (own / "mine.txt").write_text("mine")
    (own / ".hidden").write_text("hidden")
    (own / "leads-out").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_text("secret")
    async with serving() as served:
        around = Around(extra={"static": StaticFiles((packaged, own, tmp_path / "absent"))})
        listener = Listener(ApiServer(served.parts, around), tls=None)
        await listener.start("127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{listener.port}"
        finally:
            await listener.stop()


async def get(
    url: str, method: str = "GET", **headers: str
) -> tuple[int, bytes, Mapping[str, str]]:
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        # As it stands: a client tidies up what a stranger would not.
        session.request(method, URL(url, encoded=True), headers=headers) as answer,
    ):
        return answer.status, await answer.read(), answer.headers


async def test_a_chart_is_given_as_it_is(url: str) -> None:
    status, body, headers = await get(f"{url}/static/charts/web-1.0.0.tgz")
    assert (status, body) == (200, CHART)
    assert headers["Content-Type"] == "application/gzip"
    assert "Content-Encoding" not in headers


async def test_what_is_packaged_goes_first_and_the_rest_is_found_too(url: str) -> None:
    assert (await get(f"{url}/static/both"))[1] == b"packaged"
    assert (await get(f"{url}/static/mine.txt"))[1] == b"mine"


async def test_who_has_the_file_is_told_so(url: str) -> None:
    path = f"{url}/static/charts/web-1.0.0.tgz"
    tag = (await get(path))[2]["ETag"]
    assert (await get(path, **{"If-None-Match": tag}))[:2] == (304, b"")
    status, body, headers = await get(path, "HEAD")
    assert (status, body, headers["Content-Length"]) == (200, b"", str(len(CHART)))


async def test_a_part_of_a_file_can_be_asked_for(url: str) -> None:
    assert (await get(f"{url}/static/mine.txt", Range="bytes=2-"))[:2] == (206, b"ne")


@pytest.mark.parametrize(
    "path",
    [
        "/static",
        "/static/",
        "/static/charts",
        "/static/charts/",
        "/static/absent",
        "/static/.hidden",
        "/static/leads-out",
        "/static/../secret",
        "/static/charts/../../../secret",
        "/static/%2e%2e/secret",
        "/static/..%2fsecret",
        "/static/charts%2fweb-1.0.0.tgz",
        "/static//mine.txt",
        "/static/mine.txt%00",
    ],
)
async def test_nothing_but_files_within_the_folders_is_there(url: str, path: str) -> None:
    status, body, _ = await get(f"{url}{path}")
    assert status == 404
    assert b"secret" not in body
    assert b"hidden" not in body


async def raw(url: str, path: str) -> bytes:
    """What a client gets that tidies nothing up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(url).port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize("path", ["/static/../../secret", "/static/..%5csecret", "/static/%zz"])
async def test_an_untidy_path_is_no_way_out(url: str, path: str) -> None:
    answer = await raw(url, path)
    assert answer.split(b" ", 2)[1] in (b"404", b"400")
    assert b"\r\n\r\nsecret" not in answer


async def test_files_are_only_read(url: str) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert (await get(f"{url}/static/mine.txt", method))[0] == 405
