"""What an operator was told, for tests: a test changes what it is about."""

import dataclasses
from pathlib import Path
from typing import Any

from operators.config import Config

_NOTHING = Path("/nonexistent")
_TOLD = Config(
    kubeconfig=_NOTHING / "kubeconfig",
    operators=frozenset(),
    disable=frozenset(),
    native=True,
    node_name="pi",
    namespace="kube-system",
    data_dir=_NOTHING,
    run_dir=_NOTHING,
    storage_dir=_NOTHING / "storage",
    network_policy_fail="closed",
    kubernetes_api="127.0.0.1:6443",
    python="",
    program_dir=Path("/"),
    path="/usr/sbin:/usr/bin:/sbin:/bin",
    proxy={},
)


def config(**changes: Any) -> Config:
    return dataclasses.replace(_TOLD, **changes)
