"""Clients made from files."""

from pathlib import Path

import pytest
import yaml

from controlplane.client.http import from_kubeconfig
from controlplane.objects.resources import NODES
from tests.fakes.api_server import listening


def kubeconfig(path: Path, server: str, user: dict[str, str]) -> Path:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [
            {"name": "other", "context": {"cluster": "no", "user": "no"}},
            {"name": "here", "context": {"cluster": "c", "user": "u"}},
        ],
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(yaml.safe_dump(config))
    return path


async def test_the_current_context_is_used(tmp_path: Path) -> None:
    async with listening() as served:
        path = kubeconfig(tmp_path / "config", served.url, {"token": "secret"})
        async with from_kubeconfig(path) as client:
            assert (await client.list(NODES)).items == []


async def test_a_token_may_stand_in_a_file(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    path = kubeconfig(tmp_path / "config", "http://127.0.0.1:1", {"tokenFile": str(token)})
    client = from_kubeconfig(path)
    assert client._headers["Authorization"] == "Bearer secret"


def test_a_context_that_is_not_there_is_told(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "config", "http://127.0.0.1:1", {})
    config = yaml.safe_load(path.read_text()) | {"current-context": "nowhere"}
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(KeyError, match="nowhere"):
        from_kubeconfig(path)
