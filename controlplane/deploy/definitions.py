"""
The CustomResourceDefinitions that a node always has: AddOns and Helm charts.

Their schemas are data in ``crds``. A checksum in an annotation tells whether the server has
the current one, so that a start with nothing new writes nothing.
"""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

from controlplane.client.base import Client, Object, PatchType
from controlplane.deploy.manifest import parse
from controlplane.objects.errors import StatusError
from controlplane.objects.kinds import Resource
from controlplane.objects.resources import CUSTOM_RESOURCE_DEFINITIONS

FOLDER = Path(__file__).parent / "crds"
CHECKSUM = "pinnace.dev/checksum"
MANAGER = "pinnace"
ADDONS = Resource("k3s.cattle.io", "v1", "addons", True)


def load(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """The definitions with their checksums; reads files."""
    found = []
    for path in sorted(folder.glob("*.yaml")):
        data = path.read_bytes()
        checksum = hashlib.sha256(data).hexdigest()
        for body in parse(data):
            body["metadata"].setdefault("annotations", {})[CHECKSUM] = checksum
            found.append(body)
    return found


async def ensure_crds(client: Client) -> list[str]:
    """Create or update what differs; the names of what was written."""
    written = []
    for body in await asyncio.to_thread(load):
        name = body["metadata"]["name"]
        checksum = body["metadata"]["annotations"][CHECKSUM]
        if _checksum(await _get(client, name)) == checksum:
            continue
        await client.patch(
            CUSTOM_RESOURCE_DEFINITIONS,
            "",
            name,
            body=body,
            type=PatchType.APPLY,
            options={"fieldManager": MANAGER, "force": "true"},
        )
        written.append(name)
    return written


async def _get(client: Client, name: str) -> Object | None:
    try:
        return await client.get(CUSTOM_RESOURCE_DEFINITIONS, "", name)
    except StatusError as err:
        if err.code == 404:
            return None
        raise


def _checksum(found: Object | None) -> str:
    if found is None:
        return ""
    return str((found["metadata"].get("annotations") or {}).get(CHECKSUM, ""))
