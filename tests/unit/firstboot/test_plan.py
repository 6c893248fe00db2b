"""The files of the system that settings become."""

import json
import re
import shlex
from configparser import ConfigParser
from pathlib import Path

import pytest

from node import settings
from node.firstboot import plan as planning
from node.firstboot import schema
from node.firstboot.base import Link, Settings, Wifi, Wireless
from node.firstboot.plan import Facts, authorized, default_hostname, plan, summary
from tests.unit.firstboot.files import KEY, WHOLE

FACTS = Facts(default_hostname="pinnace-010203", node_name="")


def files(wanted: Settings, facts: Facts = FACTS) -> dict[str, str]:
    return {file.path: file.content for file in plan(wanted, facts).files}


def networks(wanted: Settings) -> dict[str, str]:
    found = files(wanted).items()
    return {name.rpartition("/")[2]: text for name, text in found if "/network/" in name}


def test_without_a_file_every_interface_asks_for_an_address() -> None:
    found = networks(Settings())
    assert set(found) == {"80-appliance-ether.network", "80-appliance-wlan.network"}
    assert all("DHCP=yes" in text and "MulticastDNS=yes" in text for text in found.values())
    assert files(Settings())["etc/hostname"] == "pinnace-010203\n"


def test_bridges_and_pods_links_are_left_alone() -> None:
    assert "Type=ether\nKind=!*" in networks(Settings())["80-appliance-ether.network"]


def test_a_cable_is_preferred_to_the_radio() -> None:
    found = networks(Settings())
    assert "RouteMetric=1024" in found["80-appliance-ether.network"]
    assert "RouteMetric=2048" in found["80-appliance-wlan.network"]


def test_what_the_whole_file_says_is_in_the_networks() -> None:
    found = networks(schema.parse(WHOLE.encode()))
    eth0 = found["20-appliance-0.network"]
    for line in (
        *("Name=eth0", "DHCP=no", "Address=192.168.1.20/24", "Address=2001:db8::20/64"),
        *("Gateway=192.168.1.1", "Gateway=fe80::1", "DNS=192.168.1.1", "Domains=lan"),
        *("MTUBytes=1400", "VLAN=eth0.10", "VLAN=eth0.20", "ConfigureWithoutCarrier=yes"),
    ):
        assert line in eth0.splitlines()
    assert "Name=eth0.10\nKind=vlan" in found["20-appliance-0-10.netdev"]
    assert "Address=10.0.20.2/24" in found["20-appliance-0-20.network"]
    assert "MACAddress=dc:a6:32:01:02:03\nKind=!*" in found["20-appliance-1.network"]
    assert "LinkLocalAddressing=no" in found["80-appliance-ether.network"]
    for text in found.values():
        parser = ConfigParser(strict=False, interpolation=None)
        parser.optionxform = str  # type: ignore[assignment, method-assign]
        parser.read_string(text)  # sections and keys


def test_a_long_name_still_has_a_name_for_its_vlan() -> None:
    link = Link(match="enx001122334455", vlans=((4000, Link(match="vlan")),))
    assert "Name=vlan4000" in networks(Settings(links=(link,)))["20-appliance-0-4000.netdev"]


def test_more_than_ten_interfaces_keep_their_order() -> None:
    links = tuple(Link(match=f"eth{n}") for n in range(12))
    found = [name for name in networks(Settings(links=links)) if not name.startswith("80")]
    assert found == sorted(found)
    assert len(found) == 12


def test_no_pass_phrase_can_leave_its_line() -> None:
    names = Wifi(country="", networks=(Wireless(ssid='a"\n}\nnetwork={', psk='ab"c\\d e#f"gh'),))
    text = files(Settings(wifi=names))[planning.WIRELESS]
    assert text.count("network={") == 2  # of WPA2 and of WPA3
    for value in re.findall(r"(?:ssid|psk|sae_password)=(.*)", text):
        assert re.fullmatch("[0-9a-f]+", value)
    assert f"sae_password={names.networks[0].psk.encode().hex()}\n" in text


