"""
The kernel's modules that an image has: all, but for kinds of hardware that no node uses.

A list of what goes is shorter than one of what stays, and forgets nothing: a driver of a disk
or a network card that Debian adds is there. What a kept module needs is kept whatever its
folder. Modules are stored uncompressed, since the squashfs compresses them better.
"""

import lzma
import re
from collections.abc import Mapping
from pathlib import Path

from appliance.boards import Board
from appliance.toolbox import Toolbox

MODULES = "usr/lib/modules"

# Below kernel/. Screens, sound, cameras, sensors of laptops, buses of old PCs and of data centres.
_DROPPED = re.compile(
    r"""
    sound/
    | drivers/(gpu|media|video|staging|comedi|accel|accessibility|isdn|infiniband|firewire)/
    | drivers/(input|hid|iio|bluetooth|pcmcia|parport|mtd|gnss|ufs|rpmsg|peci|most|w1|ntb|siox)/
    | drivers/(platform|leds|message|edac|fpga|thunderbolt|rapidio|dca|greybus|slimbus|soundwire)/
    | drivers/(memstick|macintosh|counter|interconnect|extcon|cdx|mcb|uwb|wusb|xen|hsi|ipack)/
    | drivers/(misc|power/supply|auxdisplay|hwtracing)/
    | drivers/crypto/(qat|chelsio|ccp|cavium|marvell|intel)/
    | drivers/(infiniband|cxl|nvdimm|dax|vfio|vdpa|char/(tpm|agp|pcmcia)|target|usb/gadget)/
    | drivers/usb/(serial|misc|atm|image|musb|c67x00|isp1760|typec)/
    | drivers/block/(drbd|rnbd|aoe|mtip32xx|rbd)
    | drivers/net/(arcnet|appletalk|can|fddi|hamradio|hippi|ieee802154|plip|slip|wan|wwan|fjes)/
    | drivers/net/(dsa|thunderbolt|ppp/pptp|xen-netback|ipa)/|drivers/net/mdio/mdio-(gpio|mux)
    | drivers/net/ethernet/(mellanox|chelsio|qlogic|cavium|netronome|sfc|emulex|brocade|cisco)/
    | drivers/net/ethernet/(pensando|fungible|huawei|myricom|neterion|tehuti|sun|dec|packetengines)/
    | drivers/net/ethernet/(intel/(ice|i40e|iavf|fm10k|ixgbevf|idpf|ixgb)|amazon|alteon|adaptec)/
    | drivers/net/ethernet/(broadcom/(bnx2x|bnxt|cnic)|3com|8390|fealnx|natsemi|sis|smsc|silan)/
    | drivers/net/ethernet/(altera|agere|dlink|icplus|rdc|wangxun|ti|toshiba|stmicro/.*intel)/
    | drivers/net/wireless/
    | drivers/(atm|nfc|char/ipmi|nvme/target|md/(bcache|dm-vdo))/
    | drivers/nvme/host/nvme-(rdma|fc)
    | drivers/scsi/(?!scsi_mod|sd_mod|sg\.ko|sr_mod|virtio_scsi|scsi_transport|hv_storvsc|vmw_pvscsi
        |raid_class|scsi_common|iscsi|libiscsi|device_handler/|megaraid/|mpt3sas/|smartpqi/)
    | drivers/ata/pata_|drivers/i2c/busses/i2c-(?!i801|designware|bcm2835|brcmstb|piix4)
    | drivers/(hwmon|rtc|gpio|pwm|regulator|mfd)/(?!.*(bcm|brcm|rpi|raspberry|cmos|rp1|lpc_ich
        |mfd-core|coretemp|k10temp|ds1307|pcf85|rv3028|poweroff|fixed|gpio-regulator|intel))
    | fs/(afs|affs|befs|bfs|ceph|coda|cramfs|dlm|ecryptfs|efs|erofs|f2fs|freevxfs|gfs2)/
    | fs/(hfs|hfsplus|hpfs)/
    | fs/(jffs2|jfs|minix|nilfs2|ntfs3|ocfs2|omfs|orangefs|qnx4|qnx6|reiserfs|romfs|sysv)/
    | fs/(ubifs|udf|ufs)/
    | fs/(bcachefs|netfs/tests|zonefs|vboxsf|adfs|hostfs|pstore/.*zone|btrfs|smb/server|9p)/
    | net/(appletalk|ax25|atm|batman-adv|bluetooth|caif|can|ceph|dccp|decnet|hsr|ieee802154|iucv)/
    | net/(lapb|mac802154|netrom|nfc|phonet|rds|rose|rxrpc|smc|tipc|x25|qrtr|ncsi|6lowpan|9p|mctp)/
    | (lib/(test_.*|.*kunit.*)|.*_kunit\.ko|.*kunit\.ko|crypto/(tcrypt|ansi_cprng))
    | arch/x86/kvm/|virt/|samples/
    """,
    re.VERBOSE,
)
# Whatever the list above says: serial adapters of UPSes, keyboards at a first start, and disks.
_KEPT = re.compile(
    r"""
    drivers/(hid/(hid|hid-generic|usbhid/.*)\.ko|hid/usbhid/)|drivers/input/evdev
    | drivers/usb/serial/(usbserial|ftdi_sio|cp210x|ch341|pl2303)
    | drivers/misc/(vmw_balloon|enclosure|eeprom/at24)
    | drivers/char/tpm/(tpm|tpm_tis|tpm_crb|tpm_tis_core)\.ko
    | drivers/input/(input-leds|keyboard/atkbd)
    | drivers/platform/x86/(wmi)\.ko
    """,
    re.VERBOSE,
)


def select(tree: Path, board: Board, toolbox: Toolbox) -> Path:
    """
    Of the modules in a tree keep those that a board needs; the folder, with ``modules.dep``.

    Raises ``ValueError`` where the tree has not exactly one kernel.
    """
    [folder] = (tree / MODULES).iterdir()
    for path in sorted(folder.rglob("*.ko.xz")):
        path.with_suffix("").write_bytes(lzma.decompress(path.read_bytes()))
        path.unlink()
    depmod(tree, folder.name, toolbox)
    needs = read_needs((folder / "modules.dep").read_text())
    kept = closure({name for name in needs if wanted(name, board)}, needs)
    for name in needs:
        if name not in kept:
            (folder / name).unlink()
    depmod(tree, folder.name, toolbox)
    return folder


def wanted(name: str, board: Board) -> bool:
    """``kernel/drivers/net/veth.ko``: whether it is of a kind that a node uses."""
    place = name.removeprefix("kernel/")
    if place.startswith(board.modules) and board.modules:
        return True
    return bool(_KEPT.match(place)) or not _DROPPED.match(place)


def read_needs(text: str) -> dict[str, list[str]]:
    """``modules.dep``: each module, and all that it needs."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: needed.split() for name, _, needed in pairs}


def closure(chosen: set[str], needs: Mapping[str, list[str]]) -> set[str]:
    """These and all that they need; modprobe's soft dependencies are of kinds that stay."""
    return chosen | {needed for name in chosen for needed in needs[name]}


def depmod(tree: Path, release: str, toolbox: Toolbox) -> None:
    folder = tree / MODULES / release
    toolbox.run(["depmod", "-b", "/mnt", release], binds={f"/mnt/lib/modules/{release}": folder})
    # Only depmod reads the text forms, and the binary ones of these nobody does.
    for name in ("modules.symbols", "modules.symbols.bin", "modules.alias.bin.tmp"):
        (folder / name).unlink(missing_ok=True)
