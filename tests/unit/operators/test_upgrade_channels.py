"""Signed channels, folders of bundles and K3s's channel servers, from real servers and folders."""

import base64
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from operators.upgrade.base import Offer, OfferError
from operators.upgrade.channels import signed
from operators.upgrade.channels.run import SignedChannels

Object = dict[str, Any]
NOW = datetime(2026, 11, 24, tzinfo=UTC)
SECRET = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
OTHER = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
V3, V4, V4B = "v1.36.3+pinnace1", "v1.36.4+pinnace1", "v1.36.4+pinnace2"


def public(key: Ed25519PrivateKey) -> str:
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def pem(key: Ed25519PrivateKey) -> str:
    found = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return found.decode()


KEY = public(SECRET)


def bundle(version: str, board: str) -> Object:
    return {"url": f"pinnace-{version}-{board}.raucb", "sha256": "a" * 64, "size": 7}


def document(**changes: Any) -> Object:
    releases = [
        {"version": v, "date": "2026-11-24", "notes": "", "bundles": {b: bundle(v, b) for b in bs}}
        for v, bs in ((V3, ("x86-64", "rpi-arm64")), (V4, ("x86-64",)), (V4B, ("x86-64",)))
    ]
    found = {"schema": 1, "name": "stable", "serial": 5, "latest": V4, "releases": releases}
    return {name: value for name, value in {**found, **changes}.items() if value is not None}


def files(key: Ed25519PrivateKey = SECRET, **changes: Any) -> dict[str, bytes]:
    data = json.dumps(document(**changes)).encode()
    return {"channel.json": data, "channel.json.sig": base64.b64encode(key.sign(data))}


def folder(path: Path, there: Mapping[str, bytes]) -> str:
    path.mkdir(exist_ok=True)
    for name, data in there.items():
        (path / name).write_bytes(data)
    return str(path)


@dataclass
class Server:
    """Serves ``there`` below /stable/; ``asked`` are (method, path, status)."""

    there: dict[str, bytes]
    asked: list[tuple[str, str, int]] = field(default_factory=list)
    once: dict[str, bytes] = field(default_factory=dict)  # instead, the first time
    no_head: bool = False
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/stable"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        answer = self._answer(request)
        self.asked.append((request.method, request.path, answer.status))
        return answer

    def _answer(self, request: web.Request) -> web.Response:
        name = request.path.rpartition("/stable/")[2]
        if name == "moved":
            return web.Response(status=302, headers={"Location": "https://x/tag/v1.36.4+k3s1"})
        data = self.once.pop(name, None) or self.there.get(name)
        if data is None:
            return web.Response(status=404)
        if request.method == "HEAD" and self.no_head:
            return web.Response(status=405)
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304)
        if "Range" in request.headers:
            headers = {"Content-Range": f"bytes 0-0/{len(data)}"}
            return web.Response(status=206, body=data[:1], headers=headers)
        return web.Response(body=data, headers={"ETag": etag})


@asynccontextmanager
async def serving(there: Mapping[str, bytes] | None = None) -> AsyncIterator[Server]:
    server = Server(dict(files() if there is None else there))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        await runner.cleanup()


def channels(**more: Any) -> SignedChannels:
    return SignedChannels(
        now=lambda: more.pop("at", NOW), keyrings=more.pop("keyrings", ()), **more
    )


async def offers(spec: Object, *boards: str, serial: int = 0, **more: Any) -> Mapping[str, Offer]:
    return await channels(**more).offers(spec, boards or ("x86-64",), serial=serial)


async def refused(spec: Object, *boards: str, serial: int = 0, **more: Any) -> tuple[str, str]:
    with pytest.raises(OfferError) as caught:
        await offers(spec, *boards, serial=serial, **more)
    assert "\n" not in str(caught.value)
    return caught.value.reason, str(caught.value)


async def test_a_folder_offers_what_its_channel_calls_the_latest(tmp_path: Path) -> None:
    place = folder(tmp_path / "stable", files())
    for spelled in (place, f"file://{place}", f"{place}/channel.json"):
        found = await offers({"channel": spelled, "channelKey": KEY})
        path = f"{place}/pinnace-{V4}-x86-64.raucb"
        assert found == {"x86-64": Offer(version=V4, url=path, sha256="a" * 64, size=7, serial=5)}


