"""K3s's registries.yaml as containerd's files."""

import tomllib

import pytest

from node import registries

WHOLE = {
    "mirrors": {
        "docker.io": {"endpoint": ["https://mirror.lan:5000", "http://plain.lan/proxy/v2"]},
        "*": {"endpoint": ["cache.lan"]},
        "empty.io": {},
    },
    "configs": {
        "mirror.lan:5000": {
            "auth": {"username": "me", "password": 'ge"heim'},
            "tls": {"ca_file": "/etc/ca.pem", "cert_file": "/c.pem", "key_file": "/k.pem"},
        },
        "own.lan": {"tls": {"insecure_skip_verify": True}},
        "registry-1.docker.io": {"auth": {"identity_token": "t"}},
    },
}


def test_mirrors_come_first_and_the_registry_itself_last() -> None:
    text = registries.hosts(registries.parse(WHOLE))["docker.io"]
    read = tomllib.loads(text)
    assert read["server"] == "https://registry-1.docker.io"
    mirror, plain = list(read["host"])[:2]
    assert (mirror, plain) == ("https://mirror.lan:5000", "http://plain.lan/proxy/v2")
    assert read["host"][mirror]["ca"] == ["/etc/ca.pem"]
    assert read["host"][mirror]["client"] == [["/c.pem", "/k.pem"]]
    assert read["host"][plain]["override_path"] is True
    assert read["host"][mirror]["capabilities"] == ["pull", "resolve"]


def test_the_mirror_of_all_is_containerds_default() -> None:
    read = tomllib.loads(registries.hosts(registries.parse(WHOLE))["_default"])
    assert list(read["host"]) == ["https://cache.lan"]
    assert "server" not in read


def test_a_registry_with_certificates_of_its_own_needs_no_mirror() -> None:
    read = tomllib.loads(registries.hosts(registries.parse(WHOLE))["own.lan"])
    assert read["host"]["https://own.lan"]["skip_verify"] is True


def test_credentials_go_into_the_configuration() -> None:
    read = tomllib.loads(registries.credentials(registries.parse(WHOLE)))
    configs = read["plugins"]["io.containerd.grpc.v1.cri"]["registry"]["configs"]
    assert configs["mirror.lan:5000"]["auth"] == {"username": "me", "password": 'ge"heim'}
    assert configs["registry-1.docker.io"]["auth"] == {"identitytoken": "t"}


def test_nothing_gives_nothing() -> None:
    contents: tuple[object, ...] = (None, {}, {"mirrors": {}})
    for content in contents:
        read = registries.parse(content)
        assert registries.hosts(read) == {}
        assert registries.credentials(read) == ""


@pytest.mark.parametrize(
    ("content", "path"),
    [
        ([], ""),
        ({"mirror": {}}, "mirror"),
        ({"mirrors": []}, "mirrors"),
        ({"mirrors": {"a b": {}}}, "mirrors.a b"),
        ({"mirrors": {"a": []}}, "mirrors.a"),
        ({"mirrors": {"a": {"rewrite": {}}}}, "mirrors.a.rewrite"),
        ({"mirrors": {"a": {"endpoint": "x"}}}, "mirrors.a.endpoint"),
        ({"mirrors": {"a": {"endpoint": ["ftp://x"]}}}, "mirrors.a.endpoint[0]"),
        ({"mirrors": {"../a": {}}}, "mirrors.../a"),
        ({"configs": {"a": {"tls": {"ca": "x"}}}}, "configs.a.tls.ca"),
        ({"configs": {"a": {"tls": {"insecure_skip_verify": "x"}}}}, "configs.a.tls.insecure"),
        ({"configs": {"a": {"auth": {"user": "x"}}}}, "configs.a.auth.user"),
    ],
)
def test_mistakes_are_named_with_their_place(content: object, path: str) -> None:
    ((found, message), *_) = registries.wrong_with(content)
    assert found.startswith(path)
    assert message
    with pytest.raises(ValueError, match=r"\w"):
        registries.parse(content or ["x"])
