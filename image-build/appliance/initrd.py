"""
The initial RAM disk: a static busybox, the drivers that a root needs, and one script.

A distribution's generator runs on the machine that it is for, and takes minutes in an emulator;
this one reads the lists that ``depmod`` made and writes the archive itself, the same bytes every
time. Whatever is not needed to mount the slot is loaded from the slot.
Source: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst; modprobe.d(5).
"""

import lzma
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# Without these no slot can be mounted: they are modules or built in, or there is no image.
REQUIRED = ("squashfs", "overlay", "ext4", "vfat", "nls_cp437", "nls_ascii")

# Those of the board's kernel that match are taken, with all that they need. Disks and what they
# hang on, and what resets a machine that hangs. By name, or by folder below ``kernel/``.
DRIVERS = tuple(
    """
    virtio_blk virtio_scsi virtio_mmio virtio_pci sd_mod
    ahci ahci_platform ata_piix ata_generic libahci
    nvme nvme_core
    usb_storage uas xhci_pci xhci_plat_hcd xhci_hcd ehci_pci ehci_platform ohci_pci uhci_hcd dwc2
    mmc_block sdhci_pci sdhci_acpi sdhci_iproc sdhci_brcmstb bcm2835 bcm2835_mmc cqhci
    pcie_brcmstb reset_raspberrypi raspberrypi_hwmon raspberrypi_cpufreq bcm2835_wdt
    clk_raspberrypi gpio_raspberrypi_exp phy_generic phy_brcm_usb_dvr rp1 mfd_rp1
    fixed gpio_regulator
    vmw_pvscsi hv_storvsc hv_vmbus xen_blkfront mptspi
    i6300esb iTCO_wdt sp5100_tco wdat_wdt lpc_ich i2c_i801
    quota_v2 crc32c_generic crc32c_intel
    efivarfs
    """.split()
)

APPLETS = tuple(
    """
    sh cat chroot dd echo find grep kill mkdir mkfifo modprobe mount od readlink reboot rm sed sleep
    sort switch_root tail tr uevent umount watchdog
    """.split()
)

_LISTS = ("modules.builtin",)  # kept whole; the others lose what is not there


class InitrdError(Exception):
    """The kernel, or what else was given, is not enough for a RAM disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file of the archive; ``mode`` with its type."""

    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def folder() -> Entry:
    return Entry(mode=stat.S_IFDIR | 0o755)


def file(data: bytes, mode: int = 0o644) -> Entry:
    return Entry(mode=stat.S_IFREG | mode, data=data)


def link(target: str) -> Entry:
    return Entry(mode=stat.S_IFLNK | 0o777, data=target.encode())


# The archive


def archive(entries: Mapping[str, Entry]) -> bytes:
    """
    In the format newc, owned by root, all times 0, sorted; folders above a file are added.
    """
    whole = dict(entries)
    for path in entries:
        for parent in PurePosixPath(path).parents:
            whole.setdefault(str(parent), folder())
    whole.pop(".", None)
    parts = [_record(path, whole[path], number) for number, path in enumerate(sorted(whole), 1)]
    parts.append(_record("TRAILER!!!", Entry(mode=0), 0))
    joined = b"".join(parts)
    return joined + bytes(-len(joined) % 512)


def _record(path: str, entry: Entry, inode: int) -> bytes:
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (
        *(inode, entry.mode, 0, 0, links, 0, len(entry.data)),
        *(0, 0, *entry.device, len(name), 0),
    )
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return head + bytes(-len(head) % 4) + entry.data + bytes(-len(entry.data) % 4)


# Modules


@dataclass(frozen=True, slots=True, kw_only=True)
class Modules:
    """What ``depmod`` wrote about the modules of one kernel; names have underscores."""

    folder: Path  # …/lib/modules/6.12.1-amd64
    paths: Mapping[str, str]  # by name, below the folder
    needs: Mapping[str, tuple[str, ...]]  # names
    softer: Mapping[str, tuple[str, ...]]  # names or aliases that are loaded as well, if there
    aliases: tuple[tuple[str, str], ...]  # pattern, name
    builtin: frozenset[str]

    @property
    def release(self) -> str:
        return self.folder.name

    def resolved(self, name: str) -> Iterator[str]:
        """The modules that a name or an alias stands for."""
        plain = name.replace("-", "_")
        if plain in self.paths:
            yield plain
        yield from (module for pattern, module in self.aliases if pattern == name)

    def closure(self, names: Iterable[str]) -> list[str]:
        """These and all that they need, sorted."""
        found: set[str] = set()
        pending = [module for name in names for module in self.resolved(name)]
        while pending:
            module = pending.pop()
            if module in found:
                continue
            found.add(module)
            pending += self.needs[module]
            pending += [m for soft in self.softer.get(module, ()) for m in self.resolved(soft)]
        return sorted(found)


