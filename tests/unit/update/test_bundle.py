"""What is wrong with a bundle is told apart: cut off, changed, a stranger's, another board's."""

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from appliance import cms, keys
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from node.update import signature, verity
from node.update.base import InstallError, RefusedError
from node.update.bundle import LENGTH, check
from tests.fakes.bundles import EPOCH, V2, Bench, pair


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return Bench(tmp_path_factory.mktemp("good")).make().read_bytes()


@pytest.fixture
def judge(tmp_path: Path) -> Callable[[bytes], str]:
    """The reason why these bytes are refused."""

    def reason(content: bytes) -> str:
        path = tmp_path / "judged.raucb"
        path.write_bytes(content)
        with pytest.raises(RefusedError) as caught:
            check(path, pair("ours").keyring, "x86-64")
        assert str(caught.value)
        assert "\n" not in str(caught.value)
        return caught.value.reason

    return reason


def _parts(content: bytes) -> tuple[int, int, int]:
    """Where the hash tree, the signature and its length begin."""
    length = int.from_bytes(content[-LENGTH:])
    end = len(content) - LENGTH - length
    payload = -(-int.from_bytes(content[40:48], "little") // 4096) * 4096
    return payload, end, len(content) - LENGTH


def _flip(content: bytes, at: int, bit: int = 0) -> bytes:
    changed = bytearray(content)
    changed[at] ^= 1 << bit
    return bytes(changed)


def test_a_good_bundle_says_what_it_is(tmp_path: Path) -> None:
    path = Bench(tmp_path).make()
    found = check(path, pair("ours").keyring, "x86-64")
    assert (str(found.version), found.board) == (V2, "x86-64")
    assert (found.size, found.path) == (path.stat().st_size, path)


def test_the_same_content_is_the_same_bundle(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    first, second = bench.make(), bench.make()
    assert first.read_bytes() == second.read_bytes()
    assert bench.make(root=b"another" * 9000).read_bytes() != first.read_bytes()


def test_a_changed_header_is_told(good: bytes, judge: Callable[[bytes], str]) -> None:
    assert judge(_flip(good, 0)) == "Tampered"
    for byte in range(40, 48):  # the length of the squashfs
        assert judge(_flip(good, byte, byte % 8)) == "Tampered"


def test_a_changed_payload_is_told(good: bytes, judge: Callable[[bytes], str]) -> None:
    payload, _, _ = _parts(good)
    for at in (96, 4095, 4096, payload // 2, payload - 1):
        assert judge(_flip(good, at, at % 8)) == "Tampered"


def test_a_changed_hash_tree_is_told(good: bytes, judge: Callable[[bytes], str]) -> None:
    payload, end, _ = _parts(good)
    for at in (payload, payload + 31, (payload + end) // 2, end - 1):
        assert judge(_flip(good, at)) == "Tampered"


def test_no_bit_of_a_signature_can_be_changed(good: bytes, judge: Callable[[bytes], str]) -> None:
    _, begin, end = _parts(good)
    chance = random.Random(4)
    reasons = {
        judge(_flip(good, chance.randrange(begin, end), chance.randrange(8))) for _ in range(300)
    }
    assert reasons <= {"Tampered", "BadSignature"}


def test_a_changed_length_of_the_signature_is_told(
    good: bytes, judge: Callable[[bytes], str]
) -> None:
    for at in range(1, LENGTH + 1):
        assert judge(_flip(good, -at)) == "Tampered"


def test_what_is_cut_off_anywhere_is_told(good: bytes, judge: Callable[[bytes], str]) -> None:
    payload, tree, end = _parts(good)
    fixed = [96, 4096, payload - 1, payload, payload + 1, tree, tree + 1, tree + 5, end, end + 1]
    places = [*fixed, *range(5000, payload, payload // 8), len(good) - 1]
    assert len(places) >= 19
    assert {judge(good[:place]) for place in places} == {"Truncated"}


def test_what_was_appended_is_told(good: bytes, judge: Callable[[bytes], str]) -> None:
    assert judge(good + b"x") == "Tampered"
    assert judge(good + good[-4096:]) == "Tampered"


@pytest.mark.parametrize(
    "content", [b"", b"\x7fELF" * 2000, b"hsqs", bytes(9000)], ids=["none", "elf", "four", "zeros"]
)
def test_what_is_no_bundle_is_called_so(content: bytes, judge: Callable[[bytes], str]) -> None:
    assert judge(content) == "NotABundle"


def test_the_signature_of_another_bundle_does_not_fit(
    good: bytes, tmp_path: Path, judge: Callable[[bytes], str]
) -> None:
    newer = Bench(tmp_path).make("v1.36.9+pinnace1", root=b"another\n" * 75_000).read_bytes()
    _, ours, _ = _parts(good)
    _, theirs, _ = _parts(newer)
    assert judge(good[:ours] + newer[theirs:]) == "Tampered"


def test_a_stranger_is_named(tmp_path: Path) -> None:
    path = Bench(tmp_path).make(by="stranger")
    with pytest.raises(RefusedError, match="CN=Pinnace bundles") as caught:
        check(path, pair("ours").keyring, "x86-64")
    assert caught.value.reason == "BadSignature"


def test_another_board_is_named(tmp_path: Path) -> None:
    path = Bench(tmp_path).make(board="rpi-arm64")
    with pytest.raises(RefusedError, match="pinnace-rpi-arm64, this is pinnace-x86-64") as caught:
        check(path, pair("ours").keyring, "x86-64")
    assert caught.value.reason == "WrongBoard"


def test_a_version_that_is_none_is_refused(tmp_path: Path) -> None:
    path = Bench(tmp_path).make("latest")
    with pytest.raises(RefusedError, match="'latest'"):
        check(path, pair("ours").keyring, "x86-64")


def test_a_file_that_cannot_be_read_may_be_tried_again(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="nowhere"):
        check(tmp_path / "nowhere", pair("ours").keyring, "x86-64")
    with pytest.raises(InstallError, match="keyring"):
        check(Bench(tmp_path).make(), tmp_path / "no-keyring", "x86-64")


# Keys


def _chained(
    folder: Path, *, begin: datetime, end: datetime, usage: x509.ExtendedKeyUsage | None = None
) -> keys.Keys:
    """A key of ours whose own certificate is made anew."""
    ours = pair("ours")
    authority = ours.keyring.parent
    ca = x509.load_pem_x509_certificate((authority / "ca.crt").read_bytes())
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "short")])
    builder = x509.CertificateBuilder(ca.subject, name, key.public_key(), 7, begin, end)
    if usage:
        builder = builder.add_extension(usage, critical=True)
    signer = keys.load_key(authority / "ca.key")
    return replace(ours, key=key, certificates=[builder.sign(signer, hashes.SHA256())])


_SIGNED = datetime.fromtimestamp(EPOCH, UTC)


def test_a_certificate_counts_at_the_time_of_signing_whatever_the_clock_says(
    tmp_path: Path,
) -> None:
    day = timedelta(days=1)
    short = _chained(tmp_path, begin=_SIGNED - day, end=_SIGNED + day)
    path = Bench(tmp_path).make(signer=short)
    assert str(check(path, pair("ours").keyring, "x86-64").version) == V2


def test_a_certificate_that_had_ended_when_it_signed_is_refused(tmp_path: Path) -> None:
    day = timedelta(days=1)
    ended = _chained(tmp_path, begin=_SIGNED - 9 * day, end=_SIGNED - day)
    with pytest.raises(RefusedError, match="not valid when the bundle was signed") as caught:
        check(Bench(tmp_path).make(signer=ended), pair("ours").keyring, "x86-64")
    assert caught.value.reason == "BadSignature"


def test_a_certificate_for_servers_cannot_sign_a_bundle(tmp_path: Path) -> None:
    usage = x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH])
    server = _chained(tmp_path, begin=_SIGNED, end=_SIGNED + timedelta(days=1), usage=usage)
    with pytest.raises(RefusedError, match="not made for signing"):
        check(Bench(tmp_path).make(signer=server), pair("ours").keyring, "x86-64")


def test_a_key_below_ours_is_no_authority(tmp_path: Path) -> None:
    ours = pair("ours")
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "below")])
    begin, end = _SIGNED - timedelta(days=1), _SIGNED + timedelta(days=1)
    leaf = ours.certificates[0]
    builder = x509.CertificateBuilder(leaf.subject, name, key.public_key(), 7, begin, end)
    below = builder.sign(ours.key, hashes.SHA256())
    signer = replace(ours, key=key, certificates=[below, leaf])
    with pytest.raises(RefusedError) as caught:
        check(Bench(tmp_path).make(signer=signer), ours.keyring, "x86-64")
    assert caught.value.reason == "BadSignature"


