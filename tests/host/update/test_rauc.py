"""The real RAUC agrees: about bundles that are good, and about those that are not."""

import shutil
import subprocess
from pathlib import Path

import pytest
from appliance import bundle, keys, slots

from node.update import boot, rauc
from node.update.base import InstallError, RefusedError
from node.update.bundle import LENGTH, check
from tests.fakes.bundles import V2, Bench, pair
from tests.host.update.image_machine import ImageMachine, squash_root

BOARD = "x86-64"
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which("rauc"), reason="rauc is not installed"),
    pytest.mark.skipif(not shutil.which("mksquashfs"), reason="mksquashfs is not installed"),
]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    bench = Bench(tmp_path, bundle.mksquashfs)
    return bench.make(root=squash_root(tmp_path / "root", V2, BOARD))


def _rauc(
    folder: Path, *words: str, clock: str = "", keyring: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """``rauc`` with the configuration of an image."""
    tree = folder / "image"
    slots.configure(tree, BOARD, keyring or pair("ours").keyring)
    configuration = tree / slots.CONFIGURATION
    text = configuration.read_text().replace(f"/{slots.KEYRING}", str(tree / slots.KEYRING))
    configuration.write_text(text.replace("/data/rauc", str(folder)))
    command = ["rauc", "-c", str(configuration), *words]
    faked = ["faketime", clock, *command] if clock else command
    return subprocess.run(faked, capture_output=True, text=True, check=False)


def test_rauc_reads_the_bundle_as_we_do(good: Path, tmp_path: Path) -> None:
    told = _rauc(tmp_path, "info", "--output-format=shell", str(good))
    assert told.returncode == 0, told.stderr
    for line in (
        "RAUC_MF_COMPATIBLE='pinnace-x86-64'",
        f"RAUC_MF_VERSION='{V2}'",
        "RAUC_MF_IMAGES=2",
    ):
        assert line in told.stdout.splitlines()


@pytest.mark.skipif(not shutil.which("faketime"), reason="faketime is not installed")
@pytest.mark.parametrize("clock", ["1970-01-02", "2012-02-29", "2039-01-01", "2120-01-01"])
def test_no_clock_keeps_rauc_from_trusting_a_bundle(good: Path, tmp_path: Path, clock: str) -> None:
    told = _rauc(tmp_path, "info", str(good), clock=clock)
    assert told.returncode == 0, told.stderr


def test_rauc_takes_the_payload_apart_by_our_hash_tree(good: Path, tmp_path: Path) -> None:
    told = _rauc(tmp_path, "extract", str(good), str(tmp_path / "out"))
    assert told.returncode == 0, told.stderr
    for name in ("root.squashfs", "boot.img"):
        assert (tmp_path / "out" / name).read_bytes() == (good.parent / name).read_bytes()


def _changed(path: Path, at: int) -> Path:
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    changed = path.with_name("changed.raucb")
    changed.write_bytes(content)
    return changed


def _places(path: Path) -> list[int]:
    """In the payload, the hash tree and the signature: its certificate, its content, itself."""
    size = path.stat().st_size
    length = int.from_bytes(path.read_bytes()[-LENGTH:])
    end = size - LENGTH - length
    return [5000, end // 2, end - 4000, end + 100, end + length // 2, size - LENGTH - 9]


def test_what_we_refuse_as_changed_rauc_refuses_too(good: Path, tmp_path: Path) -> None:
    for place in _places(good):
        changed = _changed(good, place)
        with pytest.raises(RefusedError):
            check(changed, pair("ours").keyring, BOARD)
        told = _rauc(tmp_path, "extract", str(changed), str(tmp_path / f"out{place}"))
        assert told.returncode != 0, f"byte {place}"


def test_rauc_trusts_no_stranger_either(good: Path, tmp_path: Path) -> None:
    told = _rauc(tmp_path, "info", str(good), keyring=pair("stranger").keyring)
    assert told.returncode != 0
    assert "signature verification failed" in told.stderr


def test_rauc_trusts_both_keys_of_a_rotation(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    shutil.copytree(pair("ours").keyring.parent, folder)
    old, new = keys.load(folder), keys.rotate(folder)
    bench = Bench(tmp_path, bundle.mksquashfs)
    root = squash_root(tmp_path / "root", V2, BOARD)
    for signer in (old, new):
        path = bench.make(root=root, signer=signer)
        assert _rauc(tmp_path, "info", str(path), keyring=new.keyring).returncode == 0
        check(path, new.keyring, BOARD)


def test_a_bundle_that_rauc_made_is_good_here_too(tmp_path: Path) -> None:
    content = tmp_path / "content"
    content.mkdir()
    (content / "root.squashfs").write_bytes(squash_root(tmp_path / "root", V2, BOARD))
    (content / "manifest.raucm").write_text(
        f"[update]\ncompatible=pinnace-{BOARD}\nversion={V2}\n"
        "[bundle]\nformat=verity\n[image.rootfs]\nfilename=root.squashfs\n"
    )
    folder = pair("ours").keyring.parent
    signed = ("--cert", str(folder / "bundle.crt"), "--key", str(folder / "bundle.key"))
    made = tmp_path / "made.raucb"
    told = subprocess.run(
        ["rauc", *signed, "bundle", str(content), str(made)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert str(check(made, folder / "keyring.pem", BOARD).version) == V2


# RAUC at work, with somebody in its place who does not do it


async def _install_by(machine: ImageMachine, program: str) -> rauc.RaucSlots:
    """Installs by a shell script; the slots afterwards."""
    made = machine.attach("a")
    script = machine.folder / "rauc"
    script.write_text(f"#!/bin/sh\n{program}\n")
    script.chmod(0o755)
    places = rauc.Places(
        keyring=machine.keyring,
        status=made.places.status,
        devices=made.places.devices,
        install=(str(script),),
        begin_service=("true",),
        end_service=("touch", str(machine.folder / "ended")),
    )
    found = rauc.RaucSlots(
        board=BOARD,
        version=made.version,
        slot="a",
        trial=False,
        loader=machine.loader,
        places=places,
    )
    try:
        checked = await found.check(machine.bundle(V2))
        await found.install(checked, lambda _: None)
    finally:
        assert (machine.folder / "ended").exists()
        assert (await found.running()).name == "a"
    return found


@pytest.fixture
def machine(tmp_path: Path) -> ImageMachine:
    made = ImageMachine(tmp_path, BOARD)
    made.devices.mkdir()
    return made


async def test_raucs_last_error_is_the_reason_and_the_slot_stays_bad(
    machine: ImageMachine,
) -> None:
    program = "echo ' 20% Copying'; echo 'LastError: Failed to copy: No space left'; exit 1"
    with pytest.raises(InstallError, match="RAUC: Failed to copy: No space left"):
        await _install_by(machine, program)
    assert machine.loader.read() == boot.State(bad=frozenset("b"))


async def test_what_rauc_reads_damaged_is_called_tampered(machine: ImageMachine) -> None:
    program = 'printf X | dd of="$1" bs=1 seek=6000 conv=notrunc 2>&1; exit 1'
    with pytest.raises(RefusedError) as caught:
        await _install_by(machine, program)
    assert caught.value.reason == "Tampered"
    assert machine.loader.read().bad == {"b"}


async def test_raucs_own_doubt_about_a_signature_counts(machine: ImageMachine) -> None:
    program = "echo 'LastError: signature verification failed: revoked'; exit 1"
    with pytest.raises(RefusedError, match="revoked") as caught:
        await _install_by(machine, program)
    assert caught.value.reason == "BadSignature"


async def test_without_rauc_nothing_is_installed(machine: ImageMachine) -> None:
    with pytest.raises(InstallError, match="exit code 127"):
        await _install_by(machine, "exit 127")


async def test_a_slot_that_was_committed_and_died_is_overwritten(machine: ImageMachine) -> None:
    machine.loader.write(boot.State(primary="b", tries=4, good=frozenset("ab")))
    with pytest.raises(InstallError):
        await _install_by(machine, "exit 1")
    assert machine.loader.read() == boot.State(bad=frozenset("b"))
