"""The command as people use it, into files: refusals, progress, damage, and what lies there."""

import bz2
import gzip
import io
import lzma
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from node.flash import check, run, write
from node.flash.fat import Fat
from node.flash.progress import Progress
from node.settings import UsageError
from tests.unit.firstboot.files import WHOLE
from tests.unit.flash import images

pytestmark = pytest.mark.skipif(
    not shutil.which("mkfs.fat"), reason="mkfs.fat (Debian: dosfstools) is not installed"
)
Flash = Callable[..., int]


@pytest.fixture(scope="module")
def content() -> bytes:
    return images.image(images.fat(images.CONFIG_SIZE))


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def flash(tmp_path: Path, said: list[str], content: bytes) -> Flash:
    (tmp_path / "x.img").write_bytes(content)

    def call(*arguments: str, image: str = "x.img", target: str = "out.img") -> int:
        words = ["--image", str(tmp_path / image), *arguments, str(tmp_path / target)]
        return run.main(words, said.append, said.append)

    return call


def packed(kind: str, content: bytes) -> bytes:
    match kind:
        case "xz":
            return lzma.compress(content, preset=0)
        case "gz":
            return gzip.compress(content, 1)
        case "bz2":
            return bz2.compress(content, 1)
        case "zst":
            if not shutil.which("zstd"):
                pytest.skip("the program zstd is not installed")
            return subprocess.run(
                ["zstd", "-q", "-1", "-c"], input=content, capture_output=True, check=True
            ).stdout
        case _:
            return content


@pytest.mark.parametrize("kind", ["", "xz", "gz", "bz2", "zst"])
def test_an_image_is_written_whatever_packed_it(
    flash: Flash, tmp_path: Path, content: bytes, kind: str
) -> None:
    (tmp_path / "packed").write_bytes(packed(kind, content))
    assert flash(image="packed") == 0
    assert (tmp_path / "out.img").read_bytes() == content


def test_zeros_become_holes_of_a_file(flash: Flash, tmp_path: Path) -> None:
    assert flash() == 0
    found = (tmp_path / "out.img").stat()
    assert found.st_size == 24 * images.MIB
    assert found.st_blocks * 512 < found.st_size


def test_the_configuration_lies_in_the_first_partition(
    flash: Flash, tmp_path: Path, said: list[str]
) -> None:
    (tmp_path / "apps").mkdir()
    (tmp_path / "apps/web.yaml").write_text("kind: Web\n")
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests/a.yaml").write_text("kind: A\n")
    (tmp_path / "pinnace.yaml").write_text(WHOLE)
    assert flash("--config", str(tmp_path / "pinnace.yaml")) == 0
    with (tmp_path / "out.img").open("rb") as file:
        fat = Fat(file.fileno(), images.CONFIG, images.CONFIG_SIZE)
        assert fat.read_file("pinnace.yaml") == WHOLE.encode()
        assert fat.read_file("apps/web.yaml") == b"kind: Web\n"
        assert fat.read_file("manifests/a.yaml") == b"kind: A\n"
    assert "is ready, with pinnace.yaml" in said[-1]


def test_a_folder_of_manifests_may_lie_elsewhere(flash: Flash, tmp_path: Path) -> None:
    (tmp_path / "else/sub").mkdir(parents=True)
    (tmp_path / "else/sub/b.yaml").write_text("kind: B\n")
    assert flash("--manifests", str(tmp_path / "else")) == 0
    with (tmp_path / "out.img").open("rb") as file:
        fat = Fat(file.fileno(), images.CONFIG, images.CONFIG_SIZE)
        assert fat.read_file("manifests/sub/b.yaml") == b"kind: B\n"


def test_mistakes_in_the_configuration_are_all_said_and_nothing_is_written(
    flash: Flash, tmp_path: Path, said: list[str]
) -> None:
    (tmp_path / "pinnace.yaml").write_text("hostname: a_b\nswap: 1\nmanifests: [none.yaml]\n")
    (tmp_path / "m").mkdir()
    (tmp_path / "m/bad.yaml").write_text("a: b: c")
    words = ["--config", str(tmp_path / "pinnace.yaml"), "--manifests", str(tmp_path / "m")]
    assert flash(*words) == 1
    assert len(said) == 4
    assert "manifests/bad.yaml: is not YAML" in " ".join(said)
    assert not (tmp_path / "out.img").exists()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda good: b"hello" * 100_000, "is no disk image"),
        (lambda good: b"", "is no disk image"),
        (lambda good: b"PK\x03\x04" + bytes(1000), "unpack it first"),
        (lambda good: lzma.compress(good, preset=0)[:100], "damaged or was not downloaded"),
        (lambda good: good.replace("root-a".encode("utf-16-le"), b"\0" * 12), "no disk image"),
    ],
)
def test_what_is_no_image_is_refused_before_anything_is_written(
    flash: Flash, said: list[str], *, tmp_path: Path, make: Callable[[bytes], bytes], why: str
) -> None:
    (tmp_path / "bad").write_bytes(make((tmp_path / "x.img").read_bytes()))
    (tmp_path / "out.img").write_bytes(b"precious")
    assert flash("--yes", image="bad") == 1
    assert why in said[-1]
    assert "nothing was written" in said[-1]
    assert (tmp_path / "out.img").read_bytes() == b"precious"


