"""
What the operators were told, and how they reach the API: read here and nowhere else.

The node daemon gives settings, flag names without dashes with their values; on another
Kubernetes :mod:`operators.elsewhere` makes the same :class:`Config` from a command line.
"""

import os
import sys
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROXY = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    kubeconfig: Path  # <data-dir>/agent/operators.kubeconfig
    operators: frozenset[str]  # the operators of this process, by the name of their folder
    disable: frozenset[str]  # of --disable: "servicelb", "local-storage", …
    native: bool  # on a node of Pinnace, which does itself what elsewhere takes pods
    node_name: str  # the node that this process may touch; "": none
    namespace: str  # of DaemonSets and helper pods
    servicelb_image: str = "pinnace.dev/servicelb:1"  # of DaemonSets; K3s's works as well
    data_dir: Path
    run_dir: Path  # sockets between this process and the agent
    storage_dir: Path  # where local-path volumes go when their configuration names no place
    network_policy_fail: str  # "closed" | "open"
    cluster_dns: str = ""  # where this node answers DNS itself; "": pods do
    kubernetes_api: str  # host:port, for %{KUBERNETES_API}% in chart addresses
    python: str  # runs the worker programs
    program_dir: Path  # the folder that holds this package
    path: str  # PATH of the worker programs
    proxy: Mapping[str, str]  # HTTPS_PROXY and its like, for the download of charts


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """The current context of a kubeconfig; PEM texts, each "" where there is none."""

    server: str  # https://127.0.0.1:6443
    ca: str
    certificate: str
    key: str
    token: str
    insecure: bool
    token_file: str = ""  # instead of the token: a file that somebody else keeps fresh

    def bearer(self) -> str:
        """The token as it is now: one of a service account lives for an hour. Raises OSError."""
        return Path(self.token_file).read_text().strip() if self.token_file else self.token


def from_settings(settings: Mapping[str, Any]) -> Config:
    """``settings`` is complete: the node daemon has filled in every default."""
    address = str(settings.get("server") or "").removeprefix("https://").rstrip("/")
    data = Path(settings["data-dir"])
    return Config(
        kubeconfig=data / "agent" / "operators.kubeconfig",
        operators=_operators(settings, agent=bool(address)),
        disable=frozenset(settings["disable"]),
        native=True,
        node_name=settings["node-name"],
        namespace=settings["servicelb-namespace"],
        data_dir=data,
        run_dir=Path(settings["run-dir"]),
        storage_dir=Path(settings["default-local-storage-path"] or data / "storage"),
        network_policy_fail=settings["network-policy-fail"],
        cluster_dns=settings["cluster-dns"],
        kubernetes_api=address or f"127.0.0.1:{settings['https-listen-port']}",
        python=sys.executable,
        program_dir=Path(__file__).resolve().parent.parent,
        proxy=proxies(os.environ),
        path=PATH,
    )


def _operators(settings: Mapping[str, Any], *, agent: bool) -> frozenset[str]:
    """On an agent only those that look after their own node."""
    found = set() if agent else {"helm", "servicelb", "upgrade"}
    if "upgrade" in settings["disable"]:
        found.discard("upgrade")
    if settings["disable-helm-controller"]:
        found.discard("helm")
    if not settings["disable-network-policy"]:
        found.add("netpol")
    if "local-storage" not in settings["disable"]:
        found.add("localpath")
    return frozenset(found)


def environment() -> Mapping[str, str]:
    """The process's environment; here, so that nothing else reads it."""
    return os.environ


def proxies(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.upper() in _PROXY}


def read_kubeconfig(path: Path) -> Credentials:
    """
    The current context of a kubeconfig.

    Raises OSError, or ValueError where the file is no kubeconfig with a current context, or
    its user logs in by a program.
    """
    try:
        document = yaml.safe_load(path.read_text())
        named = {kind: _by_name(document, kind) for kind in ("contexts", "clusters", "users")}
        context = named["contexts"][document["current-context"]]["context"]
        cluster = named["clusters"][context["cluster"]]["cluster"]
        user = named["users"][context["user"]]["user"]
    except (yaml.YAMLError, KeyError, TypeError) as err:
        raise ValueError(f"{path} is no kubeconfig with a current context: {err}") from err
    if unknown := {"exec", "auth-provider", "username"} & user.keys():
        raise ValueError(f"{path}: users with {', '.join(sorted(unknown))} are not supported")
    folder = path.parent
    token_file = user.get("tokenFile") or ""
    return Credentials(
        server=cluster["server"],
        ca=_pem(cluster, "certificate-authority", folder),
        certificate=_pem(user, "client-certificate", folder),
        key=_pem(user, "client-key", folder),
        token=user.get("token") or "",
        token_file=str(folder / token_file) if token_file else "",
        insecure=bool(cluster.get("insecure-skip-tls-verify", False)),
    )


def _by_name(document: Mapping[str, Any], kind: str) -> dict[str, Mapping[str, Any]]:
    return {entry["name"]: entry for entry in document[kind]}


def _pem(section: Mapping[str, Any], name: str, folder: Path) -> str:
    if data := section.get(f"{name}-data"):
        return b64decode(data).decode()
    if path := section.get(name):
        return (folder / str(path)).read_text()
    return ""
