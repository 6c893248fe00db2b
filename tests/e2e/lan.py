"""Clients beside a node, in a network namespace of their own: so their addresses are real."""

import contextlib
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.e2e.node import ADDRESS, Node, run

NUMBERS = itertools.count(1)
GATEWAY = "10.98.0.1"  # another address of the node, that no Node object names
FIRST, SECOND = "10.98.0.9", "10.98.0.10"

# Prints the status and the body, or why there is none.
ASK = """
import http.client, ssl, sys
url, source, seconds = sys.argv[1:]
host, _, path = url.removeprefix("https://").partition("/")
kind, more = http.client.HTTPConnection, {}
if url.startswith("https://"):
    kind, more = http.client.HTTPSConnection, {"context": ssl._create_unverified_context()}
try:
    line = kind(host, timeout=float(seconds), source_address=(source, 0), **more)
    line.request("GET", "/" + path)
    answer = line.getresponse()
    print(answer.status, answer.read().decode())
except OSError as err:
    print(type(err).__name__)
"""


@dataclass(frozen=True)
class Lan:
    node: Node
    name: str

    def ask(self, url: str, *, source: str = FIRST, seconds: float = 3) -> str:
        """``url``: [https://]host:port/path. The answer, or the name of the exception."""
        argv = [sys.executable, "-c", ASK, url, source, str(seconds)]
        return self._run(argv).strip()

    def until(self, url: str, text: str, *, source: str = FIRST) -> str:
        """The first answer that has the text."""
        answer = ""

        def asked() -> bool:
            nonlocal answer
            answer = self.ask(url, source=source)
            return text in answer

        self.node.until(asked, timeout=30, seen=lambda: f"{url}: {answer}")
        return answer

    def _run(self, argv: Sequence[str]) -> str:
        enter = ["nsenter", f"--net=/run/netns/{self.name}", "--"]
        done = subprocess.run(
            [*enter, *argv], capture_output=True, text=True, timeout=30, check=True
        )
        return done.stdout


@contextlib.contextmanager
def beside(node: Node) -> Iterator[Lan]:
    """A cable between the node and a namespace with two addresses; it goes at the end."""
    name, cable = f"lan-{os.getpid()}-{next(NUMBERS)}", f"lan{next(NUMBERS)}"
    run("ip", "netns", "add", name)
    try:
        peer = ("peer", "name", cable, "netns", name)
        node.namespace.exec("ip", "link", "add", cable, "type", "veth", *peer)
        node.namespace.exec("ip", "address", "add", f"{GATEWAY}/24", "dev", cable)
        node.namespace.exec("ip", "link", "set", cable, "up")
        for address in (FIRST, SECOND):
            run("ip", "-n", name, "address", "add", f"{address}/24", "dev", cable)
        run("ip", "-n", name, "link", "set", cable, "up")
        for network in (f"{ADDRESS}/32", "10.43.0.0/16"):
            run("ip", "-n", name, "route", "add", network, "via", GATEWAY)
        yield Lan(node, name)
    finally:
        run("ip", "netns", "delete", name, check=False)
