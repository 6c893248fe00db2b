"""
Helm's record of its releases: read without Helm, and mended where it was interrupted.

A revision is a Secret (or ConfigMap) named ``sh.helm.release.v1.NAME.vREVISION``.
Its labels say all that a decision needs, so nothing large is read for that.
"""

import asyncio
import gzip
import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from operators.client import ApiError, Client
from operators.helm import removed
from operators.helm.base import HelmError, Job, Release, Target
from operators.helm.plan import Revision, history_of

Record = dict[str, Any]
T = TypeVar("T")
_TRIES = 3  # where others write at the same time
_COMPLETE = {"status": "deployed", "description": "Complete"}
_SUPERSEDED = {"status": "superseded"}


class Unreadable(Exception):
    """Not what Helm writes: Helm passes over such a record, and fails where it should make it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    release: Release
    description: str  # what Helm said of it last
    server_side: bool  # applied so


async def history(client: Client, target: Target) -> Sequence[Revision]:
    query = {"labelSelector": f"owner=helm,name={target.name}"}
    return history_of(await client.metadata(_folder(target), query))


async def details(client: Client, target: Target, revision: int) -> Details | None:
    """None: there is no such record. Raises :class:`Unreadable`."""
    record = await _get(client, target, revision)
    if record is None:
        return None
    found = await asyncio.to_thread(decode, record, target.driver)
    chart = (found.get("chart") or {}).get("metadata") or {}
    info = found.get("info") or {}
    return Details(
        release=Release(
            name=target.name,
            namespace=target.namespace,
            revision=revision,
            status=str(info.get("status") or "unknown"),
            chart=f"{chart.get('name')}-{chart.get('version')}",
            app_version=str(chart.get("appVersion") or ""),
        ),
        description=str(info.get("description") or ""),
        server_side=found.get("apply_method") == "ssa",
    )


async def may_force(client: Client, job: Job, revision: int) -> bool:
    """
    Whether conflicts can be forced when Helm goes on from this revision.

    Only server-side apply knows conflicts, and "auto" is how that revision was applied; Helm
    fails where the two do not fit, when it has begun already.
    """
    if not job.force_conflicts or job.server_side != "auto":
        return job.force_conflicts
    try:
        found = await details(client, job.target, revision)
    except Unreadable:
        return False
    return found is not None and found.server_side


async def mark_failed(client: Client, target: Target, revision: int, why: str) -> None:
    """
    A later look at the release treats the revision as any other that failed.

    A record that is no record is removed: nothing is known of such a revision anyway.
    """
    record = await _get(client, target, revision)
    if record is None:
        return
    try:
        found = await asyncio.to_thread(decode, record, target.driver)
    except Unreadable:
        await _delete(client, target, revision)
        return
    await _say(client, target, record, found, status="failed", description=why)


async def confirm(client: Client, target: Target, revision: int) -> None:
    """
    Write down what Helm did and could not, though it says that all is well.

    Its last write of an install, and in an upgrade that of the revision before, may fail
    without a word. An install that is taken for interrupted would be made again.
    """
    for _ in range(_TRIES):
        unsaid = [found for found in await history(client, target) if _is_unsaid(found, revision)]
        if not unsaid:
            return
        for seen in unsaid:
            record = await _get(client, target, seen.version)
            if record is None:
                continue
            with suppress(Unreadable):
                found = await asyncio.to_thread(decode, record, target.driver)
                said = _COMPLETE if seen.version == revision else _SUPERSEDED
                await _say(client, target, record, found, **said)


def _is_unsaid(found: Revision, revision: int) -> bool:
    if found.version == revision:
        return found.status.startswith("pending-")
    return found.version < revision and found.status == "deployed"


async def _say(client: Client, target: Target, record: Record, found: Record, **info: str) -> None:
    found["info"] = {**(found.get("info") or {}), **info}
    label = record["metadata"]["labels"]
    label["status"], revision = info["status"], int(label["version"])
    await _replace(client, target, revision, record | await _encoded(record, found, target))


async def drop_unreadable(client: Client, target: Target) -> bool:
    """
    Remove the newest record if it is none: Helm would fail to make it for ever. Whether it did.
    """
    found = await history(client, target)
    if not found:
        return False
    try:
        await details(client, target, found[-1].version)
    except Unreadable:
        await _delete(client, target, found[-1].version)
        return True
    return False


async def converting(client: Client, target: Target, act: Callable[[], Awaitable[T]]) -> T:
    """``act``, and once more if Helm could not name an object because its version is gone."""
    try:
        return await act()
    except HelmError as err:
        if "no matches for kind" not in str(err) or not await convert(client, target):
            raise
    return await act()


async def convert(client: Client, target: Target) -> bool:
    """
    Give the objects of the newest revisions the API versions that replaced theirs.

    Helm compares with the objects of the revision before, and cannot even name those of a
    version that is no longer served. Whether anything was changed.
    """
    converted = False
    for revision in [found.version for found in await history(client, target)][-2:]:
        record = await _get(client, target, revision)
        if record is None:
            continue
        try:
            found = await asyncio.to_thread(decode, record, target.driver)
        except Unreadable:
            continue
        manifest = await asyncio.to_thread(removed.convert, str(found.get("manifest") or ""))
        if manifest != found.get("manifest"):
            found["manifest"] = manifest
            await _replace(client, target, revision, record | await _encoded(record, found, target))
            converted = True
    return converted


def decode(record: Record, driver: str) -> dict[str, Any]:
    """
    Helm encodes base64(gzip(JSON)); in a Secret the API's own base64 comes on top.

    Raises :class:`Unreadable`.
    """
    try:
        data = record["data"]["release"]
        inner = b64decode(b64decode(data) if driver == "secret" else data)
        found = json.loads(gzip.decompress(inner) if inner[:2] == b"\x1f\x8b" else inner)
    except (KeyError, TypeError, ValueError, EOFError, OSError, zlib.error) as err:
        raise Unreadable(f"{record['metadata'].get('name')}: {err}") from err
    if not isinstance(found, dict):
        raise Unreadable(f"{record['metadata'].get('name')} is no release")
    return found


async def _encoded(record: Record, release: dict[str, Any], target: Target) -> Record:
    def encode() -> str:
        outer = b64encode(gzip.compress(json.dumps(release).encode(), mtime=0))
        return b64encode(outer).decode() if target.driver == "secret" else outer.decode()

    return {"data": {**record["data"], "release": await asyncio.to_thread(encode)}}


def _folder(target: Target) -> str:
    plural = "configmaps" if target.driver == "configmap" else "secrets"
    return f"/api/v1/namespaces/{target.namespace}/{plural}"


def path(target: Target, revision: int) -> str:
    """Of the record of one revision."""
    return f"{_folder(target)}/sh.helm.release.v1.{target.name}.v{revision}"


async def _get(client: Client, target: Target, revision: int) -> Record | None:
    try:
        return await client.get(path(target, revision))
    except ApiError as err:
        if err.code == 404:
            return None
        raise


async def _replace(client: Client, target: Target, revision: int, record: Record) -> None:
    try:
        await client.replace(path(target, revision), record)
    except ApiError as err:
        if err.code != 409:
            raise


async def _delete(client: Client, target: Target, revision: int) -> None:
    try:
        await client.delete(path(target, revision))
    except ApiError as err:
        if err.code != 404:
            raise