async def test_a_server_offers_addresses_beside_its_channel() -> None:
    async with serving() as server:
        for spelled in (server.url, f"{server.url}/", f"{server.url}/channel.json"):
            found = await offers({"channel": spelled, "channelKey": pem(SECRET)})
            assert found["x86-64"].url == f"{server.url}/pinnace-{V4}-x86-64.raucb"


async def test_an_address_may_be_whole_but_no_file_of_a_node(tmp_path: Path) -> None:
    def one(url: str) -> dict[str, bytes]:
        release = {"version": V4, "bundles": {"x86-64": bundle(V4, "x86-64") | {"url": url}}}
        return files(releases=[release])

    place = folder(tmp_path / "a", one("https://elsewhere.example/x.raucb"))
    found = await offers({"channel": place, "channelKey": KEY})
    assert found["x86-64"].url == "https://elsewhere.example/x.raucb"
    async with serving(one("file:///etc/shadow")) as server:
        spec = {"channel": server.url, "channelKey": KEY}
        assert (await refused(spec))[0] == "BadChannel"


async def test_an_unchanged_channel_costs_one_small_request() -> None:
    async with serving() as server:
        asking, spec = channels(), {"channel": server.url, "channelKey": KEY}
        for _ in range(3):
            assert (await asking.offers(spec, ["x86-64"]))["x86-64"].version == V4
        assert [(path, status) for _, path, status in server.asked] == [
            ("/stable/channel.json", 200),
            ("/stable/channel.json.sig", 200),
            ("/stable/channel.json", 304),
            ("/stable/channel.json", 304),
        ]
        server.there = files(latest=V4B, serial=6)
        found = await asking.offers(spec, ["x86-64"], serial=5)
        assert (found["x86-64"].version, found["x86-64"].serial) == (V4B, 6)


async def test_what_is_not_signed_by_the_key_is_refused(tmp_path: Path) -> None:
    spec = {"channel": folder(tmp_path / "a", files(OTHER)), "channelKey": KEY}
    said = "channel.json: the signature is of another key, or of another text"
    assert await refused(spec) == ("BadSignature", said)
    assert await offers(spec | {"channelKey": f"{KEY}\n{public(OTHER)}"})
    for wrong in (b"", b"x" * 64, b"no base64"):
        (tmp_path / "a" / "channel.json.sig").write_bytes(wrong)
        assert (await refused(spec))[0] == "BadSignature"
    (tmp_path / "a" / "channel.json.sig").unlink()
    reason, said = await refused(spec)
    assert reason == "BadSignature"
    assert said.endswith("channel.json.sig is not there: not signed")


async def test_one_flipped_bit_is_noticed(tmp_path: Path) -> None:
    there = files()
    for position in range(0, len(there["channel.json"]), 97):
        data = bytearray(there["channel.json"])
        data[position] ^= 1
        place = folder(tmp_path / "a", {**there, "channel.json": bytes(data)})
        assert (await refused({"channel": place, "channelKey": KEY}))[0] == "BadSignature"


async def test_a_signature_may_be_bytes(tmp_path: Path) -> None:
    there = files()
    there["channel.json.sig"] = base64.b64decode(there["channel.json.sig"])
    assert await offers({"channel": folder(tmp_path / "a", there), "channelKey": KEY})


async def test_the_machines_own_keys_count_where_the_plan_names_none(tmp_path: Path) -> None:
    ring = tmp_path / "channel.pem"
    spec = {"channel": folder(tmp_path / "a", files())}
    reason, said = await refused(spec, keyrings=[ring])
    assert (reason, said.split(",")[0]) == ("BadSignature", "no channelKey is given")
    ring.write_text(f"# ours\n{pem(OTHER)}\n{pem(SECRET)}")
    assert await offers(spec, keyrings=[tmp_path / "none.pem", ring])
    ring.write_text("nonsense")
    assert f"{ring}: this is no public key" in (await refused(spec, keyrings=[ring]))[1]


async def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    curve = generate_private_key(SECP256R1()).public_key()
    text = curve.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    spec = {"channel": folder(tmp_path / "a", files()), "channelKey": text}
    assert await refused(spec) == (
        "BadSignature",
        "channelKey: this is a public key, but none of Ed25519",
    )


async def test_a_file_of_before_beside_a_new_signature_is_fetched_again() -> None:
    async with serving() as server:
        server.once["channel.json.sig"] = b"x" * 64
        assert await offers({"channel": server.url, "channelKey": KEY})
        assert len(server.asked) == 4


