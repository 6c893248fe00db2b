"""Accounts have the same numbers in every version: who owns a file is a number on the disk."""

from pathlib import Path

import pytest
from appliance import users
from appliance.users import UserError

PASSWD = (
    "root:*:0:0:root:/root:/bin/bash\nnobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
)
GROUP = "root:*:0:\nadm:*:4:\nshadow:*:42:\nnogroup:*:65534:\n"
SYSUSERS = """\
# a comment
u! systemd-network - "systemd Network Management" -
u! sshd            - "sshd user"                  /run/sshd
g  systemd-journal -
g  fixed           77
u  svc             88:fixed "a service"           /srv  /bin/sh
m  svc             systemd-journal
"""


def tree(folder: Path, sysusers: str = SYSUSERS) -> Path:
    base = folder / "usr/share/base-passwd"
    base.mkdir(parents=True)
    (base / "passwd.master").write_text(PASSWD)
    (base / "group.master").write_text(GROUP)
    (folder / "usr/lib/sysusers.d").mkdir(parents=True)
    (folder / "usr/lib/sysusers.d/a.conf").write_text(sysusers)
    return folder


def test_accounts_have_the_numbers_of_the_table(tmp_path: Path) -> None:
    made = users.of(tree(tmp_path))
    assert made.passwd.splitlines() == [
        "root:x:0:0:root:/root:/bin/bash",
        "svc:x:88:77:a service:/srv:/bin/sh",
        "sshd:x:994:994:sshd user:/run/sshd:/usr/sbin/nologin",
        "systemd-network:x:998:998:systemd Network Management:/:/usr/sbin/nologin",
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin",
    ]
    assert "systemd-journal:x:993:svc" in made.group.splitlines()
    assert "fixed:x:77:" in made.group.splitlines()
    assert made.number("sshd") == 994
    assert made.group_number("shadow") == 42


def test_nobody_has_a_password_and_nobody_is_locked_for_keys(tmp_path: Path) -> None:
    made = users.of(tree(tmp_path))
    assert {line.split(":")[1] for line in made.shadow.splitlines()} == {"*"}
    assert {line.split(":")[2] for line in made.shadow.splitlines()} == {""}


def test_the_same_packages_give_the_same_accounts(tmp_path: Path) -> None:
    assert users.of(tree(tmp_path / "one")) == users.of(tree(tmp_path / "two"))


def test_an_account_without_a_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="an account new: give it a number"):
        users.of(tree(tmp_path, "u new - - -\n"))


def test_no_two_accounts_of_the_table_share_a_number() -> None:
    numbers = list(users.NUMBERS.values())
    assert len(numbers) == len(set(numbers))
