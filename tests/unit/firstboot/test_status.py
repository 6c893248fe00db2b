"""What screen and card say, and that they are not written to while nothing changed."""

import base64
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from node.firstboot import keys, publish, status
from node.firstboot.places import Places
from node.firstboot.status import FAILING, READY, STARTING, Status
from tests.unit.firstboot.files import KEY

CALM = Status(
    hostname="kitchen",
    mdns_name="kitchen.local",
    node_name="kitchen",
    version="v1.36.3+pinnace1",
    slot="a",
    board="rpi-arm64",
    state=READY,
    reason="",
    addresses=(("eth0", "192.168.1.20"), ("eth0", "2001:db8::20")),
    fingerprints=("ED25519 SHA256:abc",),
    has_keys=True,
    source="file",
    problems=(),
    faults=(),
)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    (tmp_path / "card").mkdir()
    (tmp_path / "run").mkdir()
    return Places(
        partition=tmp_path / "card",
        root=tmp_path / "root",
        run=tmp_path / "run",
        sys=tmp_path / "sys",
    )


def test_the_file_says_how_to_get_in() -> None:
    text = status.as_file(CALM)
    for said in ("192.168.1.20 (eth0)", "kitchen.local", "SHA256:abc", "slot a", "rpi-arm64"):
        assert said in text
    assert "ssh root@kitchen.local pinnace kubeconfig > kubeconfig" in text
    assert "TROUBLE" not in text


def test_the_file_is_the_same_while_the_node_starts() -> None:
    assert status.as_file(replace(CALM, state=STARTING)) == status.as_file(CALM)
    assert status.as_screen(replace(CALM, state=STARTING)) != status.as_screen(CALM)


def test_without_a_key_it_says_that_nobody_can_log_in() -> None:
    assert "Nobody can log in" in status.as_file(replace(CALM, has_keys=False))


def test_mistakes_and_faults_are_shown_without_control_characters() -> None:
    bad = replace(CALM, source="last good", problems=("line 1: \x1b[2Jx",), faults=("a\nb",))
    for text in (status.as_file(bad), status.as_screen(bad)):
        assert "the last good settings stay" in text
        assert "line 1: ?[2Jx" in text
        assert "a b" in text
        assert "\x1b" not in text


def test_a_node_that_does_not_start_says_so_everywhere() -> None:
    failing = replace(CALM, state=FAILING, reason="no \x1b[31mcontroller " + "x" * 999)
    for text in (status.as_file(failing), status.as_screen(failing)):
        assert "journalctl -u pinnace" in text
        assert "no ?[31mcontroller xxx" in text
        assert max(map(len, text.splitlines())) < 320


def test_addresses_of_pods_and_of_links_alone_are_not_shown() -> None:
    found = {
        "lo": ["127.0.0.1", "::1"],
        "eth0": ["192.168.1.20", "fe80::1", "2001:db8::20"],
        "cni0": ["10.42.0.1"],
        "flannel.1": ["10.42.0.0"],
        "vethabc": ["fe80::2"],
    }
    assert status.reachable(found) == (("eth0", "192.168.1.20"), ("eth0", "2001:db8::20"))


def test_the_card_is_written_to_only_when_something_lasting_changed(places: Places) -> None:
    assert publish.to_file(places, replace(CALM, state=STARTING))
    assert not publish.to_file(places, CALM)
    assert not publish.to_file(places, replace(CALM, state=STARTING, addresses=()))
    assert publish.to_file(places, replace(CALM, addresses=(("eth0", "192.168.1.21"),)))
    assert publish.to_file(places, replace(CALM, state=STARTING, problems=("x",)))
    assert publish.to_file(places, replace(CALM, state=STARTING, mdns_name="cellar.local"))
    assert not publish.to_file(places, replace(CALM, mdns_name="cellar.local", addresses=()))
    assert [path.name for path in places.partition.iterdir()] == ["status.txt"]


def test_a_console_is_written_to_once(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen, serial = tmp_path / "tty1", tmp_path / "ttyS0"
    monkeypatch.setattr(publish, "consoles", lambda _: [screen, serial])
    publish.to_consoles(places, "one\ntwo\n")
    assert serial.read_bytes() == b"\none\r\ntwo\r\n\r\n"
    assert screen.read_bytes().startswith(b"\x1b[H\x1b[2J")
    serial.unlink()
    publish.to_consoles(places, "one\ntwo\n")
    assert not serial.exists()


def test_the_screen_is_the_first_console(places: Places) -> None:
    active = places.sys / "class/tty/console/active"
    active.parent.mkdir(parents=True)
    active.write_text("tty0 ttyS0\n")
    assert publish.consoles(places.sys) == [Path("/dev/tty1"), Path("/dev/ttyS0")]


def test_a_machine_without_any_of_it_still_has_a_status(places: Places) -> None:
    found = publish.gather(places)
    assert found.hostname == "pinnace"
    assert not found.has_keys
    status.as_file(found)


def test_what_first_boot_found_is_in_the_status(places: Places) -> None:
    places.result.write_text(json.dumps({"source": "last good", "problems": ["line 1: x"]}))
    (places.run / "problem").write_text("DataRepaired: /dev/sda6 was damaged\n")
    found = publish.gather(places)
    assert (found.source, found.problems) == ("last good", ("line 1: x",))
    assert found.faults == ("DataRepaired: /dev/sda6 was damaged",)


def test_a_fingerprint_is_the_one_that_ssh_shows() -> None:
    digest = hashlib.sha256(base64.b64decode(KEY.split()[1])).digest()
    shown = base64.b64encode(digest).decode().rstrip("=")
    assert keys.fingerprint(KEY) == f"ED25519 SHA256:{shown}"
    assert keys.fingerprint("nothing") == ""
