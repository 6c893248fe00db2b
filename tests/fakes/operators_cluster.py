"""A real control plane and real operators as children, and an API client that waits on watches."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 40.0  # seconds
Object = dict[str, Any]


@dataclass
class Cluster:
    data: Path
    port: int
    children: dict[str, "subprocess.Popen[str]"] = field(default_factory=dict)

    @property
    def kubeconfig(self) -> Path:
        return self.data / "admin.yaml"

    def start(self, module: str, *flags: str) -> None:
        log = (self.data / f"{module}.log").open("a")
        child = self.children[module] = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.fakes.operators_child",
                module,
                str(self.data),
                str(self.port),
                *flags,
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        log.close()
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n", self.log(module)

    def stop(self, module: str) -> int:
        """An orderly stop; the exit code."""
        child = self.children.pop(module)
        child.send_signal(signal.SIGTERM)
        try:
            return child.wait(20)
        finally:
            child.kill()
            child.wait()
            assert child.stdout is not None
            child.stdout.close()

    def kill(self, module: str) -> None:
        child = self.children.pop(module)
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()

    def log(self, module: str) -> str:
        return (self.data / f"{module}.log").read_text()

    def request(self, method: str, path: str, body: Any = None, kind: str = "json") -> Any:
        tls = self.data / "server" / "tls"
        answer = requests.request(
            method,
            f"https://127.0.0.1:{self.port}{path}",
            data=None if body is None else json.dumps(body),
            headers={"Content-Type": f"application/{kind}"},
            cert=(str(tls / "client-admin.crt"), str(tls / "client-admin.key")),
            verify=str(tls / "server-ca.crt"),
            timeout=20,
        )
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def get(self, path: str) -> Any:
        return self.request("GET", path)

    def create(self, path: str, body: Any) -> Any:
        return self.request("POST", path, body)

    def merge(self, path: str, patch: Any) -> Any:
        return self.request("PATCH", path, patch, "merge-patch+json")

    def delete(self, path: str) -> None:
        self.request("DELETE", path)

    def names(self, path: str) -> set[str]:
        return {item["metadata"]["name"] for item in self.get(path)["items"]}

    def until(self, collection: str, name: str, holds: Callable[[Object | None], bool]) -> Any:
        """Watch one object until ``holds``; None stands for an object that is not there."""
        selector = f"fieldSelector=metadata.name%3D{name}"
        listed = self.get(f"{collection}?{selector}")
        now = next(iter(listed["items"]), None)
        if holds(now):
            return now
        version = listed["metadata"]["resourceVersion"]
        for event in self._watch(f"{collection}?{selector}&watch=1&resourceVersion={version}"):
            now = None if event["type"] == "DELETED" else event["object"]
            if holds(now):
                return now
        raise AssertionError(f"{collection} {name} stayed at {json.dumps(now)}")

    def _watch(self, path: str) -> Iterator[Object]:
        tls = self.data / "server" / "tls"
        with requests.get(
            f"https://127.0.0.1:{self.port}{path}&timeoutSeconds={PATIENCE:.0f}",
            cert=(str(tls / "client-admin.crt"), str(tls / "client-admin.key")),
            verify=str(tls / "server-ca.crt"),
            timeout=PATIENCE + 5,
            stream=True,
        ) as answer:
            for line in answer.iter_lines():
                yield json.loads(line)

    def pids(self, module: str, words: str) -> list[int]:
        """Processes that this child has started and whose command line has these words."""
        parent = self.children[module].pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return [int(p) for p in children if words in Path(f"/proc/{p}/cmdline").read_text()]


def condition(thing: Mapping[str, Any] | None, kind: str) -> Mapping[str, Any]:
    conditions = ((thing or {}).get("status") or {}).get("conditions") or ()
    return next((found for found in conditions if found["type"] == kind), {})


@contextmanager
def new_cluster(data: Path) -> Iterator[Cluster]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cluster = Cluster(data, port)
    try:
        cluster.start("controlplane.run")
        yield cluster
    finally:
        for child in cluster.children.values():
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            assert child.stdout is not None
            child.stdout.close()
