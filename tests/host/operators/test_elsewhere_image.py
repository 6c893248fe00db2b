"""The image of the operators: complete, small enough, and the same each time."""

import subprocess
from pathlib import Path, PurePosixPath

import oci
import operators_image
import pytest
from oci import Entry, File, Folder, Link

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin", "PYTHONPATH": "/opt/pinnace", "POD_NAME": "a"}


@pytest.fixture(scope="module")
def image() -> oci.Image:
    try:
        return operators_image.image()
    except operators_image.CannotBuild as why:
        pytest.skip(str(why))


@pytest.fixture(scope="module")
def root(image: oci.Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its files, as a container sees them."""
    folder = tmp_path_factory.mktemp("root")
    for place, entry in sorted(image.entries.items(), key=lambda item: isinstance(item[1], Link)):
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        match entry:
            case File():
                path.write_bytes(entry.data)
                path.chmod(entry.mode)
            case Folder():
                path.mkdir(exist_ok=True)
            case Link():
                path.symlink_to(entry.target)
            case _:
                pytest.fail(f"{place} is of a kind that this image has none of")
    return folder


def inside(root: Path, *argv: str) -> str:
    done = subprocess.run(
        ["chroot", str(root), *argv], capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_the_program_runs_with_nothing_but_its_image(root: Path) -> None:
    assert "--leader-elect" in inside(root, "/usr/bin/python3", "-m", "operators", "--help")
    modules = "helm_python, kopf, operators.run, operators.helm.run, operators.helm.actions"
    more = "operators.servicelb.run, operators.localpath.run, operators.netpol.run"
    check = f"import {modules}, {more}, operators.writer as w; w._client()"
    inside(root, "/usr/bin/python3", "-c", check)


UPGRADE = """
import operators.upgrade.drain, operators.upgrade.jobs
import operators.upgrade.channels.run, operators.upgrade.checks.web, operators.upgrade.checks.pods
from operators.upgrade.checks import expression
told = dict(api_version="v1", kind="Pod", namespace="", name="a", selector="")
wanted = expression.Cel(expression="object.metadata.name.matches('^b$')", **told)
print(repr(expression.judge(wanted, [{"metadata": {"name": "b"}}])))
"""


def test_what_an_upgrade_needs_is_in_the_image(root: Path) -> None:
    assert inside(root, "/usr/bin/python3", "-c", UPGRADE) == "''\n"


def test_it_runs_from_bytecode(root: Path) -> None:
    check = "import operators.queue as q, kopf as k, json as j; print(q.__cached__, k.__cached__)"
    for cached in inside(root, "/usr/bin/python3", "-c", check).split():
        assert (root / cached.lstrip("/")).is_file()


@pytest.mark.parametrize(
    "command",
    [
        *("nft --version", "conntrack --version", "mke2fs -V", "mkfs.ext4 -V"),
        *("losetup --version", "mount --version", "umount --version"),
        *("sh -c true", "catatonit --version"),
    ],
)
def test_the_tools_are_there_with_their_libraries(root: Path, command: str) -> None:
    inside(root, *command.split())


def test_every_link_leads_somewhere(image: oci.Image) -> None:
    places = {*image.entries, *(p for e in image.entries for p in _parents(e))}
    for place, entry in image.entries.items():
        if isinstance(entry, Link) and not entry.target.startswith("/"):
            assert str(PurePosixPath(place).parent / entry.target) in places, place


def _parents(place: str) -> list[str]:
    return [str(path) for path in PurePosixPath(place).parents]


def test_the_same_sources_give_the_same_bytecode(image: oci.Image) -> None:
    some: dict[str, Entry] = {
        place: entry for place, entry in image.entries.items() if "/operators/" in place
    }
    sources = {place: entry for place, entry in some.items() if place.endswith(".py")}
    compiled = {place: entry for place, entry in some.items() if place.endswith(".pyc")}
    assert operators_image._compiled(sources) == compiled


def test_nothing_of_tests_and_types_is_in_it(image: oci.Image) -> None:
    for place in image.entries:
        assert not place.endswith((".pyi", "/RECORD")), place
        assert "/kubernetes/aio/" not in place
        assert "/idlelib/" not in place


def test_what_goes_in_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    before = operators_image.inputs()
    assert operators_image.inputs() == before
    monkeypatch.setattr(operators_image, "PACKAGES", ("pyyaml",))
    assert operators_image.inputs() != before