def test_after_a_rotation_both_keys_count_and_then_the_new_one_alone(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    shutil.copytree(pair("ours").keyring.parent, folder)
    old, new = keys.load(folder), keys.rotate(folder)
    bench = Bench(tmp_path)
    by_old, by_new = bench.make(signer=old), bench.make(signer=new)
    for path in (by_old, by_new):
        check(path, folder / "keyring.pem", "x86-64")
    with pytest.raises(RefusedError):
        check(by_new, pair("ours").keyring, "x86-64")
    keys.forget(folder)
    check(by_new, folder / "keyring.pem", "x86-64")
    with pytest.raises(RefusedError):
        check(by_old, folder / "keyring.pem", "x86-64")


def test_keys_are_made_once_and_nobody_else_reads_them(tmp_path: Path) -> None:
    folder = pair("ours").keyring.parent
    assert keys.ensure(folder).key.private_numbers() == pair("ours").key.private_numbers()
    for name in ("ca.key", "bundle.key"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o077 == 0


def test_a_lost_key_is_not_replaced_by_another(tmp_path: Path) -> None:
    (tmp_path / "keyring.pem").write_bytes(pair("ours").keyring.read_bytes())
    with pytest.raises(keys.KeysError, match="where did it go"):
        keys.ensure(tmp_path)


# Signature and hash tree on their own


def test_a_signature_is_the_same_each_time_and_says_who_and_when() -> None:
    ours = pair("ours")
    first, second = (cms.sign(b"words", ours.key, ours.certificates, _SIGNED) for _ in range(2))
    assert first == second
    signed = signature.verify(first, signature.keyring(ours.keyring))
    assert signed == signature.Signed(content=b"words", signer="CN=Pinnace bundles", when=_SIGNED)


@pytest.mark.parametrize("blocks", [2, 127, 128, 129, 128 * 128, 128 * 128 + 1])
def test_the_size_of_a_hash_tree_is_known_before_it_is_made(blocks: int, tmp_path: Path) -> None:
    path = tmp_path / "payload"
    with path.open("w+b") as file:
        file.truncate(blocks * verity.BLOCK)
        tree = verity.build(file, blocks * verity.BLOCK, bytes(32))
    assert len(tree.data) == verity.tree_size(blocks * verity.BLOCK)