def read_modules(folder: Path) -> Modules:
    """Raises :class:`InitrdError` where ``depmod`` did not run."""
    try:
        lines = (folder / "modules.dep").read_text().splitlines()
    except FileNotFoundError:
        raise InitrdError(f"{folder} has no modules.dep: run depmod for it") from None
    rows = [line.partition(":") for line in lines]
    paths = {_name(path): path for path, _, _ in rows}
    return Modules(
        folder=folder,
        paths=paths,
        needs={_name(path): tuple(map(_name, needs.split())) for path, _, needs in rows},
        softer=dict(_softer(_words(folder / "modules.softdep"))),
        aliases=tuple(
            (words[1], words[2].replace("-", "_"))
            for words in _words(folder / "modules.alias")
            if words[0] == "alias" and len(words) == 3
        ),
        builtin=frozenset(map(_name, (folder / "modules.builtin").read_text().split())),
    )


def _name(path: str) -> str:
    return PurePosixPath(path).name.partition(".ko")[0].replace("-", "_")


def _words(path: Path) -> list[list[str]]:
    if not path.exists():
        return []
    return [line.split() for line in path.read_text().splitlines() if line.strip()]


def _softer(rows: Iterable[list[str]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for words in rows:
        if words[0] == "softdep":
            yield words[1].replace("-", "_"), tuple(w for w in words[2:] if not w.endswith(":"))


def module_files(modules: Modules, drivers: Sequence[str] = DRIVERS) -> dict[str, Entry]:
    """
    The modules that a root needs, unpacked, and the lists for ``modprobe``.

    Raises :class:`InitrdError` where one that cannot be done without is not there.
    """
    missing = [n for n in REQUIRED if n not in modules.paths and n not in modules.builtin]
    if missing:
        raise InitrdError(f"the kernel {modules.release} has no {', '.join(missing)}")
    chosen = modules.closure([*REQUIRED, *drivers])
    base = f"lib/modules/{modules.release}"
    plain = {name: modules.paths[name].partition(".ko")[0] + ".ko" for name in chosen}
    found = {f"{base}/{plain[n]}": file(_unpacked(modules, n)) for n in chosen}
    dep = "".join(f"{plain[n]}:{_joined(plain[m] for m in modules.needs[n])}\n" for n in chosen)
    alias = "".join(f"alias {p} {n}\n" for p, n in modules.aliases if n in plain)
    soft = "".join(
        f"softdep {n} pre:{_joined(names)}\n" for n, names in modules.softer.items() if n in plain
    )
    for name, text in (("dep", dep), ("alias", alias), ("softdep", soft)):
        found[f"{base}/modules.{name}"] = file(text.encode())
    for name in filter(lambda name: (modules.folder / name).exists(), _LISTS):
        found[f"{base}/{name}"] = file((modules.folder / name).read_bytes())
    return found


def _joined(words: Iterable[str]) -> str:
    return "".join(f" {word}" for word in words)


def _unpacked(modules: Modules, name: str) -> bytes:
    """A compressed module would be compressed twice, and busybox may not know how."""
    path = modules.folder / modules.paths[name]
    data = path.read_bytes()
    match path.suffix:
        case ".ko":
            return data
        case ".xz":
            return lzma.decompress(data)
        case other:
            raise InitrdError(f"{path}: modules packed as {other} are not known")


# All of it


def build(modules: Modules, busybox: bytes, files: Path) -> bytes:
    """
    The archive, not compressed. ``files``: where the scripts ``init`` and ``event`` lie.

    Raises :class:`InitrdError`.
    """
    entries = {
        "bin/busybox": file(busybox, 0o755),
        "init": file((files / "init").read_bytes(), 0o755),
        "bin/event": file((files / "event").read_bytes(), 0o755),
        "dev/console": Entry(mode=stat.S_IFCHR | 0o600, device=(5, 1)),
        "sbin": link("bin"),  # where the kernel looks for modprobe
        **{name: folder() for name in ("proc", "sys", "run", "root", "tmp")},
        **{f"bin/{name}": link("busybox") for name in APPLETS},
        **module_files(modules),
    }
    return archive(entries)
