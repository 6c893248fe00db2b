"""
The accounts of an image: what base-passwd and systemd-sysusers would have made, as a table.

Who owns a file on the data partition is a number there, and the next version must mean the
same one by it: so every account that a package asks for has its number here, for ever.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_MASTER = "usr/share/base-passwd"
_SYSUSERS = "usr/lib/sysusers.d"
_NO_SHELL = "/usr/sbin/nologin"

# Never change or reuse a number. Accounts of Debian's base-passwd have theirs there.
NUMBERS: Mapping[str, int] = {
    "systemd-network": 998,
    "systemd-resolve": 997,
    "systemd-timesync": 996,
    "messagebus": 995,
    "sshd": 994,
    "systemd-journal": 993,
    "input": 992,
    "sgx": 991,
    "clock": 990,
    "kvm": 989,
    "render": 988,
    "crontab": 987,
    "netdev": 986,
    "_ssh": 985,
    "systemd-coredump": 984,
    "rdma": 983,
    "tss": 982,
    "systemd-bus-proxy": 981,
}


class UserError(Exception):
    """A package asks for an account that has no number; the text says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """The texts of the four files, each sorted by number."""

    passwd: str
    group: str
    shadow: str
    gshadow: str

    def number(self, user: str) -> int:
        return int(_column(self.passwd, user, 2))

    def group_number(self, group: str) -> int:
        return int(_column(self.group, group, 2))


def _column(text: str, name: str, index: int) -> str:
    for line in text.splitlines():
        if line.startswith(f"{name}:"):
            return line.split(":")[index]
    raise UserError(f"there is no account {name}")


def of(tree: Path) -> Accounts:
    """From what the unpacked packages ask for. Raises :class:`UserError`."""
    users = dict(_rows((tree / _MASTER / "passwd.master").read_text()))
    groups = dict(_rows((tree / _MASTER / "group.master").read_text()))
    wanted = [line for path in sorted((tree / _SYSUSERS).glob("*.conf")) for line in _lines(path)]
    for kind, name, number, *_ in wanted:
        own = kind.startswith("u") and name not in users and ":" not in number
        if kind == "g" or own:
            groups.setdefault(name, ["*", _number(name, number), ""])
    for kind, name, number, comment, home, shell in wanted:
        if kind.startswith("u") and name not in users:
            group = _group(groups, name, number)
            uid = _number(name, number)
            users[name] = ["*", uid, group, comment, home or "/", shell or _NO_SHELL]
    for kind, name, group, *_ in wanted:
        if kind == "m":
            _join(groups, name, group)
    users["root"][4:] = ["/root", "/bin/bash"]
    return _texts(users, groups)


def _rows(text: str) -> Iterable[tuple[str, list[str]]]:
    for line in text.splitlines():
        name, *rest = line.split(":")
        yield name, rest


def _lines(path: Path) -> Iterable[tuple[str, str, str, str, str, str]]:
    """Type, name, number, comment, home, shell of each line; "" for what is not told."""
    for line in path.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        words = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', line)]
        kind, name, *rest = (word if word != "-" else "" for word in words)
        number, comment, home, shell = [*rest, "", "", "", ""][:4]
        yield kind, name, number, comment, home, shell


def _number(name: str, told: str) -> str:
    """``told``: a number, or "user:group" of sysusers.d(5), or nothing."""
    first = told.partition(":")[0]
    if first.isdigit():
        return first
    if name not in NUMBERS:
        raise UserError(f"a package wants an account {name}: give it a number in users.py")
    return str(NUMBERS[name])


def _group(groups: Mapping[str, list[str]], user: str, told: str) -> str:
    """The number of a user's own group: its namesake, or after a colon a number or a name."""
    other = told.partition(":")[2]
    return other if other.isdigit() else groups[other or user][1]


def _join(groups: dict[str, list[str]], user: str, group: str) -> None:
    row = groups.setdefault(group, ["*", _number(group, ""), ""])
    members = [name for name in row[2].split(",") if name]
    row[2] = ",".join(dict.fromkeys([*members, user]))


def _texts(users: Mapping[str, list[str]], groups: Mapping[str, list[str]]) -> Accounts:
    by_number = sorted(users.items(), key=lambda item: int(item[1][1]))
    groups_by_number = sorted(groups.items(), key=lambda item: int(item[1][1]))
    # Nobody has a password, and "*" (unlike "!") lets keys in. No date: there was no clock.
    return Accounts(
        passwd="".join(f"{n}:x:{':'.join(row[1:])}\n" for n, row in by_number),
        group="".join(f"{n}:x:{':'.join(row[1:])}\n" for n, row in groups_by_number),
        shadow="".join(f"{n}:*::0:99999:7:::\n" for n, _ in by_number),
        gshadow="".join(f"{n}:*::{row[2]}\n" for n, row in groups_by_number),
    )
