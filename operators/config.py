"""
What the operators were told, and how they reach the API: read here and nowhere else.

The node daemon gives settings, flag names without dashes with their values; in
a pod of another cluster :func:`from_settings` gets the few that matter from there.
"""

import os
import sys
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_PROXY = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    kubeconfig: Path  # <data-dir>/agent/operators.kubeconfig
    disable: frozenset[str]  # "servicelb"; helm cannot be disabled
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


def from_settings(settings: Mapping[str, Any]) -> Config:
    """``settings`` is complete: the node daemon has filled in every default."""
    address = str(settings.get("server") or "").removeprefix("https://").rstrip("/")
    return Config(
        kubeconfig=Path(settings["data-dir"]) / "agent" / "operators.kubeconfig",
        disable=frozenset(settings["disable"]),
        kubernetes_api=address or f"127.0.0.1:{settings['https-listen-port']}",
        python=sys.executable,
        program_dir=Path(__file__).resolve().parent.parent,
        proxy={name: value for name, value in os.environ.items() if name.upper() in _PROXY},
        path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    )


def read_kubeconfig(path: Path) -> Credentials:
    """
    The current context of a kubeconfig.

    Raises OSError, or ValueError where the file is no kubeconfig with a current context.
    """
    try:
        document = yaml.safe_load(path.read_text())
        named = {kind: _by_name(document, kind) for kind in ("contexts", "clusters", "users")}
        context = named["contexts"][document["current-context"]]["context"]
        cluster = named["clusters"][context["cluster"]]["cluster"]
        user = named["users"][context["user"]]["user"]
    except (yaml.YAMLError, KeyError, TypeError) as err:
        raise ValueError(f"{path} is no kubeconfig with a current context: {err}") from err
    folder = path.parent
    return Credentials(
        server=cluster["server"],
        ca=_pem(cluster, "certificate-authority", folder),
        certificate=_pem(user, "client-certificate", folder),
        key=_pem(user, "client-key", folder),
        token=user.get("token", ""),
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
