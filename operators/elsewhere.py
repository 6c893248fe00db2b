"""
What the operators are told on another Kubernetes: a command line, and what a pod knows.

A flag beats the environment (``--lease-name`` is ``PINNACE_LEASE_NAME``), that beats the
default. In a pod, the service account is written down as a kubeconfig that names its two
files: the kubelet renews the token, so nothing may keep a copy of it.
"""

import argparse
import importlib.util
import os
import re
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from operators.config import PATH, Config, proxies, read_kubeconfig
from operators.election import Told

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class UsageError(Exception):
    """Something that the user can mend; the text is one line that says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    config: Config
    election: Told | None  # None: act without asking
    health: tuple[str, int] | None  # address and port of /healthz, /readyz and /metrics
    debug: bool


def read(
    arguments: Sequence[str], environment: Mapping[str, str], account: Path = SERVICE_ACCOUNT
) -> Elsewhere:
    """``account``: the folder of the service account. Raises :class:`UsageError`."""
    told = _parser(environment).parse_args(arguments)
    run_dir = Path(told.run_dir)
    try:
        kubeconfig = Path(told.kubeconfig) if told.kubeconfig else None
        kubeconfig = kubeconfig or in_cluster(environment, account, run_dir)
        server = read_kubeconfig(kubeconfig).server
    except (OSError, ValueError) as err:
        raise UsageError(f"cannot log in: {err}") from err
    namespace = told.namespace or _text(account / "namespace") or "kube-system"
    config = Config(
        kubeconfig=kubeconfig,
        operators=_operators(told.operators),
        disable=frozenset(),
        native=False,
        node_name=told.node_name,
        namespace=namespace,
        data_dir=Path(told.data_dir),
        run_dir=run_dir,
        servicelb_image=told.servicelb_image,
        storage_dir=Path(told.storage_dir or f"{told.data_dir}/storage"),
        network_policy_fail=told.network_policy_fail,
        kubernetes_api=server.partition("://")[2].rstrip("/"),
        python=sys.executable,
        program_dir=Path(__file__).resolve().parent.parent,
        path=environment.get("PATH") or PATH,
        proxy=proxies(environment),
    )
    return Elsewhere(
        config=config,
        election=_election(told, namespace) if told.leader_elect else None,
        health=_address(told.health_address),
        debug=told.debug,
    )


def in_cluster(environment: Mapping[str, str], account: Path, folder: Path) -> Path:
    """
    A kubeconfig for the service account of this pod.

    Raises ValueError where this is no pod, OSError where ``folder`` cannot be written to.
    """
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), "KUBERNETES_SERVICE_PORT"
    if not host or not (account / "token").exists():
        raise ValueError("this is no pod with a service account: give --kubeconfig=FILE")
    host = f"[{host}]" if ":" in host else host
    cluster = {
        "server": f"https://{host}:{environment.get(port) or '443'}",
        "certificate-authority": str(account / "ca.crt"),
    }
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "pod",
        "clusters": [{"name": "pod", "cluster": cluster}],
        "users": [{"name": "pod", "user": {"tokenFile": str(account / "token")}}],
        "contexts": [{"name": "pod", "context": {"cluster": "pod", "user": "pod"}}],
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "operators.kubeconfig"
    path.write_text(yaml.safe_dump(document))
    return path


def seconds(text: str) -> float:
    """A duration as Go writes it: 15s, 1m30s. Raises ValueError."""
    if not text or _DURATION.sub("", text):
        raise ValueError(f"{text!r} is no duration such as 15s")
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(text))


def _operators(names: str) -> frozenset[str]:
    wanted = frozenset(name.strip() for name in names.split(",") if name.strip())
    for name in sorted(wanted):
        found = importlib.util.find_spec(f"operators.{name}") if name.isidentifier() else None
        if found is None or not found.submodule_search_locations:
            raise UsageError(f"--operators: there is no operator {name!r}")
    if not wanted:
        raise UsageError("--operators takes names separated by commas, such as helm,localpath")
    return wanted


def _election(told: argparse.Namespace, namespace: str) -> Told:
    lease, renew, retry = told.lease_duration, told.renew_deadline, told.retry_period
    # client-go's own conditions: a retry is drawn out by up to 1.2 times itself.
    if not lease > renew > retry * 1.2 > 0 or lease < 1:
        raise UsageError("--lease-duration > --renew-deadline > 1.2 x --retry-period must hold")
    return Told(
        namespace=namespace,
        name=told.lease_name,
        identity=told.identity or f"{told.pod_name}_{uuid.uuid4()}",
        duration=lease,
        deadline=renew,
        retry=retry,
    )


def _address(text: str) -> tuple[str, int] | None:
    if text in {"", "0"}:
        return None
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"--health-address takes ADDRESS:PORT, :PORT or 0, not {text!r}")
    return host.strip("[]") or "0.0.0.0", int(port)


def _text(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(message)


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="pinnace-operators",
        description="The operators of Pinnace on another Kubernetes.",
        allow_abbrev=False,
    )

    def flag(name: str, help_: str, default: str = "", **more: Any) -> None:
        variable = "PINNACE_" + name.upper().replace("-", "_")
        value = environment.get(variable) or default
        text = f"{help_} (default: {default})" if default else help_
        parser.add_argument(f"--{name}", default=value, help=text, **more)

    flag("operators", "which operators run, separated by commas", "helm,localpath,servicelb")
    flag("kubeconfig", "how to reach the API; in a pod: its service account")
    flag("namespace", "of DaemonSets, helper pods and the Lease; in a pod: its own")
    flag("node-name", "the node that this process may touch", environment.get("NODE_NAME", ""))
    flag("pod-name", "the name of this pod", environment.get("POD_NAME") or _hostname())
    flag("data-dir", "where an operator keeps files on its node", "/var/lib/pinnace")
    flag("run-dir", "sockets and the kubeconfig of the service account", "/run/pinnace")
    flag("storage-dir", "where local-path volumes go; <data-dir>/storage")
    flag("servicelb-image", "of the pods that forward to Services", "pinnace.dev/servicelb:1")
    flag("network-policy-fail", "without rules: closed or open", "open", choices=_FAIL)
    flag("leader-elect", "act only while holding the Lease", "true", **_SWITCH)
    flag("lease-name", "the name of the Lease", "pinnace-operators")
    flag("identity", "who holds the Lease; the pod's name and a number of chance")
    flag("lease-duration", "others wait so long before they take the Lease", "15s", type=seconds)
    flag("renew-deadline", "without renewal for so long, stop acting", "10s", type=seconds)
    flag("retry-period", "between two tries", "2s", type=seconds)
    flag("health-address", "of /healthz, /readyz and /metrics; 0: none", ":8081")
    flag("debug", "say more", "false", **_SWITCH)
    return parser


def _boolean(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise ValueError("true or false")
    return text.lower() == "true"


_FAIL = ("closed", "open")
_SWITCH: Mapping[str, Any] = {"type": _boolean, "nargs": "?", "const": True}


def _hostname() -> str:
    return os.uname().nodename
