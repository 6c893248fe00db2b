"""All pods of a selector are Ready, and a program within them ends well."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp

from operators.client import Client
from operators.config import Credentials
from operators.lease import trust
from operators.upgrade.checks import stream
from operators.upgrade.checks.objects import Exec, Pods

AT_ONCE = 8  # pods in which a command runs at the same time
_DEFAULT = "kubectl.kubernetes.io/default-container"
_SHOWN = 3  # pods that a message names
Pod = Mapping[str, Any]


async def look(wanted: Pods, client: Client) -> str:
    """Why it is not so; "" if it is. Raises :class:`~operators.client.ApiError`."""
    pods = await _pods(client, wanted.namespace, wanted.selector)
    if not pods:
        return _none(wanted)
    bad = [(pod, why) for pod in pods if (why := not_ready(pod))]
    if not bad:
        return ""
    shown = ", ".join(f"{pod['metadata']['name']} ({why})" for pod, why in bad[:_SHOWN])
    more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    noun = "pod is" if len(pods) == 1 else "pods are"
    return f"{len(bad)} of {len(pods)} {noun} not Ready in {wanted.namespace}: {shown}{more}"


def not_ready(pod: Pod) -> str:
    """Why; "": it is."""
    status = pod.get("status") or {}
    for found in status.get("conditions") or ():
        if found["type"] == "Ready":
            if found["status"] == "True":
                return ""
            return _waits(status) or found.get("reason") or "NotReady"
    return str(_waits(status) or status.get("phase") or "Pending")


def _waits(status: Mapping[str, Any]) -> str:
    """What keeps a container from running, such as ImagePullBackOff."""
    for found in status.get("containerStatuses") or ():
        state = found.get("state") or {}
        if reason := (state.get("waiting") or {}).get("reason"):
            return str(reason)
    return ""


async def run(wanted: Exec, client: Client, credentials: Callable[[], Credentials]) -> str:
    """Why it is not so; "" if it is. Raises :class:`~operators.client.ApiError`."""
    pods = await _pods(client, wanted.namespace, wanted.selector)
    if not pods:
        return _none(wanted)
    found = await asyncio.to_thread(credentials)
    context = await asyncio.to_thread(trust, found) if found.server[:6] == "https:" else False
    turn = asyncio.Semaphore(AT_ONCE)
    connector = aiohttp.TCPConnector(ssl=context, limit=AT_ONCE)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one(pod: Pod) -> str:
            async with turn:
                return await _run_in(pod, wanted, session, found)

        async with asyncio.TaskGroup() as tasks:
            ends = [tasks.create_task(one(pod)) for pod in pods]
    return next((end.result() for end in ends if end.result()), "")


async def _run_in(
    pod: Pod, wanted: Exec, session: aiohttp.ClientSession, credentials: Credentials
) -> str:
    metadata = pod["metadata"]
    named = f"pod {metadata['namespace']}/{metadata['name']}"
    if (phase := (pod.get("status") or {}).get("phase")) != "Running":
        return f"{named} is {phase or 'Pending'}, not Running"
    query = [("container", wanted.container or _container(pod))]
    query += [("stdout", "1"), ("stderr", "1"), *(("command", word) for word in wanted.command)]
    path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{quote(metadata['name'])}/exec"
    end = await stream.run(
        session, f"{credentials.server.rstrip('/')}{path}?{urlencode(query)}", credentials.bearer()
    )
    program = " ".join(wanted.command)[:80]
    if end.error:
        return f"{program!r} in {named}: {end.error}"
    if end.code:
        said = f": {end.said}" if end.said else ""
        return f"{program!r} in {named} ended with {end.code}{said}"
    return ""


def _container(pod: Pod) -> str:
    named = (pod["metadata"].get("annotations") or {}).get(_DEFAULT)
    containers: Sequence[Mapping[str, Any]] = pod["spec"]["containers"]
    return str(named or containers[0]["name"])


async def _pods(client: Client, namespace: str, selector: str) -> list[Pod]:
    """
    Those that are to serve: neither on their way out nor finished.

    What a controller has replaced stays there as Failed, and says nothing about today.
    """
    query = urlencode({"labelSelector": selector})
    listed = await client.get(f"/api/v1/namespaces/{namespace}/pods?{query}")
    return [pod for pod in listed.get("items") or () if _counts(pod)]


def _counts(pod: Pod) -> bool:
    metadata, phase = pod["metadata"], (pod.get("status") or {}).get("phase")
    owned = any(owner.get("controller") for owner in metadata.get("ownerReferences") or ())
    finished = phase == "Succeeded" or (phase == "Failed" and owned)
    return not finished and not metadata.get("deletionTimestamp")


def _none(wanted: Pods | Exec) -> str:
    which = f"with labels {wanted.selector!r}" if wanted.selector else "at all"
    return f"there is no pod {which} in namespace {wanted.namespace}"
