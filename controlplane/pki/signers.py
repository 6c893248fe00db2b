"""
The signers that the cluster itself answers for: by which CA, for whom, for which use.

A request that was approved may still be none of the signer's business, and is
then refused for good. Source: the API concept "Certificates and Certificate
Signing Requests", "Kubernetes signers".
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.x509.oid import NameOID

from controlplane.pki.certificates import Authority
from controlplane.pki.signing import sign_request

CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
NODES_GROUP = "system:nodes"
NODE_PREFIX = "system:node:"


class NotSignable(ValueError):
    """The signer will never sign this request; the text goes to its Failed condition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a CertificateSigningRequest asks for."""

    request: bytes  # PEM
    usages: tuple[str, ...]
    lifetime: timedelta | None
    requestor: str  # the user's name


@dataclass(frozen=True, slots=True)
class _Signer:
    authority: Authority
    check: Callable[[Wish], None]


class Signers:
    """Signs by the name of the signer; a name of others is not ``in`` it."""

    def __init__(self, *, client: Authority, serving: Authority) -> None:
        self._signers: Mapping[str, _Signer] = {
            CLIENT: _Signer(client, _check_client),
            KUBELET_CLIENT: _Signer(client, _check_kubelet_client),
            KUBELET_SERVING: _Signer(serving, _check_kubelet_serving),
        }

    def __contains__(self, name: object) -> bool:
        return name in self._signers

    def sign(self, name: str, wish: Wish, now: datetime) -> bytes:
        """The certificate with its chain, in PEM. Raises :class:`NotSignable`."""
        signer = self._signers[name]
        try:
            signer.check(wish)
            return sign_request(
                signer.authority, wish.request, usages=wish.usages, lifetime=wish.lifetime, now=now
            )
        except ValueError as err:
            raise NotSignable(str(err)) from err


def _check_client(wish: Wish) -> None:
    for usage in wish.usages:
        if usage not in ("client auth", "digital signature", "key encipherment"):
            raise NotSignable(f"invalid usage for client certificate: {usage}")
    if "client auth" not in wish.usages:
        raise NotSignable("missing required usage for client certificate: client auth")


def _check_kubelet_client(wish: Wish) -> None:
    parsed = x509.load_pem_x509_csr(wish.request)
    _check_node(parsed)
    _check_usages(wish.usages, "client auth")
    names = _names(parsed)
    for kind, text in (
        (x509.DNSName, "DNS"),
        (x509.RFC822Name, "Email"),
        (x509.IPAddress, "IP"),
        (x509.UniformResourceIdentifier, "URI"),
    ):
        if any(isinstance(name, kind) for name in names):
            raise NotSignable(f"{text} subjectAltNames are not allowed")


def _check_kubelet_serving(wish: Wish) -> None:
    parsed = x509.load_pem_x509_csr(wish.request)
    _check_node(parsed)
    if wish.requestor != _common_name(parsed):
        raise NotSignable("the requestor is not the node that the certificate names")
    names = _names(parsed)
    for kind, text in ((x509.RFC822Name, "Email"), (x509.UniformResourceIdentifier, "URI")):
        if any(isinstance(name, kind) for name in names):
            raise NotSignable(f"{text} subjectAltNames are not allowed")
    if not any(isinstance(name, x509.DNSName | x509.IPAddress) for name in names):
        raise NotSignable("DNS or IP subjectAltName is required")
    _check_usages(wish.usages, "server auth")


def _check_node(parsed: x509.CertificateSigningRequest) -> None:
    groups = parsed.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    if [group.value for group in groups] != [NODES_GROUP]:
        raise NotSignable(f"subject organization is not {NODES_GROUP}")
    if not _common_name(parsed).startswith(NODE_PREFIX):
        raise NotSignable(f"subject common name does not begin with {NODE_PREFIX}")


def _check_usages(usages: Iterable[str], purpose: str) -> None:
    required = {"digital signature", purpose}
    if set(usages) not in (required, required | {"key encipherment"}):
        wanted = " ".join(sorted(required | {"key encipherment"}))
        raise NotSignable(f"usages did not match [{wanted}]")


def _common_name(parsed: x509.CertificateSigningRequest) -> str:
    found = parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def _names(parsed: x509.CertificateSigningRequest) -> list[x509.GeneralName]:
    try:
        return list(parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []
