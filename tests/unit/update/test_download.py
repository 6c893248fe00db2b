"""A bundle is fetched once, goes on where it broke off, and is what was announced."""

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from node.update.base import InstallError, RefusedError
from node.update.download import Downloads, Wanted, local_path

CONTENT = bytes(range(256)) * 4000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Source:
    """A server whose connections break; ``asked`` are the ranges that were asked for."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.tag = '"one"'
        self.break_after: list[int] = []  # bytes of each answer, while there are some
        self.status: list[int] = []  # answers before the first good one
        self.asked: list[str] = []
        self.says_length = True
        self.arrived = asyncio.Event()  # something of this answer is on the other side

    def told(self, _: int) -> None:
        self.arrived.set()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.headers.get("Range", ""))
        if self.status:
            return web.Response(status=self.status.pop(0))
        start = 0
        if request.headers.get("If-Range") == self.tag and self.asked[-1]:
            start = int(self.asked[-1].removeprefix("bytes=").removesuffix("-"))
        if start >= len(self.content):
            return web.Response(status=416)
        rest = self.content[start:]
        answer = web.StreamResponse(status=206 if start else 200, headers={"ETag": self.tag})
        if self.says_length:
            answer.content_length = len(rest)
        await answer.prepare(request)
        if self.break_after:
            if piece := rest[: self.break_after.pop(0)]:
                self.arrived.clear()
                await answer.write(piece)
                async with asyncio.timeout(10):
                    await self.arrived.wait()
            assert request.transport is not None
            request.transport.close()
            return answer
        await answer.write(rest)
        return answer


@pytest.fixture
def source() -> Source:
    return Source()


@pytest_asyncio.fixture
async def url(source: Source) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/x.raucb", source.answer)
    async with TestServer(app) as server:
        yield str(server.make_url("/x.raucb"))


@pytest.fixture
def downloads(tmp_path: Path) -> Downloads:
    return Downloads(tmp_path / "update", pauses=(0.0,))


def nothing(_: int) -> None:
    pass


async def test_a_bundle_is_fetched_whole_and_percents_are_told(
    downloads: Downloads, url: str
) -> None:
    told: list[int] = []
    wanted = Wanted(url=url, sha256=DIGEST, size=len(CONTENT))
    path = await downloads.fetch(wanted, told.append)
    assert path.read_bytes() == CONTENT
    assert told == sorted(told)
    assert told[-1] == 100
    assert sorted(p.name for p in path.parent.iterdir()) == ["bundle", "bundle.about.json"]


async def test_what_broke_off_goes_on_where_it_was(
    downloads: Downloads, source: Source, url: str
) -> None:
    source.break_after = [300_000, 200_000]
    path = await downloads.fetch(Wanted(url=url, sha256=DIGEST), source.told)
    assert path.read_bytes() == CONTENT
    starts = [int(a.removeprefix("bytes=").removesuffix("-")) for a in source.asked[1:]]
    assert len(starts) == 2
    assert 0 < starts[0] <= 300_000
    assert starts[0] < starts[1] <= starts[0] + 200_000


async def test_what_came_before_a_restart_is_used(tmp_path: Path, source: Source, url: str) -> None:
    source.break_after = [300_000]
    first = Downloads(tmp_path / "update", pauses=(0.0,))
    source.break_after += [0] * 20
    with pytest.raises(InstallError, match="cannot fetch"):
        await first.fetch(Wanted(url=url, sha256=DIGEST), source.told)
    source.break_after.clear()
    source.asked.clear()
    second = Downloads(tmp_path / "update", pauses=(0.0,))
    path = await second.fetch(Wanted(url=url, sha256=DIGEST), nothing)
    assert path.read_bytes() == CONTENT
    assert source.asked[0] not in ("", "bytes=0-")


async def test_another_file_at_the_same_address_is_fetched_from_its_begin(
    tmp_path: Path, source: Source, url: str
) -> None:
    source.break_after = [300_000] + [0] * 20
    downloads = Downloads(tmp_path / "update", pauses=(0.0,))
    with pytest.raises(InstallError):
        await downloads.fetch(Wanted(url=url), source.told)
    source.break_after.clear()
    source.content, source.tag = CONTENT[::-1], '"two"'
    path = await downloads.fetch(Wanted(url=url), nothing)
    assert path.read_bytes() == CONTENT[::-1]


async def test_a_file_that_is_shorter_now_is_fetched_anew(
    tmp_path: Path, source: Source, url: str
) -> None:
    source.break_after = [300_000] + [0] * 20
    downloads = Downloads(tmp_path / "update", pauses=(0.0,))
    with pytest.raises(InstallError):
        await downloads.fetch(Wanted(url=url), source.told)
    source.break_after.clear()
    source.content = CONTENT[:1000]
    path = await downloads.fetch(Wanted(url=url), nothing)
    assert path.read_bytes() == CONTENT[:1000]


async def test_another_content_than_announced_is_refused_after_a_second_look(
    downloads: Downloads, source: Source, url: str
) -> None:
    with pytest.raises(RefusedError) as caught:
        await downloads.fetch(Wanted(url=url, sha256="0" * 64), nothing)
    assert caught.value.reason == "Tampered"
    assert source.asked == ["", ""]
    assert not downloads.whole.exists()


async def test_more_than_announced_is_refused(downloads: Downloads, url: str) -> None:
    with pytest.raises(RefusedError) as caught:
        await downloads.fetch(Wanted(url=url, size=1000), nothing)
    assert caught.value.reason == "TooLarge"


async def test_more_than_announced_is_refused_also_where_nobody_says_so(
    downloads: Downloads, source: Source, url: str
) -> None:
    source.says_length = False
    with pytest.raises(RefusedError) as caught:
        await downloads.fetch(Wanted(url=url, size=1000), nothing)
    assert caught.value.reason == "TooLarge"


async def test_a_server_that_is_busy_is_asked_again(
    downloads: Downloads, source: Source, url: str
) -> None:
    source.status = [503, 429]
    assert (await downloads.fetch(Wanted(url=url), nothing)).read_bytes() == CONTENT


async def test_a_file_that_is_not_there_is_an_error_at_once(
    downloads: Downloads, source: Source, url: str
) -> None:
    source.status = [404]
    with pytest.raises(InstallError, match="404"):
        await downloads.fetch(Wanted(url=url), nothing)
    assert len(source.asked) == 1


async def test_a_full_disk_is_noticed_before_anything_is_written(
    downloads: Downloads, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InstallError, match="no space"):
        await downloads.fetch(Wanted(url=url), nothing)


async def test_a_file_of_this_machine_is_used_where_it_lies(
    downloads: Downloads, tmp_path: Path
) -> None:
    path = tmp_path / "a b.raucb"
    path.write_bytes(CONTENT)
    for url in (str(path), path.as_uri()):
        assert await downloads.fetch(Wanted(url=url, sha256=DIGEST), nothing) == path
    with pytest.raises(RefusedError) as caught:
        await downloads.fetch(Wanted(url=str(path), sha256="0" * 64), nothing)
    assert caught.value.reason == "Tampered"
    with pytest.raises(InstallError, match="No such file"):
        await downloads.fetch(Wanted(url=str(tmp_path / "none")), nothing)


@pytest.mark.parametrize("url", ["ftp://x/y", "x.raucb", "", "file://elsewhere/x", "http:///x"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(RefusedError):
        local_path(url)


async def test_a_finished_download_is_not_fetched_again(
    downloads: Downloads, source: Source, url: str
) -> None:
    wanted: Any = Wanted(url=url, sha256=DIGEST)
    await downloads.fetch(wanted, nothing)
    await downloads.fetch(wanted, nothing)
    assert len(source.asked) == 1
    downloads.drop()
    assert not downloads.whole.exists()