def test_the_key_of_a_pass_phrase_is_the_standards() -> None:
    """IEEE 802.11-2020, annex J.4.3."""
    wifi = Wifi(country="", networks=(Wireless(ssid="IEEE", psk="password"),))
    key = "f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e"
    assert f"psk={key}\n" in files(Settings(wifi=wifi))[planning.WIRELESS]


def test_open_hidden_and_raw_keys_of_networks() -> None:
    raw = "0123456789abcdef" * 4
    networks = (Wireless(ssid="a", psk="", hidden=True), Wireless(ssid="b", psk=raw))
    text = files(Settings(wifi=Wifi(country="DE", networks=networks)))[planning.WIRELESS]
    assert "key_mgmt=NONE" in text
    assert "scan_ssid=1" in text
    assert f"  psk={raw}\n" in text
    assert "SAE" not in text
    assert text.startswith("ctrl_interface=/run/wpa_supplicant\n")


def test_the_node_takes_what_it_is_given(tmp_path: Path) -> None:
    wanted = schema.parse(WHOLE.encode())
    path = tmp_path / "10-appliance.yaml"
    path.write_text(files(wanted)[planning.NODE].replace("/etc/pinnace/token", f"{tmp_path}/t"))
    (tmp_path / "t").write_text("secret\n")
    read = settings.read("server", [f"--config={path}"], {})
    assert read["node-name"] == "kitchen"
    assert read["tls-san"] == ("kitchen.local", "kitchen", "node.example.com", "10.0.0.1")
    assert read["node-label"] == ("example.com/room=kitchen", "gpu=")
    assert read["node-taint"] == ("key=value:NoSchedule", "only=:NoExecute")
    assert (read["token"], read["max-pods"], read["disable"]) == ("secret", 50, ("traefik",))


def test_secrets_are_for_root_alone() -> None:
    found = {file.path: file.mode for file in plan(schema.parse(WHOLE.encode()), FACTS).files}
    for path in (planning.TOKEN, planning.WIRELESS, planning.REGISTRIES, planning.NODE):
        assert found[path] == 0o600


def test_nothing_secret_is_in_the_summary() -> None:
    wanted = schema.parse(WHOLE.encode())
    text = json.dumps(summary(wanted, plan(wanted, FACTS), "file"))
    assert "correct-horse" not in text
    assert "00012345" not in text
    assert json.loads(text)["usbUpdates"] is False


def test_a_node_keeps_its_name_when_the_host_gets_another() -> None:
    before = Facts(default_hostname="pinnace-010203", node_name="kitchen")
    planned = plan(Settings(hostname="cellar"), before)
    assert (planned.hostname, planned.node_name) == ("cellar", "kitchen")
    chosen = Settings(hostname="cellar", config={"node-name": "Garage"})
    assert plan(chosen, before).node_name == "garage"


@pytest.mark.parametrize(
    ("serial", "macs", "machine", "name"),
    [
        ("10000000abcdef01", ["dc:a6:32:01:02:03"], "", "pinnace-cdef01"),
        ("", ["00:00:00:00:00:00", "dc:a6:32:0a:0b:0c"], "ff", "pinnace-0a0b0c"),
        ("0000000000000000", [], "5f3c" * 8, "pinnace-3c5f3c"),
        ("", [], "", "pinnace-node"),
    ],
)
def test_a_name_is_made_of_what_stays(
    serial: str, macs: list[str], machine: str, name: str
) -> None:
    assert default_hostname(serial, macs, machine) == name


def test_keys_of_others_stay_and_ours_go() -> None:
    with_ours = authorized("ssh-ed25519 THEIRS\n", [KEY])
    assert with_ours.splitlines()[0] == "ssh-ed25519 THEIRS"
    assert KEY in with_ours
    assert authorized(with_ours, [KEY]) == with_ours
    assert authorized(with_ours, []) == "ssh-ed25519 THEIRS\n"
    assert authorized("", []) == ""
    assert shlex.split(with_ours.splitlines()[2])[1] == KEY.split()[1]
