"""What pinnace.yaml may say, and that every mistake in it is named with its line."""

import base64
import re
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from node.firstboot import keys, schema
from node.firstboot.base import ConfigError, Link, Settings, Wireless
from tests.unit.firstboot.files import KEY, WHOLE


def problems(text: str | bytes) -> Sequence[str]:
    data = text.encode() if isinstance(text, str) else text
    try:
        schema.parse(data, time_zones={"UTC", "Europe/Berlin"})
    except ConfigError as err:
        return [str(problem) for problem in err.problems]
    return []


def only(text: str | bytes) -> str:
    (found,) = problems(text)
    return found


def test_an_empty_file_means_the_defaults() -> None:
    for text in (b"", b"# nothing\n", b"---\n", b"hostname:\n", b"\xef\xbb\xbf"):
        assert schema.parse(text) == Settings()


def test_the_example_on_the_card_is_right() -> None:
    root = Path(__file__).parents[3]
    example = (root / "image-build/files/config/pinnace.yaml.example").read_text()
    assert schema.parse(example.encode()).hostname == "kitchen"
    # What is a comment there is right as well: a comment mark and one space are taken away.
    every = re.sub(r"(?m)^# (?=[ A-Za-z-]+:|  |- )", "", example)
    assert schema.parse(every.encode(), time_zones={"Europe/Berlin"}).disable == ("traefik",)