@pytest.mark.parametrize("cut", [9, 15])
def test_an_image_that_is_cut_off_later_leaves_nothing_that_boots(
    flash: Flash, tmp_path: Path, said: list[str], cut: int
) -> None:
    (tmp_path / "short").write_bytes((tmp_path / "x.img").read_bytes()[: cut * images.MIB])
    assert flash(image="short") == 1
    assert "NOT usable" in said[-1]
    assert (tmp_path / "out.img").read_bytes()[: images.MIB] == bytes(images.MIB)


def test_an_image_with_a_tail_is_not_taken(
    flash: Flash, tmp_path: Path, said: list[str], content: bytes
) -> None:
    (tmp_path / "long").write_bytes(content + b"x")
    assert flash(image="long") == 1
    assert "longer than its own table says" in said[-1]


def test_a_medium_that_forgets_is_noticed_and_where(
    flash: Flash, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = write.Target.settle

    def forget(target: write.Target) -> None:
        real(target)
        os.pwrite(target.descriptor, b"?", 13 * images.MIB)

    monkeypatch.setattr(write.Target, "settle", forget)
    assert flash() == 1
    assert "something else than was written, at 13 MB" in said[-1]
    assert "NOT usable" in said[-1]


def test_a_configuration_that_was_not_kept_is_noticed(
    flash: Flash, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pinnace.yaml").write_text("hostname: a\n")
    real = Fat.read_file
    monkeypatch.setattr(Fat, "read_file", lambda fat, path: b"" if real(fat, path) else None)
    assert flash("--config", str(tmp_path / "pinnace.yaml")) == 1
    assert "another pinnace.yaml" in said[-1]


def test_ctrl_c_says_that_the_card_is_not_usable(
    flash: Flash, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Progress.show

    def show(progress: Progress, done: int) -> None:
        real(progress, done)
        if done > 8 * images.MIB:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "show", show)
    assert flash() == run.INTERRUPTED
    assert "stopped" in said[-1]
    assert "NOT usable" in said[-1]
    assert (tmp_path / "out.img").read_bytes()[: images.MIB] == bytes(images.MIB)


def test_files_are_not_overwritten_without_a_word(
    flash: Flash, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out.img").write_bytes(b"precious")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert flash() == 1
    assert "--yes" in said[-1]
    assert flash(target="x.img") == 1
    assert "is the image itself" in said[-1]
    assert flash(target="no/where.img") == 1
    assert flash("--yes") == 0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "code"), [("n\n", 1), ("\n", 1), ("", 1), ("yes\n", 0)])
def test_somebody_is_asked(
    flash: Flash, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, answer: str, code: int
) -> None:
    (tmp_path / "out.img").write_bytes(b"precious")
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert flash() == code


def test_devices_that_are_not_there_or_no_disk(flash: Flash, said: list[str]) -> None:
    for target, why in (("/dev/no-such-disk", "lsblk"), ("/dev/null", "neither a disk nor a")):
        assert flash("--yes", target=target) == 1
        assert why in said[-1]


def test_flags_are_needed() -> None:
    with pytest.raises(UsageError, match="--image"):
        run.main(["x"], print, print)


def test_check_says_all_or_that_it_is_right(tmp_path: Path, said: list[str]) -> None:
    path = tmp_path / "pinnace.yaml"
    path.write_text("hostname: kitchen\n")
    assert check.main([str(path)], said.append, said.append) == 0
    assert "is right" in said[-1]
    path.write_text("hostname: a_b\nswap: 1\n")
    assert check.main([str(path)], said.append, said.append) == 1
    assert "line 2: swap" in said[-2]
    assert check.main([str(tmp_path / "none")], said.append, said.append) == 1
    with pytest.raises(UsageError):
        check.main([], said.append, said.append)


# Progress


@pytest.fixture
def clock() -> Callable[[], float]:
    state = [0.0]

    def tick() -> float:
        state[0] += 1.0
        return state[0]

    return tick


@pytest.mark.parametrize(("stream", "lines"), [(Terminal(), 1), (io.StringIO(), 11)])
def test_a_terminal_gets_a_bar_and_a_file_plain_lines(
    clock: Callable[[], float], stream: io.StringIO, lines: int
) -> None:
    progress = Progress("writing", 200_000_000, stream, clock)
    for done in range(0, 200_000_001, 4_000_000):
        progress.show(done)
    progress.end()
    text = stream.getvalue()
    assert ("\r" in text) == stream.isatty()
    assert text.count("\n") == lines
    for said in ("200 of 200 MB", " 50 %", "MB/s"):
        assert said in text


def test_an_empty_image_has_a_progress_too(clock: Callable[[], float]) -> None:
    progress = Progress("writing", 0, io.StringIO(), clock)
    progress.show(0)
