"""
``pinnace netpol explain``: what policies say of a pod, or of a connection.

The operators of this node are asked, over the socket at which the agent asks for its pods:
what they answer is what they have loaded into this node's kernel.
"""

import json
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from node.settings import UsageError

USAGE = (
    "usage: pinnace netpol explain [NAMESPACE/]POD [-n NAMESPACE] "
    "[--from=POD|ADDRESS | --to=POD|ADDRESS] [--port=80] [--protocol=TCP] [FLAGS]"
)
SOCKET = "policy.sock"
SECONDS = 15.0
_OWN = {"-n": "namespace", "--namespace": "namespace"} | {
    f"--{name}": name for name in ("from", "to", "port", "protocol")
}


def parse(arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The question, and what is left for the settings. Raises :class:`UsageError`."""
    if not arguments or arguments[0] != "explain":
        raise UsageError(USAGE)
    given, pods, rest = dict[str, str](), list[str](), list[str]()
    words = list(arguments[1:])
    while words:
        name, equals, value = words.pop(0).partition("=")
        if name in _OWN:
            if not equals and not words:
                raise UsageError(f"{name} needs a value: {name}=VALUE")
            given[_OWN[name]] = value if equals else words.pop(0)
        elif name.startswith("-"):
            rest.append(name + equals + value)
        else:
            pods.append(name)
    if len(pods) != 1 or {"from", "to"} <= given.keys():
        raise UsageError(USAGE)
    return _question(pods[0], given), rest


def _question(pod: str, given: Mapping[str, str]) -> dict[str, Any]:
    namespace = given.get("namespace", "default")

    def qualified(name: str) -> str:
        return name if "/" in name or _is_address(name) else f"{namespace}/{name}"

    port = given.get("port", "0" if not {"from", "to"} & given.keys() else "")
    if not port:
        raise UsageError("--from and --to need --port too: the port that the target pod listens at")
    if not port.isdecimal() or int(port) > 65535:
        raise UsageError("--port takes a number: the port that the target pod listens at")
    found: dict[str, Any] = {"pod": qualified(pod), "port": int(port)}
    found["protocol"] = given.get("protocol", "TCP").upper()
    return found | {side: qualified(given[side]) for side in ("from", "to") if side in given}


def _is_address(text: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, text)
        except OSError:
            continue
        return True
    return False


def run(question: Mapping[str, Any], run_dir: Path, say: Callable[[str], None]) -> None:
    """Raises :class:`UsageError` where there is no answer."""
    answer = _ask(run_dir / SOCKET, {"explain": question})
    if error := answer.get("error") or answer.get("reason"):
        raise UsageError(str(error))
    for line in answer["lines"]:
        say(line)


def _ask(path: Path, question: Mapping[str, Any]) -> dict[str, Any]:
    try:
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(SECONDS)
            asked.connect(str(path))
            asked.sendall(json.dumps(question).encode() + b"\n")
            with asked.makefile("rb") as lines:
                found = json.loads(lines.readline())
    except (OSError, ValueError) as err:
        raise UsageError(
            f"nobody answers at {path} ({err}): does pinnace run, with network policies?"
        ) from err
    return dict(found)