def test_every_field_is_taken() -> None:
    read = schema.parse(WHOLE.encode(), time_zones={"Europe/Berlin"})
    eth0, by_mac, default = read.links
    assert (read.hostname, read.role, read.token) == ("kitchen", "server", "correct-horse")
    assert eth0.addresses == ("192.168.1.20/24", "2001:db8::20/64")
    assert eth0.gateways == ("192.168.1.1", "fe80::1")
    assert (eth0.dhcp, eth0.mtu, eth0.search) == (False, 1400, ("lan",))
    assert eth0.vlans == ((10, Link(match="vlan")), (20, eth0.vlans[1][1]))
    assert by_mac.match == "dc:a6:32:01:02:03"
    assert default.dhcp
    assert not default.ipv6
    assert read.wifi is not None
    assert read.wifi.country == "NO"
    assert read.wifi.networks[0] == Wireless(ssid="home", psk="00012345", priority=5)
    assert read.wifi.networks[1] == Wireless(ssid="café", psk="", hidden=True)
    assert read.ssh_keys == (KEY,)
    assert read.time_servers == ("192.168.1.1", "pool.ntp.org")
    assert read.time_zone == "Europe/Berlin"
    assert [m.name for m in read.manifests] == ["apps/web.yaml", "", ""]
    assert yaml.safe_load(read.manifests[1].text)["kind"] == "Namespace"
    assert "kind: ConfigMap" in read.manifests[2].text
    assert read.registries["mirrors"]["docker.io"]["endpoint"] == ["https://mirror.lan:5000"]
    assert read.node_labels == ("example.com/room=kitchen", "gpu=")
    assert read.node_taints == ("key=value:NoSchedule", "only=:NoExecute")
    assert read.disable == ("traefik",)
    assert read.config == {"max-pods": "50", "tls-san": ["node.example.com", "10.0.0.1"]}
    assert (read.usb_updates, read.console_getty, read.watchdog) == (False, True, 120)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hostname: a_b", "line 1: hostname: 'a_b' is no host name"),
        ("hostname: kitchen.local", "without '.local'"),
        ("hostname: [a]", "must be one value, not a list"),
        ("hostnam: a", "did you mean 'hostname'?"),
        ("time_zone: UTC", "did you mean 'timeZone'?"),
        ("timeZone: Europe/Berln", "no time zone such as Europe/Berlin"),
        ("timeZone: ../../etc/shadow", "no time zone"),
        ("role: agent", "'agent' is not supported yet"),
        ("role: master", "is no role"),
        ("server: https://a:6443", "is not supported yet"),
        ("swap: 1G", "is not supported"),
        ("dataEncryption: true", "is not supported yet"),
        ("tls-san: a", "belongs under 'config'"),
        ("flannel-backend: none", "is not supported by Pinnace"),
        ("token: a b", "must be one word"),
        ("token: K10abc::server:x", "begins with K10 but is not"),
        ("token: abcdef.0123456789abcdef", "bootstrap token"),
        ("usbUpdates: perhaps", "must be true or false, not 'perhaps'"),
        ("watchdog: 5s", "neither 'off' nor 10 to 300 seconds"),
        ("timeServers: [10.0.0.300]", "no host such as"),
        ("disable: [a b]", "no name such as traefik"),
        ("nodeLabels: {room: a b}", "no value of a label"),
        ("nodeTaints: [a:Never]", "no taint such as"),
        ("console: {gety: true}", "did you mean 'getty'?"),
        ("hostname: a\nhostname: b", "line 2: hostname: is there twice; first on line 1"),
        ("ssh: {password: x}", "login is by key alone"),
        ("ssh: {keys: [x]}", "is no public key such as"),
        ("ssh: {keys: [ssh-ed25519 AAAA]}", "cut off or damaged"),
        (f"ssh: {{keys: ['{KEY.replace('ed25519 ', 'dss ')}']}}", "does not take any more"),
        ("config: {max-pods: many}", "takes a whole number"),
        ("config: {max-podz: 1}", "did you mean 'max-pods'?"),
        ("config: {data-dir: /x}", "is part of the image"),
        ("config: {node-label: [a=b]}", "stands outside of 'config' in this file, as 'nodeLabels'"),
        ("config: {secrets-encryption: true}", "is not supported by Pinnace"),
        ("config: {cluster-cidr: 10.43.0.0/16}", "overlap"),
        ("config: {max-pods: [1, 2]}", "must be one value"),
        ("manifests: {a: b}", "must be a list"),
        ("manifests: [{kind: Pod}]", "'apiVersion' and 'kind' are missing"),
        ("manifests: [/etc/shadow]", "no file or folder of this partition"),
        ("manifests: [../x]", "no file or folder of this partition"),
        ("manifests: ['a: b: c\n\n  x']", "is not YAML in its line 1"),
        ("registries: {mirrors: {docker.io: {endpoint: x}}}", "must be a list of URLs"),
        ("registries: {mirrors: {docker.io: {rewrite: {}}}}", "cannot rename images"),
        ("registries: {mirror: {}}", "here may be: configs, mirrors"),
        ("wifi: {networks: [{ssid: a}]}", "for one without any say 'open: true'"),
        ("wifi: {networks: [{ssid: a, psk: short}]}", "must have 8 to 63 characters"),
        ("wifi: {networks: [{psk: abcdefgh}]}", "needs 'ssid'"),
        ("wifi: {networks: [{ssid: a, password: abcdefgh, open: yes}]}", "is called 'psk' here"),
        ("wifi: {country: Germany, networks: []}", "no country of two letters"),
        ("wifi: {ssid: a, networks: []}", "belongs into the list 'networks'"),
        ("[1, 2]", "must be keys and values"),
    ],
)
def test_a_mistake_is_named(text: str, said: str) -> None:
    assert said in only(text)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("address: 192.168.1.300/24", "is no address such as 192.168.1.20/24"),
        ("address: 192.168.1.20", "lacks the size of its network: 192.168.1.20/24"),
        ("address: 192.168.1.0/24", "the first host of it is 192.168.1.1"),
        ("address: 192.168.1.255/24", "the address of all in that network"),
        ("address: 127.0.0.1/8", "no address that an interface can have"),
        ("address: 10.0.0.2/24\n    gateway: 10.0.1.1", "not in the network of the address"),
        ("address: 10.0.0.2/24\n    gateway: 10.0.0.2", "is the address of this machine itself"),
        ("gateway: [10.0.0.1, 10.0.0.2]", "has two of one family"),
        ("dns: [one.one.one.one]", "is no address such as"),
        ("dhcp: false", "it would have none"),
        ("dhcp4: true", "is called 'dhcp' here"),
        ("netmask: 255.255.255.0", "written with the address"),
        ("mtu: 100", "from 576 to 65535"),
        ("mtu: 1000", "below 1280, which IPv6 needs"),
        ("search: [a b]", "no domain such as"),
        ("vlans: {5000: {}}", "no VLAN from 1 to 4094"),
        ("vlans: {5: {vlans: {6: {}}}}", "is unknown"),
        ("address: ['2001:db8::1/64']\n    ipv6: false", "although an address is of IPv6"),
    ],
)
def test_a_mistake_in_a_network_is_named(section: str, said: str) -> None:
    found = only(f"network:\n  eth0:\n    {section}\n")
    assert said in found
    assert "network.eth0" in found


def test_an_address_for_every_interface_is_refused() -> None:
    assert "so that several would have it" in only("network: {default: {address: 10.0.0.2/24}}")


def test_two_interfaces_with_one_address_are_refused() -> None:
    text = "network: {eth0: {address: 10.0.0.2/24}, eth1: {address: 10.0.0.2/16}}"
    assert "10.0.0.2 is the address of eth0 and of eth1" in only(text)


def test_an_interface_that_comes_under_two_spellings_is_refused() -> None:
    text = "network: {'AA:BB:CC:00:00:01': {}, 'aa-bb-cc-00-00-01': {dhcp: true}}"
    assert "once more" in only(text)


def test_all_mistakes_come_at_once_and_in_the_order_of_lines() -> None:
    text = "swap: 1\nhostname: A_\nnetwork:\n  eth0:\n    address: x\n    mtu: 1\ntoken: a b\n"
    assert [p.partition(":")[0] for p in problems(text)] == [f"line {n}" for n in (1, 2, 5, 6, 7)]


