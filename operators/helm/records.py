"""
Helm's record of its releases: read without Helm, and mended where it was interrupted.

A revision is a Secret (or ConfigMap) named ``sh.helm.release.v1.NAME.vREVISION``.
Its labels say all that a decision needs, so nothing large is read for that.
"""

import gzip
import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any

from operators.client import ApiError, Client
from operators.helm.base import Target
from operators.helm.plan import Revision, history_of


async def history(client: Client, target: Target) -> Sequence[Revision]:
    query = {"labelSelector": f"owner=helm,name={target.name}"}
    return history_of(await client.metadata(_path(target), query))


async def mark_failed(client: Client, target: Target, revision: int, why: str) -> None:
    """A later look at the release treats the revision as any other that failed."""
    path = f"{_path(target)}/sh.helm.release.v1.{target.name}.v{revision}"
    record = await client.get(path)
    record["metadata"]["labels"]["status"] = "failed"
    secret = target.driver == "secret"
    record["data"]["release"] = _failed(record["data"]["release"], why, secret=secret)
    try:
        await client.replace(path, record)
    except ApiError as err:
        if err.code != 409:
            raise


def _path(target: Target) -> str:
    plural = "configmaps" if target.driver == "configmap" else "secrets"
    return f"/api/v1/namespaces/{target.namespace}/{plural}"


def _failed(data: str, why: str, *, secret: bool) -> str:
    """Helm encodes base64(gzip(JSON)); in a Secret the API's own base64 comes on top."""
    inner = b64decode(data) if secret else data.encode()
    release: dict[str, Any] = json.loads(gzip.decompress(b64decode(inner)))
    release["info"]["status"] = "failed"
    release["info"]["description"] = why
    outer = b64encode(gzip.compress(json.dumps(release).encode(), mtime=0))
    return b64encode(outer).decode() if secret else outer.decode()
