"""The tool that makes channels, read by those who follow them."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from appliance import channel

from operators.upgrade.base import OfferError
from operators.upgrade.channels.run import SignedChannels

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
OLD, NEW = "v1.36.9+pinnace1", "v1.36.10+pinnace1"


def put(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"pinnace-{name}.raucb" for name in names]
    for path in paths:
        path.write_bytes(path.name.encode())
    return paths


def make(folder: Path, *arguments: Any, at: datetime = NOW) -> int:
    keys = f"--keys={folder.parent / 'keys'}"
    return channel.main([str(folder), keys, *map(str, arguments)], at)


def said(folder: Path) -> Any:
    return json.loads((folder / channel.CHANNEL).read_text())


async def test_a_channel_of_the_tool_is_one_that_plans_follow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = put(tmp_path / "made", f"{OLD}-x86-64", f"{NEW}-x86-64", f"{NEW}-rpi-arm64")
    folder = tmp_path / "stable"
    assert make(folder, *made, "--notes=Faster") == 0
    key = capsys.readouterr().out.partition("channelKey: ")[2].strip()
    spec = {"channel": str(folder), "channelKey": key}
    asking = SignedChannels(now=lambda: NOW)
    found = await asking.offers(spec, ["x86-64", "rpi-arm64"])
    assert {offer.version for offer in found.values()} == {NEW}
    assert found["rpi-arm64"].url == str(folder / made[2].name)
    assert (folder / made[2].name).samefile(made[2])
    assert found["x86-64"].serial == 1
    by_file = {"channel": str(folder), "channelKey": (tmp_path / "keys/channel.pem").read_text()}
    assert await asking.offers(by_file, ["x86-64"]) == {"x86-64": found["x86-64"]}
    with pytest.raises(OfferError, match="for rpi-arm64, x86-64, not for package-amd64"):
        await asking.offers(spec, ["package-amd64"])


def test_the_private_key_is_nobody_elses(tmp_path: Path) -> None:
    put(tmp_path / "stable", f"{OLD}-x86-64")
    assert make(tmp_path / "stable") == 0
    assert (tmp_path / "keys" / "channel.key").stat().st_mode & 0o777 == 0o600


def test_the_serial_grows_with_what_changes_alone(tmp_path: Path) -> None:
    folder = tmp_path / "stable"
    put(folder, f"{OLD}-x86-64")
    make(folder, "--name=edge", "--notes=First")
    before = (folder / channel.CHANNEL).read_bytes()
    make(folder, at=NOW + timedelta(days=9))
    assert (folder / channel.CHANNEL).read_bytes() == before, "nothing changed"
    put(folder, f"{NEW}-x86-64")
    make(folder, f"--latest={OLD}", at=NOW + timedelta(days=10))
    found = said(folder)
    assert (found["name"], found["serial"], found["latest"]) == ("edge", 2, OLD)
    assert [(r["version"], r["date"], r["notes"]) for r in found["releases"]] == [
        (NEW, "2026-12-04", ""),
        (OLD, "2026-11-24", "First"),
    ]


def test_a_signature_that_is_gone_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "stable"
    put(folder, f"{OLD}-x86-64")
    make(folder)
    (folder / channel.SIGNATURE).unlink()
    make(folder)
    assert (folder / channel.SIGNATURE).exists()


def test_an_end_is_told(tmp_path: Path) -> None:
    put(tmp_path / "stable", f"{OLD}-x86-64")
    make(tmp_path / "stable", "--days=30")
    assert said(tmp_path / "stable")["expires"] == "2026-12-24T12:00:00Z"


@pytest.mark.parametrize(
    ("names", "arguments", "why"),
    [
        ((), (), "has no pinnace-<version>-<board>.raucb"),
        ((f"{OLD}-toaster",), (), "is no name such as"),
        ((f"{OLD}-x86-64",), (f"--latest={NEW}",), f"has no bundle of {NEW}"),
        (("vnext-x86-64",), (), "is no version such as"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    *,
    names: tuple[str, ...],
    arguments: tuple[str, ...],
    why: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put(tmp_path / "stable", *names)
    assert make(tmp_path / "stable", *arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert why in line
    assert not (tmp_path / "stable" / channel.CHANNEL).exists()


def test_a_channel_that_cannot_be_read_does_not_begin_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "stable", f"{OLD}-x86-64")
    (tmp_path / "stable" / channel.CHANNEL).write_text("{")
    assert make(tmp_path / "stable") == 1
    assert "cannot be read" in capsys.readouterr().err


def test_bundles_are_verified_where_a_keyring_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "stable", f"{OLD}-x86-64")
    keyring = tmp_path / "none.pem"
    assert make(tmp_path / "stable", f"--keyring={keyring}") == 1
    assert "the keyring" in capsys.readouterr().err
