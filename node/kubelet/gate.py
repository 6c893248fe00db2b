"""
Policy before traffic: asks the policy operator whether a pod's rules are loaded.

The contract is one line of JSON each way over a unix socket in the run directory, so that
agent and operators know nothing else of each other. While the operators are being
started, or started again, a pod that is about to start waits; one that runs keeps its rules.
"""

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane.client.base import Object
from node.config import Config
from node.host.nft import Nft, has_table
from node.kubelet.base import Covered, Gate, OpenGate, is_sidecar

NAME = "policy.sock"
TABLE = ("inet", "pinnace_netpol")  # the operator's
SECONDS = 10.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_LONGEST_LINE = 2**20


@dataclass(frozen=True, slots=True)
class PolicyGate:
    """``closed``: a pod whose rules are not loaded in time does not start."""

    run_dir: Path
    closed: bool
    seconds: float = SECONDS

    async def covered(self, pod: Object, ips: Sequence[str]) -> Covered:
        if pod["spec"].get("hostNetwork"):
            return Covered(True)
        why = f"the policy operator did not answer within {self.seconds:.0f} s"
        try:
            async with asyncio.timeout(self.seconds):
                pause = _FIRST_PAUSE
                while True:
                    answer = await ask(self.run_dir, question(pod, ips))
                    if answer.get("covered"):
                        return Covered(True)
                    why = str(answer.get("reason") or why)
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
        except TimeoutError:
            return Covered(not self.closed, why)


async def policy_gate(config: Config, nft: Nft) -> Gate:
    """For this node. Where policies are off, the rules of before would only be in the way."""
    if config.network_policy:
        return PolicyGate(config.run_dir, closed=config.network_policy_fail == "closed")
    if has_table(*TABLE):
        await nft.delete_table(*TABLE)
    return OpenGate()


async def ask(run_dir: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The answer; without keys but ``reason`` where nobody gave one."""
    path = str(run_dir / NAME)
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=_LONGEST_LINE)
    except OSError as err:
        return {"reason": f"the policy operator does not run: {err.strerror}"}
    try:
        writer.write(json.dumps(wanted).encode() + b"\n")
        line = await reader.readline()
        found = json.loads(line) if line else {}
    except (OSError, ValueError):
        found = {}
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return found if isinstance(found, dict) and found else {"reason": "no answer"}


def question(pod: Object, ips: Sequence[str]) -> dict[str, Any]:
    metadata, spec = pod["metadata"], pod["spec"]
    sidecars = [c for c in spec.get("initContainers", ()) if is_sidecar(c)]
    ports = [
        {"name": port["name"], "protocol": port.get("protocol"), "containerPort": number}
        for container in (*spec["containers"], *sidecars)
        for port in container.get("ports") or ()
        if port.get("name") and (number := port.get("containerPort"))
    ]
    return {
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "resourceVersion": metadata.get("resourceVersion", ""),
        "creationTimestamp": metadata.get("creationTimestamp", ""),
        "labels": metadata.get("labels") or {},
        "ips": list(ips),
        "ports": ports,
    }
