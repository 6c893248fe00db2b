from pathlib import Path

import pytest

from operators import elsewhere
from operators.config import read_kubeconfig
from operators.elsewhere import Elsewhere, UsageError, seconds

POD = {"KUBERNETES_SERVICE_HOST": "10.43.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.fixture
def account(tmp_path: Path) -> Path:
    folder = tmp_path / "account"
    folder.mkdir()
    (folder / "token").write_text("first")
    (folder / "ca.crt").write_text("CA")
    (folder / "namespace").write_text("ops")
    return folder


def read(account: Path, *flags: str, **environment: str) -> Elsewhere:
    run_dir = f"--run-dir={account.parent / 'run'}"
    return elsewhere.read([run_dir, *flags], POD | environment, account)


def test_a_pod_uses_its_service_account(account: Path) -> None:
    config = read(account).config
    found = read_kubeconfig(config.kubeconfig)
    assert found.server == "https://10.43.0.1:443"
    assert (found.ca, found.bearer()) == ("CA", "first")
    assert config.namespace == "ops"
    assert config.kubernetes_api == "10.43.0.1:443"
    assert config.native is False


def test_a_token_that_was_renewed_is_read_again(account: Path) -> None:
    found = read_kubeconfig(read(account).config.kubeconfig)
    (account / "token").write_text("second\n")
    assert found.bearer() == "second"


def test_an_ipv6_address_gets_its_brackets(account: Path) -> None:
    config = read(account, KUBERNETES_SERVICE_HOST="fd00::1").config
    assert read_kubeconfig(config.kubeconfig).server == "https://[fd00::1]:443"


def test_what_is_no_pod_needs_a_kubeconfig(account: Path) -> None:
    with pytest.raises(UsageError, match="give --kubeconfig=FILE"):
        elsewhere.read([], {}, account)
    with pytest.raises(UsageError, match=r"cannot log in: .*nothing"):
        elsewhere.read(["--kubeconfig=/nothing"], {}, account)


def test_a_flag_beats_the_environment(account: Path) -> None:
    told = read(account, "--lease-name=flag", PINNACE_LEASE_NAME="there", NODE_NAME="n1")
    assert told.election is not None
    assert told.election.name == "flag"
    assert told.config.node_name == "n1"
    assert read(account, PINNACE_OPERATORS="netpol").config.operators == {"netpol"}


def test_two_processes_have_two_names(account: Path) -> None:
    one, two = (read(account, POD_NAME="same").election for _ in range(2))
    assert one is not None
    assert two is not None
    assert one.identity != two.identity
    assert one.identity.startswith("same_")


def test_without_a_lease_everybody_acts(account: Path) -> None:
    assert read(account, "--leader-elect=false").election is None


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--operators=helm,nothing", "no operator 'nothing'"),
        ("--operators=queue", "no operator 'queue'"),
        ("--operators=../helm", "no operator"),
        ("--operators=", "names separated by commas"),
        ("--lease-duration=5s", "must hold"),
        ("--lease-duration=soon", "lease-duration"),
        ("--health-address=here", "ADDRESS:PORT"),
        ("--health-address=:99999", "ADDRESS:PORT"),
        ("--network-policy-fail=maybe", "network-policy-fail"),
        ("--leader-elect=perhaps", "leader-elect"),
        ("--unknown", "--unknown"),
    ],
)
def test_what_cannot_be_is_named_in_one_line(account: Path, flag: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        read(account, flag)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "wanted"), [("15s", 15.0), ("1m30s", 90.0), ("500ms", 0.5), ("1.5h", 5400.0)]
)
def test_durations_are_go_s(text: str, wanted: float) -> None:
    assert seconds(text) == wanted


@pytest.mark.parametrize("user", ["exec: {command: aws}", "auth-provider: {}", "username: a"])
def test_a_user_that_logs_in_by_other_means_is_refused_by_name(tmp_path: Path, user: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(
        "current-context: a\n"
        "contexts: [{name: a, context: {cluster: a, user: a}}]\n"
        "clusters: [{name: a, cluster: {server: 'https://a'}}]\n"
        f"users: [{{name: a, user: {{{user}}}}}]\n"
    )
    with pytest.raises(ValueError, match=user.partition(":")[0]):
        read_kubeconfig(path)
