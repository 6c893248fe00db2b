"""What ensure_pki makes, keeps, makes again and refuses."""

import asyncio
import hashlib
import ssl
import stat
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from controlplane.config import Config
from controlplane.pki.certificates import (
    Authority,
    certificate_pem,
    issue,
    key_pem,
    new_key,
    self_signed,
)
from controlplane.pki.ensure import Pki, ensure_pki, kubelet_leaves, load_authority
from controlplane.pki.files import PkiError

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
LEAVES = (
    "server/tls/serving-kube-apiserver",
    "server/tls/client-admin",
    "server/tls/client-auth-proxy",
    "server/tls/client-kube-apiserver",
    "agent/client-kubelet",
    "agent/serving-kubelet",
    "agent/client-operators",
)
CAS = ("server-ca", "client-ca", "request-header-ca")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(
        data_dir=tmp_path / "data",
        bind_address="0.0.0.0",
        https_port=6443,
        advertise_address="192.0.2.7",
        tls_sans=("api.example.com",),
        cluster_cidr=IPv4Network("10.42.0.0/16"),
        service_cidr=IPv4Network("10.43.0.0/16"),
        node_port_range=(30000, 32767),
        cluster_dns=IPv4Address("10.43.0.10"),
        cluster_domain="cluster.local",
        node_name="edge-1",
        node_ips=("192.0.2.7", "2001:db8::7"),
        disable=frozenset(),
        write_kubeconfig=tmp_path / "etc" / "pinnace.yaml",
        write_kubeconfig_mode=0o600,
        token="",
        datastore_endpoint="",
    )


def load(config: Config, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((config.data_dir / f"{name}.crt").read_bytes())


def contents(config: Config) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in config.data_dir.rglob("*") if p.is_file()}


def sans(certificate: x509.Certificate) -> set[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in names}


def test_makes_the_documented_files_private(config: Config) -> None:
    ensure_pki(config, NOW)
    made = {str(path.relative_to(config.data_dir)) for path in contents(config)}
    pairs = [*LEAVES, *(f"server/tls/{name}" for name in CAS)]
    assert made == {
        *(f"{name}.{end}" for name in pairs for end in ("crt", "key")),
        "server/tls/service.key",
        "server/token",
        "agent/server-ca.crt",
        "agent/client-ca.crt",
        "agent/kubelet.kubeconfig",
        "agent/operators.kubeconfig",
    }
    for path in config.data_dir.rglob("*"):
        public = path.suffix == ".crt"
        assert public or not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_authorities_last_ten_years_and_leaves_one(config: Config) -> None:
    ensure_pki(config, NOW)
    for name in CAS:
        assert load(config, f"server/tls/{name}").not_valid_after_utc - NOW == timedelta(days=3650)
    for name in LEAVES:
        assert load(config, name).not_valid_after_utc - NOW == timedelta(days=365)


def test_the_api_server_answers_to_all_its_names(config: Config) -> None:
    ensure_pki(config, NOW)
    assert sans(load(config, "server/tls/serving-kube-apiserver")) == {
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "127.0.0.1",
        "::1",
        "edge-1",
        "192.0.2.7",
        "2001:db8::7",
        "10.43.0.1",
        "api.example.com",
    }


@pytest.mark.parametrize(
    ("leaf", "user", "groups"),
    [
        ("server/tls/client-admin", "system:admin", ["system:masters"]),
        ("server/tls/client-auth-proxy", "system:auth-proxy", []),
        ("server/tls/client-kube-apiserver", "system:apiserver", []),
        ("agent/client-kubelet", "system:node:edge-1", ["system:nodes"]),
        ("agent/client-operators", "system:pinnace-operators", []),
    ],
)
def test_client_certificates_name_user_and_groups(
    config: Config, leaf: str, user: str, groups: list[str]
) -> None:
    ensure_pki(config, NOW)
    subject = load(config, leaf).subject
    assert [a.value for a in subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == [user]
    assert [a.value for a in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)] == groups


def test_writes_nothing_when_all_is_right(config: Config) -> None:
    ensure_pki(config, NOW)
    before = contents(config) | {config.write_kubeconfig: config.write_kubeconfig.read_bytes()}
    times = {path: path.stat().st_mtime_ns for path in before}
    ensure_pki(config, NOW + timedelta(days=200))
    after = contents(config) | {config.write_kubeconfig: config.write_kubeconfig.read_bytes()}
    assert after == before
    assert {path: path.stat().st_mtime_ns for path in after} == times


