"""
The agent asks here before it starts the first container of a pod.

One line of JSON each way over a unix socket. The question::

    {"namespace": …, "name": …, "uid": …, "resourceVersion": …, "creationTimestamp": …,
     "labels": {…}, "ips": […], "ports": [{"name": …, "protocol": …, "containerPort": …}]}

The answer, once the kernel has the pod's rules: ``{"covered": true}``, or ``{"covered":
false, "reason": …}``. Where the operator's watch is behind it goes by what it was
handed. The same socket answers ``{"explain": …}``: see :mod:`operators.netpol.explain`.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from operators.netpol.apply import Enforcer
from operators.netpol.explain import explain
from operators.netpol.objects import Pod, addresses, labels_of, named_ports, version_of
from operators.netpol.policies import NoAnswer

LOG = logging.getLogger(__name__)
NAME = "policy.sock"
_LONGEST_LINE = 2**20
List = Callable[[str], Awaitable[list[dict[str, Any]]]]


class Gate:
    """
    ``policies`` lists those of a namespace. ``obstacle`` says why this kernel cannot enforce
    what isolates a pod; "": it can.
    """

    def __init__(
        self, enforcer: Enforcer, policies: List, obstacle: Callable[[], str], run_dir: Path
    ) -> None:
        self._enforcer = enforcer
        self._policies = policies
        self._obstacle = obstacle
        self._path = run_dir / NAME

    async def run(self) -> None:
        """Answer until cancelled."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # What a process that was killed has left; there is one of us.
        self._path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(
            self._serve, path=str(self._path), limit=_LONGEST_LINE
        )
        self._path.chmod(0o600)
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer = await self._answer(await reader.readline())
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except (OSError, ValueError) as err:
            LOG.debug("policy gate: %s", err)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, line: bytes) -> Mapping[str, Any]:
        try:
            question = json.loads(line)
            if "explain" in question:
                return explain(self._enforcer, question["explain"])
            pod = handed_pod(question, self._enforcer.compiler.node)
            if not pod.ips:
                return {"covered": False, "reason": "the pod has no address"}
        except (ValueError, KeyError, TypeError) as err:
            return {"covered": False, "reason": f"not understood: {err!r}"}
        reason = await self._cover(pod)
        return {"covered": False, "reason": reason} if reason else {"covered": True}

    async def _cover(self, pod: Pod) -> str:
        enforcer = self._enforcer
        await enforcer.begun()
        try:
            enforcer.put_policies(pod.namespace, await self._policies(pod.namespace))
        except NoAnswer as err:
            # While the API is away policies do not change either.
            LOG.debug("policies of %s: %s", pod.namespace, err)
        if error := await enforcer.hand(pod):
            return error
        return self._obstacle() if enforcer.compiler.isolated(pod.key) else ""


def handed_pod(question: Mapping[str, Any], node: str) -> Pod:
    """Raises KeyError, TypeError or ValueError for what is no pod."""
    return Pod(
        namespace=str(question["namespace"]),
        name=str(question["name"]),
        uid=str(question["uid"]),
        labels=labels_of(question.get("labels")),
        ips=addresses(question["ips"]),
        ports=named_ports({"containers": [{"ports": question.get("ports") or ()}]}),
        node=node,
        created=str(question.get("creationTimestamp") or ""),
        version=version_of(question),
    )
