"""Which trust bundles a projected volume shows."""

import base64
from typing import Any

import pytest

from node.kubelet.trust import bundle, chosen


def pem(data: bytes, *, comment: str = "") -> str:
    body = base64.b64encode(data).decode()
    return f"{comment}-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"


def made(name: str, text: str, signer: str = "", **labels: str) -> dict[str, Any]:
    spec = {"trustBundle": text} | ({"signerName": signer} if signer else {})
    return {"metadata": {"name": name, "labels": labels}, "spec": spec}


BUNDLES = [
    made("a", pem(b"one", comment="# first\n") + pem(b"two")),
    made("s1", pem(b"two"), "x.io/s", env="prod"),
    made("s2", pem(b"three") + pem(b"two"), "x.io/s", env="test"),
]


def names(**details: Any) -> list[str]:
    return [b["metadata"]["name"] for b in chosen(details, BUNDLES)]


def test_bundles_are_chosen_by_name_or_by_signer_and_labels() -> None:
    assert names(name="a") == ["a"]
    assert names(signerName="x.io/s") == []
    assert names(signerName="x.io/s", labelSelector={}) == ["s1", "s2"]
    assert names(signerName="x.io/s", labelSelector={"matchLabels": {"env": "test"}}) == ["s2"]


def test_each_certificate_appears_once_and_comments_do_not() -> None:
    both = bundle({"signerName": "x.io/s", "labelSelector": {}}, BUNDLES).decode()
    assert both.count("BEGIN CERTIFICATE") == 2
    assert "first" not in bundle({"name": "a"}, BUNDLES).decode()


def test_a_missing_bundle_is_an_error_unless_optional() -> None:
    with pytest.raises(ValueError, match="not found"):
        bundle({"name": "no"}, BUNDLES)
    with pytest.raises(ValueError, match="matched zero"):
        bundle({"signerName": "no"}, BUNDLES)
    assert bundle({"name": "no", "optional": True}, BUNDLES) == b""
