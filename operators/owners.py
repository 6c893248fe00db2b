"""
Which operators of a cluster run on nodes of Pinnace, so that no chart runs them twice.

The process of a node writes a Lease that names them, once, when it starts: on Pinnace Leases
are kept in memory, so it is gone when the control plane is started anew, as it must be where
a flag has taken an operator away. It is not renewed; it says what is so, not who is alive.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from operators.client import ApiError

LOG = logging.getLogger(__name__)

NAMESPACE = "kube-system"
LABEL = "operators.pinnace.dev/native"
ANNOTATION = "operators.pinnace.dev/runs"
FIRST_DELAY, LONGEST_DELAY = 2.0, 300.0


class Leases(Protocol):
    async def get(self, namespace: str, name: str) -> dict[str, Any] | None: ...
    async def create(self, lease: Mapping[str, Any]) -> dict[str, Any]: ...
    async def replace(self, lease: Mapping[str, Any]) -> dict[str, Any]: ...
    async def listed(self, namespace: str, label: str) -> dict[str, Any]: ...
    async def changed(self, namespace: str, label: str, version: str) -> None: ...


def marker(node: str, operators: Collection[str]) -> dict[str, Any]:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "namespace": NAMESPACE,
            "name": f"pinnace-operators-{node}",
            "labels": {LABEL: "true"},
            "annotations": {ANNOTATION: ",".join(sorted(operators))},
        },
        "spec": {"holderIdentity": node},
    }


async def announce(leases: Leases, node: str, operators: Collection[str]) -> None:
    """Say once what this node runs; tried again until the API takes it."""
    wanted, delay = marker(node, operators), FIRST_DELAY
    while True:
        try:
            await _write(leases, wanted)
        except ApiError as err:
            LOG.debug("cannot say which operators run here: %s", err)
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_DELAY)
        else:
            return


async def _write(leases: Leases, wanted: dict[str, Any]) -> None:
    metadata = wanted["metadata"]
    found = await leases.get(metadata["namespace"], metadata["name"])
    if found is None:
        await leases.create(wanted)
    elif (found["metadata"].get("annotations") or {}) != metadata["annotations"]:
        version = found["metadata"]["resourceVersion"]
        await leases.replace({**wanted, "metadata": {**metadata, "resourceVersion": version}})


async def natives(leases: Leases, node: str) -> tuple[Mapping[str, str], str]:
    """
    Operator → a node that runs it itself, and the version of this answer.

    ``node``: of those that look after one node only, netpol, this one counts; "": all count.
    """
    listed = await leases.listed(NAMESPACE, LABEL)
    found: dict[str, str] = {}
    for lease in listed.get("items") or ():
        holder = (lease.get("spec") or {}).get("holderIdentity") or ""
        runs = (lease["metadata"].get("annotations") or {}).get(ANNOTATION, "")
        for name in filter(None, runs.split(",")):
            if name not in OF_ONE_NODE or node in {"", holder}:
                found[name] = holder
    return found, listed["metadata"]["resourceVersion"]


OF_ONE_NODE = frozenset({"netpol"})


async def until_changed(leases: Leases, node: str, seen: Mapping[str, str]) -> None:
    """Returns when :func:`natives` would say something other than ``seen``."""
    delay = FIRST_DELAY
    while True:
        try:
            found, version = await natives(leases, node)
            if found.keys() != seen.keys():
                return
            await leases.changed(NAMESPACE, LABEL, version)
            delay = FIRST_DELAY
        except ApiError as err:
            LOG.debug("cannot see who else runs operators: %s", err)
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_DELAY)
