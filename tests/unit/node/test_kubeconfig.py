"""The kubeconfig for another computer: its address, its names, and the wait for the node."""

from pathlib import Path

import pytest
import yaml

from controlplane.pki.kubeconfig import embedded
from node import kubeconfig, settings
from node.settings import UsageError

CONTENT = embedded("https://127.0.0.1:6443", ca=b"ca", certificate=b"crt", key=b"key").decode()


def of(asked: str = "", ssh: str = "") -> str:
    return kubeconfig.address(asked, ssh, host="kitchen", port=6443)


@pytest.mark.parametrize(
    ("ssh", "url"),
    [
        ("192.168.1.5 50000 192.168.1.20 22", "https://192.168.1.20:6443"),
        ("2001:db8::5 50000 2001:db8::20 22", "https://[2001:db8::20]:6443"),
        ("::ffff:10.0.0.5 1 ::ffff:10.0.0.20 22", "https://10.0.0.20:6443"),
        ("fe80::5%eth0 1 fe80::20%eth0 22", "https://kitchen.local:6443"),
        ("127.0.0.1 1 127.0.0.1 22", "https://kitchen.local:6443"),
        ("", "https://kitchen.local:6443"),
        ("nonsense", "https://kitchen.local:6443"),
    ],
)
def test_the_address_is_where_ssh_reached_the_machine(ssh: str, url: str) -> None:
    assert of(ssh=ssh) == url


@pytest.mark.parametrize(
    ("asked", "url"),
    [
        ("kitchen.local", "https://kitchen.local:6443"),
        ("10.0.0.1:8443", "https://10.0.0.1:8443"),
        ("2001:db8::1", "https://[2001:db8::1]:6443"),
        ("[2001:db8::1]:443", "https://[2001:db8::1]:443"),
        ("https://k8s.example.com", "https://k8s.example.com:6443"),
    ],
)
def test_an_address_that_is_asked_for_is_taken(asked: str, url: str) -> None:
    assert of(asked, ssh="1.1.1.1 1 2.2.2.2 22") == url


@pytest.mark.parametrize("asked", ["http://a", "a b", "https://a/path", "a:port", "[::1"])
def test_what_is_no_address_is_refused(asked: str) -> None:
    with pytest.raises(UsageError, match="is no address"):
        of(asked)


def test_names_are_the_hosts_so_that_several_clusters_fit_into_one_file() -> None:
    text = kubeconfig.renamed(CONTENT, server="https://10.0.0.1:6443", name="kitchen")
    read = yaml.safe_load(text)
    assert read["current-context"] == "kitchen"
    assert read["clusters"][0]["name"] == read["contexts"][0]["context"]["cluster"] == "kitchen"
    assert read["users"][0]["name"] == read["contexts"][0]["context"]["user"] == "kitchen"
    assert read["clusters"][0]["cluster"]["server"] == "https://10.0.0.1:6443"
    assert read["users"][0]["user"] == yaml.safe_load(CONTENT)["users"][0]["user"]


def test_flags_are_told_from_those_of_the_node() -> None:
    wanted, rest = kubeconfig.parse(["--server", "a", "--wait=0", "--data-dir=/x", "--name=n"])
    assert (wanted.server, wanted.wait, wanted.name) == ("a", 0.0, "n")
    assert rest == ["--data-dir=/x"]
    for bad in (["--server"], ["--wait=soon"], ["--name=a b"]):
        with pytest.raises(UsageError):
            kubeconfig.parse(bad)


def test_a_node_that_never_started_is_named_after_the_wait(tmp_path: Path) -> None:
    read = settings.read("server", [f"--data-dir={tmp_path}", "--config=/dev/null"], {})
    wanted, _ = kubeconfig.parse(["--wait=0.2"])
    with pytest.raises(UsageError, match="it has no certificates yet"):
        kubeconfig.run(wanted, read, "", say=print, warn=print)


def test_without_the_wait_the_missing_file_is_named(tmp_path: Path) -> None:
    flags = ["--config=/dev/null", f"--write-kubeconfig={tmp_path}/k"]
    wanted, _ = kubeconfig.parse(["--wait=0"])
    with pytest.raises(UsageError, match="has the node been started"):
        kubeconfig.run(wanted, settings.read("server", flags, {}), "", say=print, warn=print)
