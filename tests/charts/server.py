"""
Repositories of charts for a test: plain, with TLS, with a password, with a client certificate.

``python -m tests.charts.server FOLDER`` serves on three free ports of 127.0.0.1 and says
on stdout, as one line of JSON, where and with which authority. It ends with its stdin. Below
``/open/`` everybody reads, below ``/closed/`` and ``/v2/closed/`` only ``user`` with ``pass``.
"""

import hashlib
import json
import ssl
import sys
import threading
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.charts import packing
from tests.fakes.tls import self_signed

VERSIONS = ("1.0.0", "1.1.0", "2.0.0-rc.1")
BASIC = "Basic " + b64encode(b"user:pass").decode()
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def repository() -> dict[str, bytes]:
    """Relative paths of a repository that holds the chart ``told``."""
    lines = ["apiVersion: v1", "entries:", "  told:"]
    files = {}
    for version in VERSIONS:
        files[f"told-{version}.tgz"] = packing.packed("told", version)
        urls = f"urls: [told-{version}.tgz]"
        lines.append(f"  - {{name: told, version: {version}, apiVersion: v2, {urls}}}")
    return {**files, "index.yaml": "\n".join(lines).encode()}


def registry(name: str) -> dict[str, bytes]:
    """Paths of an OCI registry; OCI distribution specification 1.1."""
    base = f"/v2/{name}"
    files = {f"{base}/tags/list": json.dumps({"name": name, "tags": VERSIONS}).encode()}
    for version in VERSIONS:
        archive = packing.packed("told", version)
        config = json.dumps({"name": "told", "version": version, "apiVersion": "v2"}).encode()
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": _blob("config.v1+json", config),
                "layers": [_blob("chart.content.v1.tar+gzip", archive)],
            }
        ).encode()
        files[f"{base}/manifests/{version}"] = manifest
        files[f"{base}/manifests/{digest(manifest)}"] = manifest
        files[f"{base}/blobs/{digest(config)}"] = config
        files[f"{base}/blobs/{digest(archive)}"] = archive
    return files


def _blob(kind: str, data: bytes) -> dict[str, object]:
    media = f"application/vnd.cncf.helm.{kind}"
    return {"mediaType": media, "digest": digest(data), "size": len(data)}


FILES = {
    **{
        f"/{place}/{path}": data
        for place in ("open", "closed")
        for path, data in repository().items()
    },
    **registry("open/told"),
    **registry("closed/told"),
    "/v2/": b"{}",
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        closed = "/closed/" in self.path
        if closed and self.headers.get("Authorization") != BASIC:
            return self._answer(401, b"")
        found = FILES.get(self.path)
        self._answer(404 if found is None else 200, found or b"")

    do_HEAD = do_GET

    def _answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        if code == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="test"')
        if "/manifests/" in self.path:
            self.send_header("Content-Type", MANIFEST)
            self.send_header("Docker-Content-Digest", digest(body))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def main(folder: Path) -> int:
    made = self_signed()
    path = made.write(folder / "server.pem")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(path)
    mutual = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    mutual.load_cert_chain(path)
    mutual.load_verify_locations(path)
    mutual.verify_mode = ssl.CERT_REQUIRED
    said: dict[str, object] = {"ca": made.certificate, "key": made.key}
    for name, context in (("plain", None), ("tls", tls), ("mutual", mutual)):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        said[name] = server.server_port
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
