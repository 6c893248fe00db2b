"""
CertificateApproval, CertificateSigning, CertificateSubjectRestriction.

Approving and signing need a right for the signer itself, besides the one for
the subresource; and nobody becomes a master by a certificate that he asked for.
"""

import base64

from cryptography import x509
from cryptography.x509.oid import NameOID

from controlplane.api.admission.plugin import Plugin, refused
from controlplane.api.base import (
    MASTERS_GROUP,
    AdmissionRequest,
    Attributes,
    Authorizer,
    Decision,
    Operation,
)

_GROUP = "certificates.k8s.io"
_REQUESTS = f"certificatesigningrequests.{_GROUP}"
_CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"


class CertificateApproval(Plugin):
    name = "CertificateApproval"

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def validate(self, request: AdmissionRequest) -> None:
        if _is_about(request, "approval"):
            _check_right(request, self._authorizer, "approve")


class CertificateSigning(Plugin):
    name = "CertificateSigning"

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def validate(self, request: AdmissionRequest) -> None:
        if not _is_about(request, "status"):
            return
        new, old = ((obj or {}).get("status") or {} for obj in (request.object, request.old))
        fields = ("certificate", "conditions")
        if any((new.get(f) or None) != (old.get(f) or None) for f in fields):
            _check_right(request, self._authorizer, "sign")


class CertificateSubjectRestriction(Plugin):
    name = "CertificateSubjectRestriction"

    async def validate(self, request: AdmissionRequest) -> None:
        if not _is_about(request, "") or request.operation is not Operation.CREATE:
            return
        spec = (request.object or {}).get("spec") or {}
        if spec.get("signerName") != _CLIENT_SIGNER:
            return
        try:
            parsed = x509.load_pem_x509_csr(base64.b64decode(spec.get("request") or ""))
        except ValueError as err:
            raise refused(request, f"failed to parse CSR: {err}") from err
        groups = parsed.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        if any(group.value == MASTERS_GROUP for group in groups):
            raise refused(
                request,
                f"use of {_CLIENT_SIGNER} signer with {MASTERS_GROUP} group is not allowed",
            )


def _is_about(request: AdmissionRequest, subresource: str) -> bool:
    return request.kind.group_resource == _REQUESTS and request.subresource == subresource


def _check_right(request: AdmissionRequest, authorizer: Authorizer, verb: str) -> None:
    # The stored signer counts: the request must not choose whose right it needs.
    signer = str(((request.old or {}).get("spec") or {}).get("signerName") or "")
    domain, _, _ = signer.partition("/")
    for name in (signer, f"{domain}/*"):
        asked = Attributes(
            user=request.user,
            verb=verb,
            group=_GROUP,
            version="*",
            resource="signers",
            name=name,
        )
        if authorizer.authorize(asked)[0] is Decision.ALLOW:
            return
    raise refused(request, f'user not permitted to {verb} requests with signerName "{signer}"')