def test_renews_leaves_with_their_keys_when_a_third_of_a_year_is_left(config: Config) -> None:
    ensure_pki(config, NOW)
    before = contents(config)
    later = NOW + timedelta(days=246)
    ensure_pki(config, later)
    after = contents(config)
    changed = {str(p.relative_to(config.data_dir)) for p in after if after[p] != before[p]}
    assert changed == {f"{name}.crt" for name in LEAVES}
    assert load(config, LEAVES[0]).not_valid_after_utc - later == timedelta(days=365)


def test_a_changed_address_costs_the_serving_certificates_only(config: Config) -> None:
    ensure_pki(config, NOW)
    before = contents(config)
    ensure_pki(replace(config, node_ips=("192.0.2.99",)), NOW)
    after = contents(config)
    changed = {str(p.relative_to(config.data_dir)) for p in after if after[p] != before[p]}
    assert changed == {"server/tls/serving-kube-apiserver.crt", "agent/serving-kubelet.crt"}


@pytest.mark.parametrize(
    "wrong",
    [
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(2012, 1, 1, tzinfo=UTC),
        NOW + timedelta(days=1095),
    ],
)
def test_what_a_wrong_clock_made_is_valid_under_the_right_one(
    config: Config, wrong: datetime
) -> None:
    ensure_pki(config, wrong)
    for name in (*LEAVES, *(f"server/tls/{ca}" for ca in CAS)):
        certificate = load(config, name)
        for when in (max(wrong, datetime(1970, 1, 2, tzinfo=UTC)), NOW):
            assert certificate.not_valid_before_utc <= when < certificate.not_valid_after_utc


def test_leaves_of_an_impossible_clock_are_replaced_once_the_clock_is_right(config: Config) -> None:
    impossible = datetime(1970, 1, 1, tzinfo=UTC)
    ensure_pki(config, impossible)
    ensure_pki(config, impossible + timedelta(days=3))
    long_lived = load(config, LEAVES[0])
    assert long_lived.not_valid_after_utc > NOW + timedelta(days=3000)
    ensure_pki(config, NOW)
    assert load(config, LEAVES[0]).not_valid_after_utc == NOW + timedelta(days=365)


def test_an_authority_given_by_the_user_signs_with_its_chain(config: Config) -> None:
    root_key, key = new_key(), new_key()
    root = self_signed("corporate-root", root_key, NOW)
    above = Authority(key=root_key, chain=(root,), pem=b"")
    inner = Authority(key=key, chain=(self_signed("inner", key, NOW),), pem=b"")
    cross = (
        x509.CertificateBuilder()
        .subject_name(inner.certificate.subject)
        .issuer_name(root.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=900))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    tls = config.tls_dir
    tls.mkdir(parents=True)
    bundle = b"# ours\n" + certificate_pem([cross, above.certificate])
    (tls / "server-ca.crt").write_bytes(bundle)
    (tls / "server-ca.key").write_bytes(key_pem(key))
    pki = ensure_pki(config, NOW)
    served = x509.load_pem_x509_certificates(pki.serving[0].read_bytes())
    assert served[1:] == [cross]
    served[0].verify_directly_issued_by(cross)
    assert (tls / "server-ca.crt").read_bytes() == bundle
    assert pki.token.ca_hash == hashlib.sha256(root.public_bytes(Encoding.DER)).hexdigest()


def test_a_power_cut_between_key_and_certificate_is_completed(config: Config) -> None:
    ensure_pki(config, NOW)
    (config.tls_dir / "client-ca.crt").unlink()
    key = (config.tls_dir / "client-ca.key").read_bytes()
    ensure_pki(config, NOW)
    authority = load_authority(config.tls_dir, "client-ca")
    load(config, "agent/client-kubelet").verify_directly_issued_by(authority.certificate)
    assert (config.tls_dir / "client-ca.key").read_bytes() == key


def test_a_damaged_leaf_is_made_again(config: Config) -> None:
    ensure_pki(config, NOW)
    path = config.tls_dir / "client-admin.crt"
    path.write_bytes(path.read_bytes()[:100])
    pki = ensure_pki(config, NOW)
    assert any("client-admin.crt" in warning for warning in pki.warnings)
    assert load(config, "server/tls/client-admin").not_valid_after_utc > NOW


