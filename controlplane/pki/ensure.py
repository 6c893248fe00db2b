"""
Have every key, certificate, token and kubeconfig of this server in place.

What is there and right is left alone, what can be made again is made again, and
what cannot (a CA or the key of the service accounts, on which every token and
every joined agent depends) is refused with the file's name. Keys are moved into
place before their certificates, so that a power cut in between leaves a key
without a certificate, which the next start completes.

Blocking: for a thread, or before the event loop runs.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path

from controlplane.config import Config
from controlplane.pki import kubeconfig, token
from controlplane.pki.certificates import (
    Authority,
    Leaf,
    PrivateKey,
    certificate_pem,
    issue,
    key_pem,
    new_key,
    self_signed,
    wrong_with,
)
from controlplane.pki.files import Drafts, PkiError, make_directory, make_private, read
from controlplane.pki.pem import load_certificates, load_keys, parse_keys

OPERATORS_USER = "system:pinnace-operators"
AUTH_PROXY_USER = "system:auth-proxy"
_WARN_BEFORE = timedelta(days=365)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pki:
    """Where everything lies, and what the parts in this process need at once."""

    tls_dir: Path
    agent_dir: Path
    token_file: Path
    admin_kubeconfig: Path
    token: token.Token
    server_ca_pem: bytes  # what service accounts' pods and kube-root-ca.crt get
    client_ca_pem: bytes
    request_header_ca_pem: bytes
    service_key_pem: bytes  # several keys: the first signs, all verify
    warnings: tuple[str, ...]  # for the log; nothing that stops a start

    @property
    def server_ca(self) -> Path:
        return self.tls_dir / "server-ca.crt"

    @property
    def client_ca(self) -> Path:
        return self.tls_dir / "client-ca.crt"

    @property
    def request_header_ca(self) -> Path:
        return self.tls_dir / "request-header-ca.crt"

    @property
    def service_key(self) -> Path:
        return self.tls_dir / "service.key"

    @property
    def serving(self) -> tuple[Path, Path]:
        """Certificate and key of the API server."""
        return _pair(self.tls_dir, "serving-kube-apiserver")

    @property
    def kubelet_client(self) -> tuple[Path, Path]:
        """What the API server shows to kubelets."""
        return _pair(self.tls_dir, "client-kube-apiserver")

    @property
    def auth_proxy(self) -> tuple[Path, Path]:
        """What the API server shows to extension API servers."""
        return _pair(self.tls_dir, "client-auth-proxy")

    @property
    def admin_client(self) -> tuple[Path, Path]:
        return _pair(self.tls_dir, "client-admin")


def ensure_pki(config: Config, now: datetime, *, in_use: bool = False) -> Pki:
    """
    Make what is missing; raises :class:`PkiError` for what only a person can mend.

    ``now`` may be wrong by decades; see :mod:`controlplane.pki.certificates`, and for ``in_use``
    :func:`controlplane.pki.certificates.wrong_with`.
    """
    return _Ensuring(config, now, in_use=in_use).run()


def load_authority(tls_dir: Path, name: str) -> Authority:
    """``name``: server-ca, client-ca or request-header-ca; to sign for those who join."""
    crt, key = _pair(tls_dir, name)
    return _load(crt, key)


def _load(crt: Path, key: Path) -> Authority:
    return Authority(key=load_keys(key)[0], chain=load_certificates(crt), pem=read(crt) or b"")


def kubelet_leaves(node_name: str, ips: tuple[str, ...]) -> tuple[Leaf, Leaf]:
    """What a node's agent gets: client certificate (client CA), serving one (server CA)."""
    client = Leaf(common_name=f"system:node:{node_name}", organizations=("system:nodes",))
    sans = tuple(dict.fromkeys((node_name, "localhost", "127.0.0.1", "::1", *ips)))
    return client, Leaf(common_name=node_name, server=True, sans=sans)


def _pair(directory: Path, name: str) -> tuple[Path, Path]:
    return directory / f"{name}.crt", directory / f"{name}.key"


def _api_server_sans(config: Config) -> tuple[str, ...]:
    service = "kubernetes.default.svc"
    return tuple(
        dict.fromkeys(
            name
            for name in (
                "kubernetes",
                "kubernetes.default",
                service,
                f"{service}.{config.cluster_domain}",
                "localhost",
                "127.0.0.1",
                "::1",
                config.node_name,
                config.advertise_address,
                *config.node_ips,
                str(config.service_cidr[1]),
                *config.tls_sans,
            )
            if name
        )
    )


