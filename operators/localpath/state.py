"""
What is known between two looks: as little as makes an event into a question.

Claims, volumes and snapshots are read anew whenever something is done about them; kept are the
configuration, the classes of this provisioner, and the keys of what waits for one of them
to change.
"""

from dataclasses import dataclass, field
from pathlib import Path

from operators.client import ApiError, Client
from operators.localpath.base import Object
from operators.localpath.paths import Configuration

CLAIMS = "/api/v1/namespaces/{}/persistentvolumeclaims"
VOLUMES = "/api/v1/persistentvolumes"
NODES = "/api/v1/nodes"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"


@dataclass(slots=True)
class State:
    """``node``: the one this process may touch; "": none, helper pods do."""

    node: str
    native: bool
    configuration: Configuration
    classes: dict[str, Object] = field(default_factory=dict)  # name and parameters
    labels: dict[str, str] | None = None  # of this node, once it was seen
    changes: int = 0  # of what a claim may wait for, so that none is missed during a look
    waiting: set[str] = field(default_factory=set)  # keys of claims that were refused
    abroad: set[str] = field(default_factory=set)  # keys of claims that wait for another node
    elsewhere: set[str] = field(default_factory=set)  # volumes to be removed by other nodes

    def bases(self) -> list[Path]:
        return self.configuration.bases(self.node)


async def read(client: Client, path: str) -> Object | None:
    """None: there is no such object."""
    try:
        return await client.get(path)
    except ApiError as err:
        if err.code == 404:
            return None
        raise


async def read_claim(client: Client, key: str) -> Object | None:
    namespace, _, name = key.partition("/")
    found = await read(client, f"{CLAIMS.format(namespace)}/{name}")
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **found} if found else None


async def read_volume(client: Client, name: str) -> Object | None:
    found = await read(client, f"{VOLUMES}/{name}")
    return {"apiVersion": "v1", "kind": "PersistentVolume", **found} if found else None


async def own_labels(client: Client, state: State) -> dict[str, str]:
    """Of this process's node."""
    if state.labels is None:
        return labels_of(await read(client, f"{NODES}/{state.node}"))
    return state.labels


def labels_of(node: Object | None) -> dict[str, str]:
    return dict((node or {}).get("metadata", {}).get("labels") or {})
