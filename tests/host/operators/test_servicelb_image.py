"""The image that forwards a port: its own files, in network namespaces of our own."""

import contextlib
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from oci import File, Folder, Link, Stored
from servicelb import image

from node.host import sysctl
from tests.fakes.host import End, Namespace, Server, ask_tcp, ask_udp, connect, open_in

pytestmark = pytest.mark.root
ENTER = "mount -t proc proc $0/proc && exec chroot $0 /forward"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the image, laid out."""
    folder = tmp_path_factory.mktemp("image")
    (folder / "proc").mkdir()
    for path, entry in image().entries.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        match entry:
            case File():
                target.write_bytes(entry.data)
                target.chmod(entry.mode)
            case Stored():
                target.symlink_to(entry.path)
            case Link():
                target.symlink_to(entry.target)
            case Folder():
                target.mkdir(exist_ok=True)
    return folder


class Line:
    """A client (192.0.2.9 and 192.0.2.10), a pod that forwards, a server at 10.1.0.2."""

    def __init__(self) -> None:
        self.client, self.pod, self.server = (Namespace(name) for name in ("client", "pod", "srv"))
        connect(End(self.client, "c0", "192.0.2.9/24"), End(self.pod, "c0", "192.0.2.1/24"))
        connect(End(self.pod, "s0", "10.1.0.1/24"), End(self.server, "s0", "10.1.0.2/24"))
        self.client.ip("addr", "add", "192.0.2.10/24", "dev", "c0")
        sysctl.ensure("net.ipv4.ip_forward", "1", netns=self.pod.path)

    def remove(self) -> None:
        for namespace in (self.client, self.pod, self.server):
            namespace.remove()


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.remove()


def start(root: Path, line: Line, **changes: str) -> "subprocess.Popen[str]":
    environment = {
        "PATH": "/bin:/usr/bin:/usr/sbin:/sbin",
        "SRC_PORT": "80",
        "SRC_RANGES": "0.0.0.0/0",
        "DEST_PROTO": "TCP",
        "DEST_PORT": "8080",
        "DEST_IPS": "10.1.0.2",
        **changes,
    }
    enter = ["nsenter", f"--net={line.pod.path}", "unshare", "--mount", "--pid", "--fork"]
    return subprocess.Popen(
        [*enter, "--kill-child", "sh", "-ec", ENTER, str(root)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def forwarding(root: Path, line: Line, **changes: str) -> Iterator["subprocess.Popen[str]"]:
    process = start(root, line, **changes)
    try:
        assert process.stdout is not None
        assert "goes to" in process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


async def test_a_port_is_forwarded_and_answers_come_back(root: Path, line: Line) -> None:
    async with Server(line.server, "server", 8080):
        with forwarding(root, line):
            assert await ask_tcp(line.client, "192.0.2.1", 80) == "server 10.1.0.1"
            with pytest.raises(ConnectionRefusedError):
                await ask_tcp(line.client, "192.0.2.1", 81)


async def test_only_those_in_the_source_ranges_pass(root: Path, line: Line) -> None:
    async with Server(line.server, "server", 8080):
        with forwarding(root, line, SRC_RANGES="192.0.2.9/32,192.0.2.8/31, 10.9.0.0/16"):
            assert await ask_tcp(line.client, "192.0.2.1", 80, source="192.0.2.9")
            with pytest.raises(TimeoutError):
                await ask_tcp(line.client, "192.0.2.1", 80, source="192.0.2.10", seconds=0.3)


async def test_ranges_of_another_family_admit_nobody(root: Path, line: Line) -> None:
    async with Server(line.server, "server", 8080):
        with forwarding(root, line, SRC_RANGES="fd00::/8"), pytest.raises(TimeoutError):
            await ask_tcp(line.client, "192.0.2.1", 80, seconds=0.3)


async def test_udp_is_forwarded_beside_tcp_on_the_same_port(root: Path, line: Line) -> None:
    tcp, udp = Server(line.server, "tcp", 8080), Server(line.server, "udp", 5353, udp=True)
    async with tcp, udp:
        with (
            forwarding(root, line, SRC_PORT="53"),
            forwarding(root, line, SRC_PORT="53", DEST_PROTO="UDP", DEST_PORT="5353"),
            open_in(line.client, socket.SOCK_DGRAM) as client,
        ):
            assert await ask_udp(client, "192.0.2.1", 53) == "udp 10.1.0.1"
            assert (await ask_tcp(line.client, "192.0.2.1", 53)).startswith("tcp")


async def test_a_container_that_starts_again_replaces_its_rules(root: Path, line: Line) -> None:
    async with Server(line.server, "server", 8080):
        with forwarding(root, line, DEST_PORT="9999"):
            pass
        with forwarding(root, line, DEST_IPS="10.1.0.2,fd00::2,10.1.0.3"):
            assert (await ask_tcp(line.client, "192.0.2.1", 80)).startswith("server")


def test_it_ends_when_it_is_told_to(root: Path, line: Line) -> None:
    with forwarding(root, line) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        subprocess.run(["kill", f"-{signal.SIGTERM.value}", children[0]], check=True)
        process.wait(timeout=10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"SRC_PORT": "http"}, "SRC_PORT is not a port: http"),
        ({"SRC_PORT": "70000"}, "SRC_PORT is not a port: 70000"),
        ({"DEST_PORT": "0"}, "DEST_PORT is not a port: 0"),
        ({"DEST_PROTO": "ICMP"}, "DEST_PROTO is none of TCP, UDP and SCTP: ICMP"),
        ({"DEST_IPS": ""}, "DEST_IPS has no address"),
        ({"DEST_IPS": "10.1.0.2; flush ruleset"}, "DEST_IPS has more than addresses"),
        ({"SRC_RANGES": "10.0.0.0/8 }"}, "SRC_RANGES has more than addresses"),
        ({"DEST_IPS": "1.2.3"}, "nft refused the rules"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    root: Path, line: Line, changes: dict[str, str], message: str
) -> None:
    process = start(root, line, **changes)
    _, error = process.communicate(timeout=20)
    assert process.returncode == 1
    assert message in error


def test_without_forwarding_in_the_pod_it_says_so(root: Path, line: Line) -> None:
    sysctl.ensure("net.ipv4.ip_forward", "0", netns=line.pod.path)
    process = start(root, line)
    _, error = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "net.ipv4.ip_forward is not 1 in this pod" in error