@pytest.mark.parametrize("name", ["server-ca.crt", "client-ca.key", "service.key"])
def test_a_damaged_file_that_cannot_be_had_again_is_named(config: Config, name: str) -> None:
    ensure_pki(config, NOW)
    (config.tls_dir / name).write_bytes(b"-----BEGIN ")
    with pytest.raises(PkiError, match=name):
        ensure_pki(config, NOW)


def test_a_missing_or_foreign_key_of_an_authority_is_refused(config: Config) -> None:
    ensure_pki(config, NOW)
    key = config.tls_dir / "server-ca.key"
    key.write_bytes((config.tls_dir / "client-ca.key").read_bytes())
    with pytest.raises(PkiError, match="does not belong"):
        ensure_pki(config, NOW)
    key.unlink()
    with pytest.raises(PkiError, match=r"server-ca\.key is missing"):
        ensure_pki(config, NOW)


def test_the_token_carries_the_hash_of_the_ca_file(config: Config) -> None:
    pki = ensure_pki(config, NOW)
    digest = hashlib.sha256((config.tls_dir / "server-ca.crt").read_bytes()).hexdigest()
    line = pki.token_file.read_text()
    assert line == f"K10{digest}::server:{pki.token.password}\n"
    assert ensure_pki(config, NOW).token == pki.token


@pytest.mark.parametrize("form", ["secret", "K10{hash}::server:secret"])
def test_a_given_token_is_honoured_in_both_forms(config: Config, form: str) -> None:
    made = ensure_pki(config, NOW)
    given = replace(config, token=form.format(hash=made.token.ca_hash))
    pki = ensure_pki(given, NOW)
    assert pki.token.password == "secret"
    assert pki.token_file.read_text().endswith("::server:secret\n")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f"K10{'0' * 64}::server:secret", "another CA"),
        ("abcdef.0123456789abcdef", "bootstrap token"),
        (f"K10{'0' * 64}::node:secret", "not a server's"),
        ("K10zz::server:secret", "64 hex digits"),
    ],
)
def test_a_token_that_cannot_be_this_servers_is_refused(
    config: Config, text: str, why: str
) -> None:
    with pytest.raises(PkiError, match=why):
        ensure_pki(replace(config, token=text), NOW)


def test_kubeconfigs_point_where_they_should(config: Config) -> None:
    ensure_pki(replace(config, write_kubeconfig_mode=0o644), NOW)
    admin = yaml.safe_load(config.write_kubeconfig.read_text())
    assert admin["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:6443"
    assert stat.S_IMODE(config.write_kubeconfig.stat().st_mode) == 0o644
    assert set(admin["users"][0]["user"]) == {"client-certificate-data", "client-key-data"}
    kubelet = yaml.safe_load((config.agent_dir / "kubelet.kubeconfig").read_text())
    assert kubelet["users"][0]["user"]["client-key"] == str(config.agent_dir / "client-kubelet.key")


def test_a_kubeconfig_that_cannot_be_written_is_a_warning(config: Config, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    pki = ensure_pki(replace(config, write_kubeconfig=tmp_path / "file" / "x.yaml"), NOW)
    assert any("x.yaml" in warning for warning in pki.warnings)


async def test_openssl_in_strict_mode_accepts_both_sides(config: Config) -> None:
    pki = ensure_pki(config, NOW)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=pki.client_ca)
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_cert_chain(*pki.serving)
    client = ssl.create_default_context(cafile=pki.server_ca)
    client.load_cert_chain(*pki.admin_client)
    for context in (server, client):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    seen = asyncio.get_running_loop().create_future()

    def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.set_result(writer.get_extra_info("peercert")["subject"])
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        subject = await asyncio.wait_for(seen, 10)
        writer.close()
        await writer.wait_closed()
    assert (("commonName", "system:admin"),) in subject


def test_signs_for_a_node_that_joins(config: Config) -> None:
    ensure_pki(config, NOW)
    client, serving = kubelet_leaves("n" * 100, ("192.0.2.8",))
    authority = load_authority(config.tls_dir, "client-ca")
    certificate = issue(authority, client, new_key().public_key(), NOW)
    certificate.verify_directly_issued_by(authority.certificate)
    assert "192.0.2.8" in serving.sans


def test_is_quick_enough_for_every_start(config: Config) -> None:
    first = _duration(config)
    again = min(_duration(config) for _ in range(5))
    assert first < 1.0
    assert again < 0.1


def _duration(config: Config) -> float:
    begin = time.perf_counter()
    pki = ensure_pki(config, NOW)
    assert isinstance(pki, Pki)
    return time.perf_counter() - begin
