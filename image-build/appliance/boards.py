"""
The boards that there are images for, as data: packages, kernel, firmware, what goes with them.

A board is named as in ``/usr/share/pinnace/release.json`` and in a bundle's manifest.
"""

import re
from dataclasses import dataclass

# What every node has. What only a maintainer script would use is in ABSENT.
_PACKAGES = tuple(
    """
    base-files base-passwd libc6 libc-bin netbase tzdata ca-certificates openssl
    bash dash coreutils grep sed findutils gzip tar util-linux mount busybox-static catatonit
    systemd systemd-sysv systemd-resolved systemd-timesyncd libnss-resolve udev dbus kmod
    e2fsprogs dosfstools fdisk zstd lz4 xz-utils
    containerd runc containernetworking-plugins nftables conntrack iproute2
    wpasupplicant wireless-regdb openssh-server openssh-client openssh-sftp-server rauc rauc-service
    python3.13-minimal libpython3.13-stdlib dpkg
    """.split()
)

# What apt takes for installed: needed by maintainer scripts alone, which nobody runs.
ABSENT = frozenset(
    """
    perl-base debconf init-system-helpers adduser passwd login login.defs sysvinit-utils ucf
    initramfs-tools initramfs-tools-core linux-initramfs-tool linux-base cron runit-helper
    media-types libpam-systemd polkitd usr-is-merged
    python3-minimal python3 procps sensible-utils logsave iptables
    """.split()
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One image: what is fetched for it, and how its kernel is told to run."""

    name: str  # x86-64
    architecture: str  # Debian's
    machine: str  # the kernel's: x86_64
    kernel: str  # Debian package; a metapackage, which follows the release
    packages: tuple[str, ...]
    components: tuple[str, ...]  # of Debian's archive
    wheels: tuple[str, ...]  # platform tags of pip, the newest first
    consoles: tuple[str, ...]  # the last one is /dev/console
    arguments: tuple[str, ...]  # further words of the kernel's command line
    modules: tuple[str, ...]  # kept though the general list drops them: prefixes of paths
    firmware: tuple[str, ...]  # kept of what the firmware packages have: patterns below /usr/lib

    def command_line(self, *, quiet: bool = True) -> str:
        """The words that are the same for both slots; BOOT adds root and slot."""
        consoles = [f"console={name}" for name in self.consoles]
        return " ".join([*consoles, *(["quiet", "loglevel=4"] if quiet else []), *self.arguments])


# A panic or a hang ends in a reboot, and the boot loader then starts the slot that is committed.
_ARGUMENTS = (
    "panic=10",
    "oops=panic",
    "rd.emergency=reboot",
    "rd.shell=0",
    "systemd.crash_action=reboot",
    "fsck.mode=skip",  # what needs it, node/appliance/early.py checks
    # No SELinux, and no AppArmor: its parser is not in the image, so no profile could be loaded.
    "lsm=landlock,lockdown,yama,bpf",
    # A huge page makes 2 MiB of each small mapping, and to be able to make any the kernel keeps
    # 44 MiB free for good, of 512 MiB as of 64 GiB.
    "transparent_hugepage=never",
    "zswap.enabled=0",  # swap is in memory already
)


def _wheels(machine: str) -> tuple[str, ...]:
    """Debian 13 has glibc 2.41; what was built for an older one runs as well."""
    modern = (f"manylinux_2_{minor}_{machine}" for minor in range(41, 16, -1))
    return (*modern, f"manylinux2014_{machine}")


# Intel's Wi-Fi: cards of the last ten years, each with the newest that the kernel knows.
_IWLWIFI = tuple(
    f"firmware/iwlwifi-{name}"
    for name in """
    7265D-29. 8000C-36. 8265-36. 9000-pu-b0-jf-b0-46. 9260-th-b0-jf-b0-46. cc-a0-77.
    Qu-c0-hr-b0-77. QuZ-a0-hr-b0-77. ty-a0-gf-a0-89. ty-a0-gf-a0.pnvm so-a0-gf-a0-89.
    so-a0-gf-a0.pnvm
    """.split()
)

X86_64 = Board(
    name="x86-64",
    architecture="amd64",
    machine="x86_64",
    kernel="linux-image-amd64",
    packages=(*_PACKAGES, "firmware-realtek", "firmware-iwlwifi"),
    components=("main", "non-free-firmware"),
    wheels=_wheels("x86_64"),
    consoles=("ttyS0,115200n8", "tty0"),
    arguments=_ARGUMENTS,
    modules=("drivers/net/wireless/intel/iwlwifi/",),
    firmware=("firmware/rtl_nic/", "firmware/regulatory.db", *_IWLWIFI),
)

RPI_ARM64 = Board(
    name="rpi-arm64",
    architecture="arm64",
    machine="aarch64",
    kernel="linux-image-arm64",
    packages=(*_PACKAGES, "raspi-firmware", "firmware-brcm80211"),
    components=("main", "non-free-firmware"),
    wheels=_wheels("aarch64"),
    consoles=("ttyS1,115200n8", "ttyAMA0,115200n8", "tty0"),
    # The firmware of a Raspberry Pi turns the memory cgroup off.
    arguments=(*_ARGUMENTS, "cgroup_enable=memory", "cgroup_memory=1"),
    # The screen as well: this firmware tells the kernel of none that it could use without a driver.
    modules=("drivers/net/wireless/broadcom/brcm80211/", "drivers/gpu/drm/vc4/"),
    firmware=("firmware/brcm/", "firmware/cypress/", "firmware/regulatory.db"),
)

BOARDS = {board.name: board for board in (X86_64, RPI_ARM64)}

# What images are made with, on the machine that makes them: see toolbox.py.
TOOLS = tuple(
    """
    libc6 libc-bin bash dash coreutils squashfs-tools dosfstools mtools e2fsprogs fdisk grub-common
    xz-utils zstd kmod openssl faketime python3.13-minimal libpython3.13-stdlib
    cpio rauc binutils busybox-static
    """.split()
)
# Data that no program of the host runs, so no dependencies: there for hosts of any architecture.
TOOL_DATA = ("grub-efi-amd64-bin:amd64",)


class UnknownBoard(Exception):
    """The text names the boards that there are."""


def board(name: str) -> Board:
    try:
        return BOARDS[name]
    except KeyError:
        known = ", ".join(BOARDS)
        raise UnknownBoard(f"there is no board {name!r}: choose one of {known}") from None


def is_version(text: str) -> bool:
    """``v1.36.3+pinnace1``: what a release may be called."""
    return bool(re.fullmatch(r"v\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?\+pinnace\d+", text))
