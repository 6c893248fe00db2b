import asyncio

import pytest

from operators import sweep
from operators.servicelb.known import Known


def test_changes_count_only_once_everything_was_listed() -> None:
    told: list[str] = []
    known = Known(lambda: told.append("changed"))
    known.put(known.nodes, "a", 1)
    assert told == []
    known.sync()
    known.sync()
    assert told == ["changed"]
    known.put(known.nodes, "a", 1)
    assert told == ["changed"]
    known.put(known.nodes, "a", 2)
    known.put(known.nodes, "a", None)
    known.put(known.nodes, "a", None)
    assert told == ["changed"] * 3


async def test_what_a_new_listing_lacks_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "LISTING_SECONDS", 0.02)
    swept = asyncio.Event()
    known = Known(swept.set)
    for name in ("kept", "gone", "new"):
        known.put(known.nodes, name, 1)
    known.put(known.services, "other", 1)
    known.synced = True

    known.seen(known.nodes, "kept", listed=True)
    known.seen(known.nodes, "new", listed=False)  # came in the watch, after the listing
    async with asyncio.timeout(10):
        await swept.wait()
    assert set(known.nodes) == {"kept", "new"}
    assert set(known.services) == {"other"}


async def test_a_listing_that_lacks_nothing_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sweep, "LISTING_SECONDS", 0.0)
    told: list[str] = []
    known = Known(lambda: told.append("changed"))
    known.put(known.nodes, "a", 1)
    known.synced = True
    known.seen(known.nodes, "a", listed=True)
    done = asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, done.set)
    await done.wait()
    assert told == []
