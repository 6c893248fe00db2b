from base64 import b64encode
from pathlib import Path

import pytest

from node import settings
from operators.config import Credentials, from_settings, read_kubeconfig

HEAD = """
current-context: there
contexts: [{name: there, context: {cluster: c, user: u}}]
"""


def test_the_settings_of_a_server_lead_to_its_own_api() -> None:
    given = settings.read("server", ["--data-dir=/data", "--disable=servicelb"], {})
    config = from_settings(given)
    assert config.kubeconfig == Path("/data/agent/operators.kubeconfig")
    assert config.disable == {"servicelb"}
    assert config.kubernetes_api == "127.0.0.1:6443"


def test_a_proxy_is_for_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy")
    monkeypatch.setenv("SECRET", "no")
    proxy = from_settings(settings.read("server", [], {})).proxy
    assert proxy["https_proxy"] == "http://proxy"
    assert "SECRET" not in proxy


def test_a_kubeconfig_is_read_with_data_and_with_files(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("CA")
    path = tmp_path / "kubeconfig"
    certificate = b64encode(b"CERT").decode()
    path.write_text(
        f"{HEAD}"
        "clusters: [{name: c, cluster: {server: 'https://a:1', certificate-authority: ca.crt}}]\n"
        f"users: [{{name: u, user: {{client-certificate-data: {certificate}, token: t}}}}]\n"
    )
    assert read_kubeconfig(path) == Credentials(
        server="https://a:1", ca="CA", certificate="CERT", key="", token="t", insecure=False
    )


@pytest.mark.parametrize("text", ["", "a: [", "contexts: []", HEAD])
def test_what_is_no_kubeconfig_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(ValueError, match="no kubeconfig"):
        read_kubeconfig(path)


def test_upgrades_are_planned_on_servers_and_can_be_switched_off() -> None:
    def operators(role: str, *flags: str) -> frozenset[str]:
        return from_settings(settings.read(role, [*flags], {})).operators

    assert "upgrade" in operators("server")
    assert "upgrade" not in operators("server", "--disable=upgrade")
