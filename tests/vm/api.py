"""
The API of a machine, asked from outside as its administrator.
"""

import base64
import json
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any

import yaml

from tests.vm.console import MachineError
from tests.vm.machine import Machine

Object = dict[str, Any]


class Api:
    """Made when the machine has written its kubeconfig, which stays the same over restarts."""

    def __init__(self, machine: Machine, kubeconfig: str = "/etc/pinnace/pinnace.yaml") -> None:
        self._port = machine.port(6443)
        self.kubeconfig = machine.run(f"cat {kubeconfig}")
        self._tls = _context(yaml.safe_load(self.kubeconfig))

    def for_kubectl(self, folder: Path) -> Path:
        """A kubeconfig by which kubectl on this machine reaches the API."""
        config = yaml.safe_load(self.kubeconfig)
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{self._port}"
        path = folder / "kubeconfig.yaml"
        path.write_text(yaml.safe_dump(config))
        path.chmod(0o600)
        return path

    def get(self, path: str, *, seconds: float = 30) -> Object:
        """An object or a list. Raises ``OSError`` and ``HTTPException``, KeyError: not there."""
        with self._ask("GET", path, seconds=seconds) as response:
            return _read(response)

    def send(self, method: str, path: str, body: Object, *, kind: str = "json") -> Object:
        """``kind``: json, merge-patch+json, apply-patch+yaml."""
        content = json.dumps(body).encode()
        with self._ask(method, path, content, kind=kind) as response:
            return _read(response)

    def wait(self, path: str, good: Callable[[Object], bool], seconds: float) -> Object:
        """
        The first object of a list that is good, watched for; the API may come up meanwhile.

        Raises :class:`MachineError` after so many seconds, with what was seen last.
        """
        deadline = time.monotonic() + seconds
        seen: object = "nothing"
        while (left := deadline - time.monotonic()) > 0:
            try:
                found = self.get(path, seconds=left)
                for item in found["items"]:
                    seen = item
                    if good(item):
                        return dict(item)
                version = found["metadata"]["resourceVersion"]
                for event in self._watch(path, version, left):
                    seen = event["object"]
                    if good(event["object"]):
                        return dict(event["object"])
            except (OSError, HTTPException, KeyError, ValueError) as err:
                seen = err
                time.sleep(min(1, max(0, deadline - time.monotonic())))
        raise MachineError(f"{path}: not within {seconds:g} s; last seen: {str(seen)[-2000:]}")

    def _watch(self, path: str, version: str, seconds: float) -> Iterator[Any]:
        mark = "&" if "?" in path else "?"
        query = f"{mark}watch=1&resourceVersion={version}&timeoutSeconds={int(seconds) + 1}"
        with self._ask("GET", path + query, seconds=seconds) as response:
            while line := response.readline():
                yield json.loads(line)

    @contextmanager
    def _ask(
        self, method: str, path: str, body: bytes = b"", *, seconds: float = 30, kind: str = "json"
    ) -> Iterator[HTTPResponse]:
        connection = HTTPSConnection("127.0.0.1", self._port, timeout=seconds, context=self._tls)
        try:
            connection.request(method, path, body, {"Content-Type": f"application/{kind}"})
            yield connection.getresponse()
        finally:
            connection.close()


def is_ready(item: Object) -> bool:
    """Whether an object says of itself that it is Ready: a node, a pod."""
    conditions = item.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _read(response: HTTPResponse) -> Object:
    answer: Object = json.loads(response.read())
    if response.status == 404:
        raise KeyError(answer.get("message"))
    if response.status >= 300:
        raise OSError(f"{response.status}: {answer.get('message')}")
    return answer


def _context(config: Object) -> ssl.SSLContext:
    authority = base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"])
    context = ssl.create_default_context(cadata=authority.decode())
    user = config["users"][0]["user"]
    with tempfile.NamedTemporaryFile() as file:
        file.write(base64.b64decode(user["client-certificate-data"]))
        file.write(b"\n" + base64.b64decode(user["client-key-data"]))
        file.flush()
        context.load_cert_chain(file.name)
    return context
