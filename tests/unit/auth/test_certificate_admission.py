"""Who may approve and sign, and for whom nobody may ask."""

import base64
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from controlplane.api.admission.certificates import (
    CertificateApproval,
    CertificateSigning,
    CertificateSubjectRestriction,
)
from controlplane.api.base import AdmissionRequest, Operation
from controlplane.api.rbac import Rbac
from controlplane.objects.resources import CERTIFICATE_SIGNING_REQUESTS
from controlplane.pki.certificates import new_key
from tests.unit.auth.fake_objects import Objects
from tests.unit.auth.test_admission import admit, refusal, request
from tests.unit.auth.test_rbac import give, rule


def update(subresource: str, **status: Any) -> AdmissionRequest:
    old = {"metadata": {"name": "csr"}, "spec": {"signerName": "example.com/signer"}}
    return request(
        CERTIFICATE_SIGNING_REQUESTS,
        {**old, "status": status},
        old=old,
        operation=Operation.UPDATE,
        subresource=subresource,
    )


def rights(verb: str, name: str) -> Rbac:
    objects = Objects()
    give(objects, rule(verb, "signers", groups="certificates.k8s.io", names=name))
    return Rbac(objects)


@pytest.mark.parametrize("name", ["example.com/signer", "example.com/*"])
def test_approving_and_signing_need_a_right_for_the_signer(name: str) -> None:
    approval, status = update("approval"), update("status", certificate="x")
    assert admit(CertificateApproval(rights("approve", name)), approval)
    assert admit(CertificateSigning(rights("sign", name)), status)
    assert refusal(CertificateApproval(rights("sign", name)), approval).endswith(
        'user not permitted to approve requests with signerName "example.com/signer"'
    )
    assert refusal(CertificateSigning(rights("approve", name)), status).endswith(
        'user not permitted to sign requests with signerName "example.com/signer"'
    )


def test_a_status_without_a_certificate_needs_no_right() -> None:
    assert admit(CertificateSigning(rights("get", "x")), update("status"))


@pytest.mark.parametrize(("group", "allowed"), [("devs", True), ("system:masters", False)])
def test_nobody_asks_to_be_a_master(group: str, allowed: bool) -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject)
    pem = csr.sign(new_key(), hashes.SHA256()).public_bytes(Encoding.PEM)
    spec = {
        "signerName": "kubernetes.io/kube-apiserver-client",
        "request": base64.b64encode(pem).decode(),
    }
    asked = request(CERTIFICATE_SIGNING_REQUESTS, {"metadata": {"name": "csr"}, "spec": spec})
    if allowed:
        assert admit(CertificateSubjectRestriction(), asked)
    else:
        assert "signer with system:masters group is not allowed" in refusal(
            CertificateSubjectRestriction(), asked
        )
