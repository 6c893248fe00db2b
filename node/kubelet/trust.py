"""
Cluster trust bundles for projected volumes: which are chosen, and their certificates as one file.

Pure. Certificates are unified and appear once each, without what stands around them
in the objects. Source: KEP-3257.
"""

import base64
import re
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from controlplane.client.base import Object
from controlplane.objects import selectors

_BLOCK = re.compile(
    r"-----BEGIN CERTIFICATE-----\s+"
    r"(?:[^\n]*:[^\n]*\n)*"  # headers
    r"([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----"
)


def chosen(details: Mapping[str, Any], bundles: Iterable[Object]) -> list[Object]:
    """By name, or by signer and labels; no selector chooses nothing, an empty one everything."""
    if name := details.get("name"):
        return [b for b in bundles if b["metadata"]["name"] == name]
    if "labelSelector" not in details:
        return []
    selector = selectors.of_object(details["labelSelector"])
    return [
        b
        for b in bundles
        if b["spec"].get("signerName") == details.get("signerName")
        and selector.matches(b["metadata"].get("labels") or {})
    ]


def bundle(details: Mapping[str, Any], bundles: Iterable[Object]) -> bytes:
    """The file; raise ValueError where there is none and the projection is not optional."""
    found = chosen(details, bundles)
    if not found and not details.get("optional"):
        if name := details.get("name"):
            raise ValueError(f'clustertrustbundles.certificates.k8s.io "{name}" not found')
        raise ValueError(
            "combination of signerName and labelSelector matched zero ClusterTrustBundles"
        )
    certificates = {
        base64.b64decode("".join(block.split()))
        for item in found
        for block in _BLOCK.findall(item["spec"].get("trustBundle", ""))
    }
    return "".join(_pem(certificate) for certificate in sorted(certificates)).encode()


def _pem(certificate: bytes) -> str:
    lines = textwrap.wrap(base64.b64encode(certificate).decode(), 64)
    return "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""])