def test_a_secret_is_never_shown() -> None:
    networks = "[{ssid: a, psk: geheim}, {ssid: b, psk: 'ü234567890'}]"
    text = f"token: very secret\nwifi: {{networks: {networks}}}"
    said = " ".join(problems(text))
    assert "very" not in said
    assert "geheim" not in said
    assert "234567" not in said


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_files_of_any_editor_are_read(encoding: str) -> None:
    text = "hostname: kitchen\r\nwifi:\r\n  networks: [{ssid: café, psk: 12345678}]\r\n"
    read = schema.parse(text.encode(encoding))
    assert read.hostname == "kitchen"
    assert read.wifi is not None
    assert read.wifi.networks[0].ssid == "café"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"network:\n\teth0: {}\n\teth1: {}\n", "line 2: is not YAML: a tab"),
        (b"hostname: \xe4\n", "is not in UTF-8"),
        (b"\0" * 100, "nothing but zeros"),
        (b"hostname: a\n\0\0", "line 2: has zeros in it"),
        (b"a: b: c", "a ':' too many"),
        (b'a: "b', "a quote that is not closed"),
        ("hostname: “kitchen”".encode(), "curly quotes"),
        ("disable: [a, “x, y]: ”".encode(), "curly quotes"),
        (b"hostname: a\n---\nhostname: b\n", "line 3: begins a second document"),
        (b"a: &a [*a]", "anchors and aliases"),
        (b"[" * 100_000, "values within each other"),
        (b"{a: " * 60, "values within each other"),
        (b"x" * (5 << 20), "is larger than 4 MiB"),
    ],
)
def test_what_is_no_text_or_no_yaml_is_named(data: bytes, said: str) -> None:
    assert said in problems(data)[0]


def test_every_line_with_a_tab_is_named() -> None:
    assert len(problems(b"network:\n\teth0: {}\n\teth1: {}\n")) == 2


def _rsa(bits: int) -> str:
    parts = (b"ssh-rsa", b"\1\0\1", b"\0" + b"\xff" * (bits // 8))
    blob = b"".join(struct.pack(">I", len(part)) + part for part in parts)
    return f"ssh-rsa {base64.b64encode(blob).decode()} me"


def test_a_short_rsa_key_is_refused_and_a_long_one_taken() -> None:
    assert "less than 2048 bits" in keys.wrong_with(_rsa(1024))
    assert keys.wrong_with(_rsa(3072)) == ""
    assert "private key" in keys.wrong_with("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert keys.wrong_with(f'from="10.0.0.0/8" {KEY}') == ""


_words = st.sampled_from(
    """hostname network default eth0 address gateway dns mtu vlans wifi networks ssid psk ssh keys
    role token timeServers timeZone manifests registries mirrors configs nodeLabels nodeTaints
    disable config max-pods tls-san usbUpdates console getty watchdog""".split()
)
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.dates()
    | st.text(max_size=20)
    | st.sampled_from(["192.168.1.2/24", "2001:db8::1", "x" * 300, KEY, "server"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(_words | st.text(max_size=8), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(st.dictionaries(_words, _values, max_size=8))
@settings(max_examples=120, deadline=None)
def test_any_yaml_gives_settings_or_mistakes(content: dict[str, object]) -> None:
    text = yaml.safe_dump(content, allow_unicode=True)
    assert all("\n" not in said for said in problems(text))


@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_settings_or_mistakes(data: bytes) -> None:
    assert all("\n" not in said for said in problems(data))


_hosts = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True).filter(
    lambda name: name != "localhost"
)
_ascii = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=8, max_size=63)
_ssids = st.text(
    st.characters(blacklist_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=8
)
_labels = st.dictionaries(
    st.from_regex(r"[a-z]([a-z0-9.-]{0,10}[a-z0-9])?", fullmatch=True),
    st.from_regex(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,10}[A-Za-z0-9])?)?", fullmatch=True),
    max_size=4,
)


@given(
    hostname=_hosts,
    networks=st.dictionaries(_ssids, _ascii, min_size=1, max_size=3),
    labels=_labels,
    last=st.lists(st.integers(2, 254), min_size=1, max_size=4, unique=True),
    seconds=st.integers(10, 300),
    style=st.sampled_from([None, True, False]),
)
@settings(max_examples=50, deadline=None)
def test_what_is_right_reads_back_as_it_was_meant(
    *,
    hostname: str,
    networks: dict[str, str],
    labels: dict[str, str],
    last: list[int],
    seconds: int,
    style: bool | None,
) -> None:
    addresses = [f"10.1.2.{n}/24" for n in last]
    wifi = {"networks": [{"ssid": name, "psk": psk} for name, psk in networks.items()]}
    content = {
        "hostname": hostname,
        "wifi": wifi,
        "nodeLabels": labels,
        "network": {"eth7": {"address": addresses, "gateway": "10.1.2.1"}},
        "watchdog": seconds,
    }
    text = yaml.safe_dump(content, allow_unicode=True, default_flow_style=style, width=1000)
    read = schema.parse(text.encode())
    assert read.hostname == hostname
    assert read.wifi is not None
    assert {network.ssid: network.psk for network in read.wifi.networks} == networks
    assert read.node_labels == tuple(f"{key}={labels[key]}" for key in sorted(labels))
    assert read.links[0].addresses == tuple(addresses)
    assert read.watchdog == seconds
