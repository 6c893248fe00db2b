"""Who may talk to the kubelet: by the client CA, or as the API server says."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from controlplane.pki.certificates import (
    Authority,
    Leaf,
    certificate_pem,
    issue,
    key_pem,
    new_key,
    self_signed,
)
from node.kubelet.server import KubeletServer, tls_context

NOW = datetime.now(UTC)


class Quiet:
    """A kubelet with no pods."""

    runtime_error = ""
    workers: dict[str, Any] = {}  # noqa: RUF012 - never changed

    def worker_of(self, namespace: str, name: str) -> None:
        return None


@dataclass
class Served:
    url: str
    folder: Path
    client_ca: Authority

    def client(self, leaf: Leaf | None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if leaf is not None:
            _write(self.folder, "client", self.client_ca, leaf)
            context.load_cert_chain(self.folder / "client.crt", self.folder / "client.key")
        return context


def _authority(name: str) -> Authority:
    key = new_key()
    certificate = self_signed(name, key, NOW)
    return Authority(key=key, chain=(certificate,), pem=certificate_pem([certificate]))


def _write(folder: Path, name: str, authority: Authority, leaf: Leaf) -> None:
    key = new_key()
    made = issue(authority, leaf, key.public_key(), NOW)
    (folder / f"{name}.crt").write_bytes(certificate_pem([made]))
    (folder / f"{name}.key").write_bytes(key_pem(key))


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    server_ca, client_ca = _authority("server"), _authority("client")
    (tmp_path / "client-ca.crt").write_bytes(certificate_pem(client_ca.chain))
    _write(tmp_path, "serving-kubelet", server_ca, Leaf(common_name="n1", server=True))
    server = KubeletServer(Quiet(), None, lambda: NOW)  # type: ignore[arg-type]
    context = await asyncio.to_thread(tls_context, tmp_path)
    port = await server.start("127.0.0.1", 0, context)
    yield Served(f"https://127.0.0.1:{port}", tmp_path, client_ca)
    await server.stop()


async def get(served: Served, path: str, leaf: Leaf | None) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(served.url + path, ssl=served.client(leaf)) as answer,
    ):
        return answer.status, await answer.text()


API_SERVER = Leaf(common_name="system:apiserver")
MASTER = Leaf(common_name="somebody", organizations=("system:masters",))


@pytest.mark.parametrize("leaf", [API_SERVER, MASTER], ids=["api server", "master"])
async def test_the_api_server_and_masters_are_let_in(served: Served, leaf: Leaf) -> None:
    assert await get(served, "/healthz", leaf) == (200, "ok")


async def test_others_with_a_certificate_are_forbidden(served: Served) -> None:
    leaf = Leaf(common_name="system:node:n2", organizations=("system:nodes",))
    assert await get(served, "/pods", leaf) == (
        403,
        "Forbidden (user=system:node:n2, verb=get, resource=nodes, subresource(s)=[pods proxy])",
    )


async def test_without_a_certificate_or_token_nobody_is_let_in(served: Served) -> None:
    assert await get(served, "/healthz", None) == (401, "Unauthorized")


async def test_an_unknown_pod_is_not_found(served: Served) -> None:
    status, text = await get(served, "/containerLogs/default/nobody/c", API_SERVER)
    assert (status, text) == (404, 'pod "nobody" does not exist')
