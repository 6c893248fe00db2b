"""
kubeconfig files: who connects, where to, and with which proof.

The administrator's carries its certificate in it, since people copy it to their
laptops; those of the agent and the operators point to files, so that a renewed
certificate needs no new kubeconfig.
"""

import base64
from pathlib import Path

_TEMPLATE = """\
apiVersion: v1
kind: Config
clusters:
- cluster:
    certificate-authority{ca}
    server: {server}
  name: default
contexts:
- context:
    cluster: default
    user: default
  name: default
current-context: default
users:
- name: default
  user:
    client-certificate{certificate}
    client-key{key}
"""


def embedded(server: str, *, ca: bytes, certificate: bytes, key: bytes) -> bytes:
    """``ca``, ``certificate``, ``key``: PEM."""
    return _TEMPLATE.format(
        server=server, ca=_data(ca), certificate=_data(certificate), key=_data(key)
    ).encode()


def referring(server: str, *, ca: Path, certificate: Path, key: Path) -> bytes:
    return _TEMPLATE.format(
        server=server, ca=f': "{ca}"', certificate=f': "{certificate}"', key=f': "{key}"'
    ).encode()


def _data(pem: bytes) -> str:
    return f"-data: {base64.b64encode(pem).decode()}"