async def test_an_old_channel_is_noticed(tmp_path: Path) -> None:
    spec = {"channel": folder(tmp_path / "a", files()), "channelKey": KEY}
    assert (await offers(spec, serial=5))["x86-64"].serial == 5
    assert await refused(spec, serial=6) == (
        "OldChannel",
        "channel stable has serial 5, and had 6 before: it is an old one",
    )


async def test_a_channel_may_end(tmp_path: Path) -> None:
    there = files(expires="2026-11-25T00:00:00Z")
    spec = {"channel": folder(tmp_path / "a", there), "channelKey": KEY}
    assert await offers(spec)
    late = datetime(2026, 11, 25, 0, 0, 1, tzinfo=UTC)
    with pytest.raises(OfferError) as caught:
        await SignedChannels(now=lambda: late).offers(spec, ["x86-64"])
    assert caught.value.reason == "ChannelExpired"


async def test_a_board_without_a_bundle_is_left_out_or_named(tmp_path: Path) -> None:
    spec = {"channel": folder(tmp_path / "a", files()), "channelKey": KEY}
    assert set(await offers(spec, "x86-64", "rpi-arm64")) == {"x86-64"}
    assert await refused(spec, "rpi-arm64") == (
        "NoBundleForBoard",
        f"channel stable has {V4} for x86-64, not for rpi-arm64",
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": 2}, "schema 2 is not understood here"),
        ({"serial": None}, "'serial' is missing"),
        ({"serial": 0}, "serial must be a number from 1 on"),
        ({"latest": "v9.9.9+pinnace1"}, "latest is v9.9.9+pinnace1, which is not among"),
        ({"releases": [{"version": "../x", "bundles": {}}]}, "'../x' is no version"),
        ({"releases": 5}, "not iterable"),
        ({"expires": "soon"}, "Invalid isoformat"),
        (
            {
                "releases": [
                    {"version": V4, "bundles": {"x": {"url": "a", "sha256": "b", "size": 1}}}
                ]
            },
            "'b' is no sha256",
        ),
    ],
)
async def test_a_signed_channel_that_makes_no_sense_is_said_so(
    changes: Object, said: str, tmp_path: Path
) -> None:
    spec = {"channel": folder(tmp_path / "a", files(**changes)), "channelKey": KEY}
    reason, message = await refused(spec)
    assert reason == "BadChannel"
    assert said in message


async def test_a_channel_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    reason, said = await refused({"channel": str(tmp_path), "channelKey": KEY})
    assert (reason, said) == ("ChannelUnreachable", f"{tmp_path}: there is no channel.json")
    assert (await refused({"channel": "ftp://x/y", "channelKey": KEY}))[0] == "ChannelUnreachable"
    async with serving({}) as server:
        pass
    secret = server.url.replace("http://", "http://me:secret@")
    reason, said = await refused({"channel": secret, "channelKey": KEY})
    assert reason == "ChannelUnreachable"
    assert "secret" not in said


async def test_a_channel_is_bounded() -> None:
    async with serving({**files(), "channel.json": b" " * (1 << 20) + b"x"}) as server:
        reason, said = await refused({"channel": server.url, "channelKey": KEY})
    assert (reason, "larger than 1024 KiB" in said) == ("ChannelUnreachable", True)


async def test_a_version_may_be_one_of_a_signed_channel(tmp_path: Path) -> None:
    spec = {"source": folder(tmp_path / "a", files()), "channelKey": KEY}
    exact = await offers(spec | {"version": V3}, "x86-64", "rpi-arm64")
    assert {offer.version for offer in exact.values()} == {V3}
    by_name = {"source": f"{tmp_path}/a/channel.json", "version": V3}
    (tmp_path / "ring").write_text(KEY)
    assert (await offers(by_name, keyrings=[tmp_path / "ring"]))["x86-64"].serial == 5
    assert await refused(spec | {"version": "v1.36.9"}) == (
        "NoSuchVersion",
        "channel stable has no v1.36.9",
    )


# A version from a folder of bundles


def bundles(*names: str) -> dict[str, bytes]:
    found = {f"pinnace-{name}.raucb": name.encode() for name in names}
    digests = {f"{name}.sha256": _sum(name, data) for name, data in found.items()}
    return found | digests


def _sum(name: str, data: bytes) -> bytes:
    return f"{hashlib.sha256(data).hexdigest()}  {name}\n".encode()