class _Ensuring:
    """One pass over all files; its mutable state is what it staged and what it warns of."""

    def __init__(self, config: Config, now: datetime, *, in_use: bool) -> None:
        self._config = config
        self._now = now
        self._in_use = in_use
        self._drafts = Drafts()
        self._warnings: list[str] = []

    def run(self) -> Pki:
        config = self._config
        make_directory(config.tls_dir)
        for directory in (config.server_dir, config.tls_dir):
            if directory.stat().st_mode & 0o077:
                directory.chmod(0o700)
        self._leaves()
        service_key = self._service_key()
        join_token = self._token()
        self._agent_files()
        self._drafts.commit()
        self._admin_kubeconfig()
        return Pki(
            tls_dir=config.tls_dir,
            agent_dir=config.agent_dir,
            token_file=config.server_dir / "token",
            admin_kubeconfig=config.write_kubeconfig,
            token=join_token,
            server_ca_pem=self._server_ca.pem,
            client_ca_pem=self._client_ca.pem,
            request_header_ca_pem=self._request_header_ca.pem,
            service_key_pem=service_key,
            warnings=tuple(self._warnings),
        )

    @cached_property
    def _server_ca(self) -> Authority:
        return self._authority("server-ca")

    @cached_property
    def _client_ca(self) -> Authority:
        return self._authority("client-ca")

    @cached_property
    def _request_header_ca(self) -> Authority:
        return self._authority("request-header-ca")

    def _authority(self, name: str) -> Authority:
        crt, key = _pair(self._config.tls_dir, name)
        if crt.exists():
            authority = self._existing_authority(crt, key)
        else:
            authority = self._new_authority(name, crt, key)
        left = authority.certificate.not_valid_after_utc - self._now
        if left < _WARN_BEFORE:
            self._warnings.append(f"{crt} ends in {left.days} days; it is not renewed by itself")
        return authority

    def _existing_authority(self, crt: Path, key: Path) -> Authority:
        if not key.exists():
            raise PkiError(
                f"{key} is missing though {crt} is there: put it back from a backup, or remove "
                f"{crt} as well for a new CA, after which every agent must join again"
            )
        authority = _load(crt, key)
        if authority.certificate.public_key() != authority.key.public_key():
            raise PkiError(f"{key} does not belong to {crt}: put back the two that belong together")
        make_private(key)
        return authority

    def _new_authority(self, name: str, crt: Path, key: Path) -> Authority:
        private_key: PrivateKey
        if key.exists():
            private_key = load_keys(key)[0]
        else:
            private_key = new_key()
            self._drafts.stage(key, key_pem(private_key))
        certificate = self_signed(f"pinnace-{name}", private_key, self._now)
        pem = certificate_pem([certificate])
        self._drafts.stage(crt, pem, mode=0o644)
        return Authority(key=private_key, chain=(certificate,), pem=pem)

    def _leaves(self) -> None:
        tls_dir, agent_dir = self._config.tls_dir, self._config.agent_dir
        masters = ("system:masters",)
        server = Leaf(
            common_name="kube-apiserver", server=True, sans=_api_server_sans(self._config)
        )
        admin = Leaf(common_name="system:admin", organizations=masters)
        # It may nothing at the API itself: a node that names the API server as its own
        # address must not make an administrator of who may speak to nodes.
        to_kubelets = Leaf(common_name="system:apiserver")
        client, serving = kubelet_leaves(self._config.node_name, self._config.node_ips)
        self._leaf(tls_dir, "serving-kube-apiserver", server, self._server_ca)
        self._leaf(tls_dir, "client-admin", admin, self._client_ca)
        self._leaf(tls_dir, "client-kube-apiserver", to_kubelets, self._client_ca)
        proxy = Leaf(common_name=AUTH_PROXY_USER)
        self._leaf(tls_dir, "client-auth-proxy", proxy, self._request_header_ca)
        self._leaf(agent_dir, "client-kubelet", client, self._client_ca)
        self._leaf(agent_dir, "serving-kubelet", serving, self._server_ca)
        operators = Leaf(common_name=OPERATORS_USER)
        self._leaf(agent_dir, "client-operators", operators, self._client_ca)

    def _leaf(self, directory: Path, name: str, leaf: Leaf, authority: Authority) -> None:
        crt, key_file = _pair(directory, name)
        key, wrong = self._judge(crt, key_file, leaf, authority)
        if not wrong:
            return
        if key is None:
            key = new_key()
            self._drafts.stage(key_file, key_pem(key))
        certificate = issue(authority, leaf, key.public_key(), self._now)
        chain = [certificate, *authority.intermediates]
        self._drafts.stage(crt, certificate_pem(chain), mode=0o644)

    def _judge(
        self, crt: Path, key_file: Path, leaf: Leaf, authority: Authority
    ) -> tuple[PrivateKey | None, str]:
        """The key to go on with, and why the certificate must be made."""
        try:
            key = load_keys(key_file)[0] if key_file.exists() else None
            certificates = load_certificates(crt) if crt.exists() else ()
        except PkiError as err:
            # Unlike a CA, a leaf can be had again; its broken file is worth a line only.
            self._warnings.append(f"made again: {err}")
            return None, "broken"
        if key is None or not certificates:
            return key, "missing"
        make_private(key_file)
        wrong = wrong_with(
            certificates,
            key,
            leaf=leaf,
            authority=authority,
            now=self._now,
            in_use=self._in_use,
        )
        return key, wrong

    def _service_key(self) -> bytes:
        path = self._config.tls_dir / "service.key"
        content = read(path)
        if content is None:
            content = key_pem(new_key())
            self._drafts.stage(path, content)
        else:
            parse_keys(path, content)
            make_private(path)
        return content

    def _token(self) -> token.Token:
        path = self._config.server_dir / "token"
        ca_hash = token.hash_of(self._server_ca.pem)
        content = read(path)
        if self._config.token:
            wanted = token.parse(self._config.token)
            if wanted.ca_hash not in {"", ca_hash}:
                raise PkiError(
                    f"the token given names another CA than {self._config.tls_dir}/server-ca.crt: "
                    "use the token of this server, or its password alone"
                )
        elif content is not None:
            wanted = _stored_token(path, content)
        else:
            wanted = token.Token(ca_hash="", password=token.new_password())
        full = token.Token(ca_hash=ca_hash, password=wanted.password)
        line = f"{full}\n".encode()
        if content != line:
            self._drafts.stage(path, line)
        else:
            make_private(path)
        return full

    def _agent_files(self) -> None:
        directory = self._config.agent_dir
        server_ca = directory / "server-ca.crt"
        self._write_if_changed(server_ca, self._server_ca.pem, mode=0o644)
        client_ca = self._client_ca.pem
        self._write_if_changed(directory / "client-ca.crt", client_ca, mode=0o644)
        for name, leaf in (("kubelet", "client-kubelet"), ("operators", "client-operators")):
            crt, key = _pair(directory, leaf)
            content = kubeconfig.referring(self._server, ca=server_ca, certificate=crt, key=key)
            self._write_if_changed(directory / f"{name}.kubeconfig", content, mode=0o600)

    def _write_if_changed(self, path: Path, content: bytes, *, mode: int) -> None:
        if read(path) != content:
            self._drafts.stage(path, content, mode=mode)

    def _admin_kubeconfig(self) -> None:
        crt, key = _pair(self._config.tls_dir, "client-admin")
        path, mode = self._config.write_kubeconfig, self._config.write_kubeconfig_mode
        content = kubeconfig.embedded(
            self._server,
            ca=self._server_ca.pem,
            certificate=crt.read_bytes(),
            key=key.read_bytes(),
        )
        # Its folder may be read-only or full; the node works without it.
        try:
            if path.is_file() and path.read_bytes() == content:
                if path.stat().st_mode & 0o777 != mode:
                    path.chmod(mode)
                return
            drafts = Drafts()
            drafts.stage(path, content, mode=mode)
            drafts.commit()
        except OSError as err:
            self._warnings.append(f"{path} was not written: {err.strerror}")

    @property
    def _server(self) -> str:
        return f"https://127.0.0.1:{self._config.https_port}"


def _stored_token(path: Path, content: bytes) -> token.Token:
    try:
        stored = token.parse(content.decode())
    except (PkiError, UnicodeDecodeError) as err:
        raise PkiError(f"{path} is no token ({err}): restore it, or remove it for a new one") from (
            err
        )
    if not stored.password:
        raise PkiError(f"{path} is empty: restore it, or remove it for a new one")
    return stored
