"""
A card with a pinnace.yaml becomes the machine that the file says, and another when it is edited.

Nobody touches the machine: names, networks and keys come from the card, its first kubeconfig by
SSH with the key that is on it, and what is wrong is said on the card and on the console.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.vm.cluster import Cluster
from tests.vm.machine import Machine
from tests.vm.releases import ROOT, Releases
from tests.vm.wire import MAC, Wire

CONFIG = """\
hostname: Kitchen
ssh:
  keys: {key}
network:
  "{mac}": {{address: 10.9.9.2/24}}
timeZone: Europe/Berlin
token: correct-horse-battery
disable: [traefik]
nodeLabels: {{room: kitchen}}
manifests:
- apiVersion: v1
  kind: ConfigMap
  metadata: {{name: inline, namespace: default}}
"""
MANIFEST = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: from-the-card, namespace: default}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kitchen:
    machine: Machine
    wire: Wire
    key: Path
    cluster: Cluster

    def ssh(self, command: str) -> "subprocess.CompletedProcess[str]":
        """With the key, to a host whose own key is known by its fingerprint on the card."""
        argv = ["ssh", "-p", str(self.machine.port(22)), "-i", str(self.key), "-oBatchMode=yes"]
        argv += ["-oIdentitiesOnly=yes", f"-oUserKnownHostsFile={self.key.parent}/known_hosts"]
        argv += ["root@127.0.0.1", command]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=900)


def make_key(folder: Path, name: str) -> tuple[Path, str]:
    path = folder / name
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me@laptop", "-f", str(path)]
    subprocess.run(argv, check=True)
    return path, path.with_suffix(".pub").read_text().strip()


@pytest.fixture(scope="module")
def kitchen(releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kitchen]:
    if not shutil.which("ssh"):
        pytest.skip("not installed: openssh-client")
    folder = tmp_path_factory.mktemp("kitchen")
    path, key = make_key(folder, "key")
    (folder / "pinnace.yaml").write_text(CONFIG.format(key=key, mac=MAC.upper()))
    (folder / "manifests").mkdir()
    (folder / "manifests/card.yaml").write_text(MANIFEST)
    card = folder / "card.img"
    argv = [sys.executable, "-m", "node", "image", "flash", f"--image={releases.disk}"]
    argv += [f"--config={folder}/pinnace.yaml", str(card)]
    subprocess.run(argv, check=True, cwd=ROOT)
    with Wire("10.9.9.1") as wire:
        machine = Machine(
            folder=folder / "machine", image=card, network="restricted", options=wire.options
        )
        with machine:
            machine.start()
            started(machine)
            cluster = Cluster(machine=machine, kubeconfig=folder / "kubeconfig")
            yield Kitchen(machine=machine, wire=wire, key=path, cluster=cluster)


def started(machine: Machine) -> None:
    """The shell is there before anything else: wait for the whole."""
    machine.wait_shell(900)
    machine.run("systemctl is-system-running --wait", seconds=900, check=False)


def test_the_machine_is_what_the_file_says(kitchen: Kitchen) -> None:
    run = kitchen.machine.run
    assert run("cat /etc/hostname; hostname").split() == ["kitchen", "kitchen"]
    assert "10.9.9.2/24" in run("ip -4 -brief address")
    assert run("readlink /etc/localtime").endswith("/Europe/Berlin")
    assert run("stat -c %a /etc/pinnace/token /etc/pinnace/config.yaml.d/*").split() == ["600"] * 2
    assert run("systemctl --failed --no-legend --plain") == ""


def test_it_answers_by_its_name(kitchen: Kitchen) -> None:
    assert kitchen.wire.resolve("kitchen.local", seconds=300) == {"10.9.9.2"}
    assert kitchen.wire.resolve("cellar.local", seconds=5) == set()


def test_the_first_kubeconfig_comes_by_ssh(kitchen: Kitchen) -> None:
    kitchen.machine.until(r"The node kitchen is ready", 900)
    status = kitchen.machine.run("cat /boot/pinnace/status.txt")
    (fingerprint,) = re.findall(r"ED25519 (SHA256:\S+)", status)
    scan = ["ssh-keyscan", "-t", "ed25519", "-p", str(kitchen.machine.port(22)), "127.0.0.1"]
    known = subprocess.run(scan, capture_output=True, text=True, check=True, timeout=300).stdout
    hosts = kitchen.key.parent / "known_hosts"
    hosts.write_text(known)
    argv = ["ssh-keygen", "-l", "-f", str(hosts)]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert fingerprint in shown
    done = kitchen.ssh("pinnace kubeconfig")
    assert done.returncode == 0, done.stderr
    # Where SSH reached it; from here that is behind the forwarded port.
    assert "server: https://10.0.2.15:6443" in done.stdout
    assert "current-context: kitchen" in done.stdout
    done = kitchen.ssh(f"pinnace kubeconfig --server=127.0.0.1:{kitchen.machine.port(6443)}")
    kitchen.cluster.kubeconfig.write_text(done.stdout)
    kitchen.cluster.ready()
    [node] = kitchen.cluster.get("nodes")["items"]
    assert node["metadata"]["name"] == "kitchen"
    assert node["metadata"]["labels"]["room"] == "kitchen"


def test_manifests_of_the_card_are_applied(kitchen: Kitchen) -> None:
    wanted = {"inline", "from-the-card"}

    def are_there() -> bool:
        found = kitchen.cluster.get("configmaps", "-n", "default")["items"]
        return wanted <= {item["metadata"]["name"] for item in found}

    kitchen.cluster.until(are_there)


def test_nobody_gets_in_without_the_key(kitchen: Kitchen, tmp_path: Path) -> None:
    other, _ = make_key(tmp_path, "other")
    argv = ["ssh", "-p", str(kitchen.machine.port(22)), "-i", str(other), "-oIdentitiesOnly=yes"]
    argv += ["-oBatchMode=yes", f"-oUserKnownHostsFile={kitchen.key.parent}/known_hosts"]
    done = subprocess.run(
        [*argv, "root@127.0.0.1", "true"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 255
    assert "Permission denied (publickey)" in done.stderr


def test_the_card_says_how_the_machine_is_reached(kitchen: Kitchen) -> None:
    kitchen.cluster.until(
        lambda: "10.0.2.15" in kitchen.machine.run("cat /boot/pinnace/status.txt"), 300
    )
    said = kitchen.machine.run("cat /boot/pinnace/status.txt; grep /boot/pinnace /proc/mounts")
    for word in ("kitchen.local", "10.9.9.2", "ssh root@kitchen.local pinnace kubeconfig"):
        assert word in said
    assert " ro," in said.splitlines()[-1]
    assert "TROUBLE" not in said


def test_what_is_edited_on_the_card_holds_at_the_next_boot(kitchen: Kitchen) -> None:
    machine = kitchen.machine
    machine.shutdown(600)
    key = kitchen.key.with_suffix(".pub").read_text().strip()
    changed = f"hostname: cellar\nssh:\n  keys: {key}\ndisable: [traefik]\n"
    machine.put({"pinnace.yaml": changed.encode()})
    machine.start()
    started(machine)
    assert machine.run("hostname") == "cellar"
    assert "10.9.9.2" not in machine.run("ip -4 -brief address")
    assert machine.run("readlink /etc/localtime").endswith("/Etc/UTC")
    assert machine.run("ls /etc/pinnace/token", check=False).endswith("No such file or directory")
    machine.until(r"The node kitchen is ready", 900)
    kitchen.cluster.ready()
    [node] = kitchen.cluster.get("nodes")["items"]
    assert node["metadata"]["name"] == "kitchen"  # as it was registered first


def test_mistakes_leave_the_machine_as_it_was_and_are_said(kitchen: Kitchen) -> None:
    machine = kitchen.machine
    machine.shutdown(600)
    machine.put({"pinnace.yaml": b"hostname: a_b\nnetwork:\n  eth0: {address: 10.0.0.300/24}\n"})
    machine.start()
    started(machine)
    machine.until(r"line 1: hostname: 'a_b' is no host name", 300)
    machine.until(r"line 3: network.eth0.address: '10.0.0.300/24' is no address", 60)
    assert machine.run("hostname") == "cellar"
    assert kitchen.ssh("hostname").stdout == "cellar\n"
    machine.shutdown(600)
    said = machine.take("status.txt").decode()
    assert "the last good settings stay" in said
    assert "10.0.0.300/24" in said


def test_a_name_that_somebody_has_is_left_and_the_other_one_told(kitchen: Kitchen) -> None:
    machine = kitchen.machine
    if machine.runs:
        machine.shutdown(600)
    key = kitchen.key.with_suffix(".pub").read_text().strip()
    config = (
        f'hostname: twin\nssh:\n  keys: {key}\nnetwork: {{"{MAC}": {{address: 10.9.9.2/24}}}}\n'
    )
    machine.put({"pinnace.yaml": config.encode()})
    machine.start()
    other = kitchen.wire.defend("twin.local", "10.9.9.77", 900)
    assert other.startswith("twin")
    started(machine)
    assert kitchen.wire.resolve(other, seconds=300) == {"10.9.9.2"}
    assert other in machine.run("pinnace status")
