"""Flags, files and environment become settings by K3s's rules of precedence."""

from pathlib import Path

import pytest

from node.settings import UsageError, read


def settings(
    *arguments: str, files: dict[str, str] | None = None, folder: Path, **env: str
) -> dict:  # type: ignore[type-arg]
    config = folder / "config.yaml"
    for name, text in (files or {"config.yaml": ""}).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    if not config.exists():
        config.write_text("")
    fixed = ("--node-name=n1", "--node-ip=192.0.2.7", f"--config={config}")
    return read("server", [*fixed, *arguments], env)


def test_a_flag_beats_the_file_beats_the_environment(tmp_path: Path) -> None:
    files = {"config.yaml": "cluster-domain: file\nmax-pods: 7\n"}
    env = {"PINNACE_CLUSTER_DOMAIN": "env", "PINNACE_MAX_PODS": "8", "PINNACE_TOKEN": "secret"}
    found = settings("--cluster-domain=flag", files=files, folder=tmp_path, **env)
    assert (found["cluster-domain"], found["max-pods"], found["token"]) == ("flag", 7, "secret")


def test_a_repeatable_flag_replaces_the_list_of_the_file(tmp_path: Path) -> None:
    files = {"config.yaml": "tls-san: [a, b]\n"}
    assert settings(files=files, folder=tmp_path)["tls-san"] == ("a", "b")
    found = settings("--tls-san=c", "--tls-san", "d,e", files=files, folder=tmp_path)
    assert found["tls-san"] == ("c", "d", "e")


def test_the_last_file_wins_and_plus_appends(tmp_path: Path) -> None:
    files = {
        "config.yaml": "node-label: [a=1]\ncluster-domain: one\n",
        "config.yaml.d/10.yaml": "node-label+: [b=2]\ncluster-domain: two\n",
        "config.yaml.d/20.yaml": "node-label+: c=3\n",
    }
    found = settings(files=files, folder=tmp_path)
    assert found["node-label"] == ("a=1", "b=2", "c=3")
    assert found["cluster-domain"] == "two"


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        pytest.param(
            "--cluster-cdir=10.0.0.0/16", "did you mean --cluster-cidr?", id="typing-error"
        ),
        pytest.param("--etcd-s3", "--etcd-s3 is not supported by Pinnace", id="only-k3s-has-it"),
        pytest.param("--max-pods=many", "--max-pods takes a whole number", id="number"),
        pytest.param("--debug=perhaps", "--debug takes true or false", id="boolean"),
        pytest.param("--token", "--token needs a value", id="value-missing"),
        pytest.param("serve", "unexpected argument 'serve'", id="stray-word"),
        pytest.param("--cluster-cidr=10.42.0.1/16", "takes an IPv4 network", id="host-bits"),
        pytest.param("--service-cidr=10.42.0.0/24", "overlap", id="overlap"),
        pytest.param("--cluster-dns=10.42.0.10", "within --service-cidr", id="dns-outside"),
        pytest.param("--https-listen-port=70000", "takes a port", id="port"),
        pytest.param("--node-name=Not_DNS", "is not a DNS name", id="name"),
        pytest.param("--node-taint=a=b", "key=value:Effect", id="taint"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(argument: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        settings(argument, folder=tmp_path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("max-podz: 3", "did you mean max-pods in ", id="typing-error"),
        pytest.param("[1, 2]", "must hold keys and values", id="a-list"),
        pytest.param("a: [", "is not YAML", id="broken"),
        pytest.param("max-pods: [1, 2]", "takes one value", id="list-for-one"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"config\.yaml") as caught:
        settings(files={"config.yaml": text}, folder=tmp_path)
    assert says in str(caught.value)


def test_a_configuration_file_that_was_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read("server", [f"--config={tmp_path}/none.yaml"], {})


def test_flags_of_the_server_are_refused_for_an_agent(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="remove it from `pinnace agent`"):
        read("agent", ["--tls-san=x"], {})