async def test_a_version_is_found_by_its_name_in_a_folder(tmp_path: Path) -> None:
    name = f"{V4}-x86-64"
    place = folder(tmp_path / "a", bundles(name, f"{V3}-x86-64", f"{V3}-rpi-arm64"))
    found = await offers({"source": f"file://{place}", "version": V4})
    digest = hashlib.sha256(name.encode()).hexdigest()
    path = f"{place}/pinnace-{name}.raucb"
    assert found == {"x86-64": Offer(version=V4, url=path, sha256=digest, size=len(name))}
    (tmp_path / "a" / f"pinnace-{name}.raucb.sha256").unlink()
    assert (await offers({"source": place, "version": V4}))["x86-64"].sha256 == ""
    assert set(await offers({"source": place, "version": V4}, "x86-64", "rpi-arm64")) == {"x86-64"}
    reason, said = await refused({"source": place, "version": V4B})
    assert (reason, said) == ("NoSuchVersion", f"{place} has no pinnace-{V4B}-x86-64.raucb")


@pytest.mark.parametrize("no_head", [False, True])
async def test_a_version_is_found_by_its_name_on_a_server(no_head: bool) -> None:
    name = f"{V4}-x86-64"
    async with serving(bundles(name)) as server:
        server.no_head = no_head
        found = (await offers({"source": server.url, "version": V4}))["x86-64"]
        assert found.url == f"{server.url}/pinnace-v1.36.4%2Bpinnace1-x86-64.raucb"
        assert (found.size, found.sha256) == (
            len(name),
            hashlib.sha256(name.encode()).hexdigest(),
        )
        assert (await refused({"source": server.url, "version": V3}))[0] == "NoSuchVersion"


async def test_a_version_names_a_file_of_its_source_only(tmp_path: Path) -> None:
    spec = {"source": str(tmp_path / "a"), "version": "../../x"}
    assert (await refused(spec))[0] == "NoSuchVersion"
    assert (await refused({"version": V4})) == (
        "NoSuchVersion",
        "a version needs a source to get it from",
    )


# Nodes that a Job upgrades


async def test_a_job_needs_a_version_alone() -> None:
    found = await offers({"version": "v1.36.4+k3s1"}, "")
    assert found == {"": Offer(version="v1.36.4+k3s1", url="", sha256="", size=0)}


async def test_k3ss_channel_servers_name_a_version_by_where_they_send_to() -> None:
    async with serving({"v1.35.9+k3s2": b"a page"}) as server:
        moved = await offers({"channel": f"{server.url}/moved"}, "")
        assert moved[""].version == "v1.36.4+k3s1"
        stays = await offers({"channel": f"{server.url}/v1.35.9+k3s2"}, "")
        assert stays[""].version == "v1.35.9+k3s2"
        server.there["latest"] = b"a page"
        assert (await refused({"channel": f"{server.url}/latest"}, ""))[0] == "NoSuchVersion"
        reason, said = await refused({"channel": f"{server.url}/none"}, "")
        assert reason == "ChannelUnreachable"
        assert said.endswith("the server answered 404")


async def test_a_plan_for_both_kinds_of_nodes_has_one_version(tmp_path: Path) -> None:
    spec = {"channel": folder(tmp_path / "a", files()), "channelKey": KEY}
    both = await offers(spec, "x86-64", "")
    assert both[""] == Offer(version=V4, url="", sha256="", size=0, serial=5)
    assert (await offers(spec, ""))[""].version == V4


async def test_a_proxy_is_used_where_it_is_told_to() -> None:
    async with serving() as server:
        proxy = {"http_proxy": f"http://127.0.0.1:{server.port}", "NO_PROXY": "127.0.0.1"}
        spec = {"channel": "http://far.example/stable", "channelKey": KEY}
        assert await offers(spec, proxy=proxy)
        assert len(server.asked) == 2
        near = {"channel": "http://127.0.0.1:1/stable", "channelKey": KEY}
        assert (await refused(near, proxy=proxy))[0] == "ChannelUnreachable"


def test_keys_are_read_in_every_form() -> None:
    der = SECRET.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for text in (KEY, pem(SECRET), base64.b64encode(der).decode(), f"# a\n{KEY}\n\n"):
        (found,) = signed.keys(text)
        assert found.public_bytes_raw() == SECRET.public_key().public_bytes_raw()
    for text in ("", "AAAA", "?", "# only this"):
        with pytest.raises(ValueError, match="no"):
            signed.keys(text)
