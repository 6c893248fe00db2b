"""
``pinnace kubeconfig``: the administrator's kubeconfig, for the computer of whoever asks.

The node's own file names 127.0.0.1. Who comes by SSH gets the address at which SSH reached this
machine; a name or address may be asked for. It is printed when the node is ready, so that the
first thing that people do with it works.
"""

import http.client
import json
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from node.settings import UsageError

WAIT = 600.0  # seconds, for a first boot on a slow card
_PAUSE = 0.5
_SAY_AFTER = 2.0
HELP = """\
usage: pinnace kubeconfig [--server=ADDRESS] [--name=NAME] [--wait=SECONDS]

Prints the administrator's kubeconfig. Whoever has it can do everything in the cluster.

  --server  host, host:port or URL at which the API server is to be reached;
            default: where SSH reached this machine, else <hostname>.local
  --name    of the cluster, the user and the context; default: the host's name
  --wait    for the node to be ready, at most so long (default 600; 0: do not)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    server: str  # "": found out
    name: str  # "": the host's
    wait: float


def parse(arguments: Sequence[str]) -> tuple[Wanted, list[str]]:
    """What is asked, and the node's own flags (``--data-dir`` and the like)."""
    given: dict[str, str] = {}
    rest = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or name not in {"server", "name", "wait"}:
            rest.append(word)
        elif equals or words:
            given[name] = value if equals else words.pop(0)
        else:
            raise UsageError(f"--{name} needs a value: --{name}=VALUE")
    wait = given.get("wait", str(WAIT))
    if not re.fullmatch(r"\d{1,6}(\.\d+)?", wait):
        raise UsageError(f"--wait takes seconds, not {wait!r}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.@\-]*|", given.get("name", "")):
        raise UsageError("--name takes letters, digits, and -_.@")
    wanted = Wanted(server=given.get("server", ""), name=given.get("name", ""), wait=float(wait))
    return wanted, rest


def run(
    wanted: Wanted,
    settings: Mapping[str, Any],
    ssh_connection: str,
    *,
    say: Callable[[str], None],
    warn: Callable[[str], None],
) -> None:
    """
    ``settings`` are the node's. Raises :class:`UsageError` where it does not become ready in time.
    """
    host = socket.gethostname().partition(".")[0]
    port = settings["https-listen-port"]
    server = address(wanted.server, ssh_connection, host=host, port=port)
    path = Path(settings["write-kubeconfig"])
    if wanted.wait:
        _wait(settings, wanted.wait, warn)
    try:
        content = path.read_text()
    except FileNotFoundError:
        raise UsageError(f"{path} is not there: has the node been started?") from None
    except PermissionError:
        raise UsageError(f"{path} is for root alone: try again as root") from None
    say(renamed(content, server=server, name=wanted.name or host).rstrip())
    _warn_of_names(settings, urlsplit(server).hostname or "", warn)


def address(asked: str, ssh_connection: str, *, host: str, port: int) -> str:
    """
    The URL for the kubeconfig. Raises :class:`UsageError` for what cannot be one.

    ``ssh_connection`` is SSH_CONNECTION: client, its port, server, its port. An address of the
    link alone, or of a tunnel's end on this machine, is none that the caller can use.
    """
    if asked:
        return _url(asked, port)
    parts = ssh_connection.split()
    try:
        found = ip_address(parts[2].partition("%")[0])
    except (IndexError, ValueError):
        return _url(f"{host}.local", port)
    if found.is_loopback or found.is_link_local:
        return _url(f"{host}.local", port)
    mapped = getattr(found, "ipv4_mapped", None)
    return _url(str(mapped or found), port)


def _url(text: str, port: int) -> str:
    if text.count(":") > 1 and "[" not in text and "//" not in text:
        text = f"[{text}]"  # a plain address of IPv6
    try:
        found = urlsplit(text if "//" in text else f"https://{text}")
        named = found.hostname or ""
        host = f"[{named}]" if ":" in named else named
        # The port of a URL without one is the API server's too.
        where = f"{found.scheme}://{host}:{found.port or port}"
    except ValueError:
        host, where, found = "", "", urlsplit("")
    usable = re.fullmatch(r"[A-Za-z0-9._\-]+|\[[0-9a-fA-F:.]+\]", host)
    if not usable or found.scheme != "https" or found.path.strip("/"):
        raise UsageError(f"--server={text} is no address such as kitchen.local or 192.168.1.20")
    return where


def renamed(content: str, *, server: str, name: str) -> str:
    """A kubeconfig with one cluster, user and context under another name and address."""
    found = yaml.safe_load(content)
    for kind in ("clusters", "users", "contexts"):
        for entry in found[kind]:
            entry["name"] = name
    found["clusters"][0]["cluster"]["server"] = server
    found["contexts"][0]["context"] |= {"cluster": name, "user": name}
    found["current-context"] = name
    return str(yaml.safe_dump(found, sort_keys=False))


# Readiness


def _wait(settings: Mapping[str, Any], seconds: float, warn: Callable[[str], None]) -> None:
    """Asks until it is ready: a command that somebody waits for, and nothing of an idle node."""
    began = time.monotonic()
    said = ""
    while True:
        why = _not_ready(settings)
        if not why:
            return
        spent = time.monotonic() - began
        if spent > seconds:
            raise UsageError(
                f"the node is not ready after {seconds:.0f} s: {why}; see `journalctl -u pinnace`"
            )
        if why != said and spent > _SAY_AFTER:
            warn(f"waiting for the node: {why}")
            said = why
        time.sleep(_PAUSE)


def _not_ready(settings: Mapping[str, Any]) -> str:
    """Why; "" when the node is Ready."""
    tls = Path(settings["data-dir"], "server", "tls")
    try:
        context = ssl.create_default_context(cafile=str(tls / "server-ca.crt"))
        context.load_cert_chain(tls / "client-admin.crt", tls / "client-admin.key")
    except PermissionError:
        raise UsageError("the administrator's key is for root alone: try again as root") from None
    except (OSError, ssl.SSLError):
        return "it has no certificates yet"
    port = settings["https-listen-port"]
    link = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
    try:
        link.request("GET", f"/api/v1/nodes/{settings['node-name']}")
        answer = link.getresponse()
        body = answer.read()
        if answer.status != 200:
            return f"the API server answers {answer.status}"
        return _condition(json.loads(body))
    except (OSError, http.client.HTTPException, ValueError):
        return "the API server does not answer yet"
    finally:
        link.close()


def _condition(node: Mapping[str, Any]) -> str:
    conditions = node.get("status", {}).get("conditions") or ()
    ready: Mapping[str, Any] = next((c for c in conditions if c.get("type") == "Ready"), {})
    return "" if ready.get("status") == "True" else str(ready.get("message") or "it is not Ready")


def _warn_of_names(settings: Mapping[str, Any], host: str, warn: Callable[[str], None]) -> None:
    """A name that is not in the certificate would be refused by every client."""
    from cryptography import x509

    path = Path(settings["data-dir"], "server", "tls", "serving-kube-apiserver.crt")
    try:
        certificate = x509.load_pem_x509_certificates(path.read_bytes())[0]
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return
    if host.lower() not in {str(name.value).lower() for name in names}:
        warn(f"{host} is not in the API server's certificate: add it by tls-san (config: in")
        warn("pinnace.yaml) and start the node again, or choose another with --server")
