"""Charts from a repository and from an address, over TLS with credentials, on this machine."""

import json
import ssl
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from charts import pack
from operators.helm.base import HelmError, Job, Source, Target
from operators.helm.library import Library
from operators.helm.process import Runner
from tests.charts.server import BASIC, MANIFEST, Handler, digest
from tests.fakes.operators_config import config as told
from tests.fakes.tls import self_signed

ROOT = Path(__file__).parent.parent.parent.parent
ARCHIVE = pack(ROOT / "charts" / "hello")


def registry() -> dict[str, bytes]:
    """The paths of an OCI registry that holds the chart; OCI distribution specification 1.1."""
    config = json.dumps({"name": "hello", "version": "0.1.0", "apiVersion": "v2"}).encode()

    def blob(kind: str, data: bytes) -> dict[str, object]:
        media = f"application/vnd.cncf.helm.{kind}"
        return {"mediaType": media, "digest": digest(data), "size": len(data)}

    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": blob("config.v1+json", config),
            "layers": [blob("chart.content.v1.tar+gzip", ARCHIVE)],
        }
    ).encode()
    base = "/v2/charts/hello"
    return {
        "/v2/": b"{}",
        f"{base}/tags/list": b'{"name":"charts/hello","tags":["0.1.0"]}',
        f"{base}/manifests/0.1.0": manifest,
        f"{base}/manifests/{digest(manifest)}": manifest,
        f"{base}/blobs/{digest(config)}": config,
        f"{base}/blobs/{digest(ARCHIVE)}": ARCHIVE,
    }


REGISTRY = registry()


@dataclass(frozen=True)
class Repository:
    url: str
    ca: str


class _Handler(Handler):
    def do_GET(self) -> None:
        if self.headers.get("Authorization") != BASIC:
            return self._answer(401, b"")
        index = (
            "apiVersion: v1\nentries:\n  hello:\n"
            "  - {name: hello, version: 0.1.0, apiVersion: v2, urls: [hello-0.1.0.tgz]}\n"
            "  - {name: hello, version: 9.0.0-rc.1, apiVersion: v2, urls: [none.tgz]}\n"
        )
        files = {"/index.yaml": index.encode(), "/hello-0.1.0.tgz": ARCHIVE, **REGISTRY}
        found = files.get(self.path)
        self._answer(200 if found else 404, found or b"")

    do_HEAD = do_GET


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    made = self_signed()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.write(tmp_path_factory.mktemp("repository") / "server.pem"))
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Repository(f"https://127.0.0.1:{server.server_port}", made.certificate)
        server.shutdown()
        thread.join()


async def template(source: Source) -> str:
    config = told(
        kubeconfig=Path("/nonexistent"),
        kubernetes_api="",
        python=sys.executable,
        program_dir=ROOT,
        path="/usr/bin:/bin",
    )
    runner = Runner({"PATH": config.path, "PYTHONPATH": str(ROOT)})
    target = Target(name="web", namespace="default", timeout=20)
    return await Library(config, runner).template(Job(target=target, source=source))


async def test_a_repository_gives_the_newest_release_of_a_chart(repository: Repository) -> None:
    text = await template(
        Source(
            repo=repository.url,
            chart="hello",
            ca=repository.ca,
            username="user",
            password="pass",
        )
    )
    assert "helm.sh/chart: hello-0.1.0" in text


async def test_an_address_gives_a_chart(repository: Repository) -> None:
    text = await template(
        Source(
            chart=f"{repository.url}/hello-0.1.0.tgz",
            ca=repository.ca,
            username="user",
            password="pass",
        )
    )
    assert "helm.sh/chart: hello-0.1.0" in text


async def test_verification_can_be_left_out(repository: Repository) -> None:
    source = Source(
        repo=repository.url, chart="hello", username="user", password="pass", insecure=True
    )
    assert "hello-0.1.0" in await template(source)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ca": ""}, "certificate signed by unknown authority"),
        ({"password": "wrong"}, "401"),
        ({"version": "7.x"}, "7.x"),
    ],
)
async def test_what_a_repository_refuses_is_told(
    repository: Repository, change: dict[str, str], words: str
) -> None:
    given = {
        "repo": repository.url,
        "chart": "hello",
        "ca": repository.ca,
        "username": "user",
        "password": "pass",
        **change,
    }
    with pytest.raises(HelmError, match=words):
        await template(Source(**given))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"username": "user", "password": "pass"}, id="password"),
        pytest.param({"version": "0.1.0", "username": "user", "password": "pass"}, id="version"),
        pytest.param({"registry_auth": "yes"}, id="dockerconfig"),
        pytest.param(
            {"registry_auth": "yes", "ca": "", "insecure": True}, id="insecure-dockerconfig"
        ),
        pytest.param(
            {"ca": "", "insecure": True, "username": "user", "password": "pass"}, id="insecure"
        ),
    ],
)
async def test_a_registry_gives_a_chart(repository: Repository, change: dict[str, str]) -> None:
    host = repository.url.removeprefix("https://")
    if "registry_auth" in change:
        auth = {"auths": {host: {"auth": b64encode(b"user:pass").decode()}}}
        change = {**change, "registry_auth": json.dumps(auth)}
    given = {"chart": f"oci://{host}/charts/hello", "ca": repository.ca, **change}
    assert "hello-0.1.0" in await template(Source(**given))  # type: ignore[arg-type]
