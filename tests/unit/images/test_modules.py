"""Which of the kernel's modules an image has."""

import pytest
from appliance import boards, modules

KEPT = """
drivers/net/ethernet/intel/e1000e/e1000e.ko drivers/net/ethernet/realtek/r8169.ko
drivers/net/virtio_net.ko drivers/net/vxlan/vxlan.ko drivers/net/wireguard/wireguard.ko
drivers/net/usb/ax88179_178a.ko drivers/net/veth.ko drivers/net/ifb.ko
drivers/net/ethernet/broadcom/genet/genet.ko drivers/net/usb/lan78xx.ko drivers/net/usb/smsc95xx.ko
drivers/net/ethernet/broadcom/tg3.ko drivers/net/ethernet/intel/igc/igc.ko
net/bridge/br_netfilter.ko net/netfilter/nf_tables.ko net/netfilter/nft_numgen.ko
net/netfilter/xt_comment.ko net/ipv4/netfilter/ip_tables.ko net/sched/sch_tbf.ko
drivers/md/dm-verity.ko drivers/md/dm-crypt.ko drivers/block/zram/zram.ko drivers/block/loop.ko
drivers/block/nbd.ko drivers/block/virtio_blk.ko drivers/nvme/host/nvme.ko drivers/ata/ahci.ko
drivers/scsi/sd_mod.ko drivers/scsi/virtio_scsi.ko drivers/scsi/sg.ko
drivers/usb/storage/usb-storage.ko drivers/usb/storage/uas.ko drivers/usb/host/xhci-pci.ko
drivers/mmc/host/sdhci-pci.ko drivers/mmc/core/mmc_block.ko drivers/mmc/host/bcm2835.ko
drivers/watchdog/i6300esb.ko drivers/watchdog/iTCO_wdt.ko drivers/watchdog/bcm2835_wdt.ko
drivers/rtc/rtc-ds1307.ko drivers/char/hw_random/virtio-rng.ko drivers/i2c/busses/i2c-bcm2835.ko
fs/squashfs/squashfs.ko fs/overlayfs/overlay.ko fs/ext4/ext4.ko fs/fat/vfat.ko fs/nfs/nfs.ko
fs/nls/nls_ascii.ko fs/xfs/xfs.ko fs/fuse/fuse.ko fs/quota/quota_v2.ko
drivers/hid/usbhid/usbhid.ko drivers/hid/hid-generic.ko
""".split()
DROPPED = """
sound/core/snd.ko drivers/gpu/drm/i915/i915.ko drivers/media/v4l2-core/videodev.ko
drivers/infiniband/core/ib_core.ko drivers/net/ethernet/mellanox/mlx5/core/mlx5_core.ko
drivers/staging/rtl8723bs/r8723bs.ko fs/btrfs/btrfs.ko fs/ocfs2/ocfs2.ko net/bluetooth/bluetooth.ko
drivers/scsi/qla2xxx/qla2xxx.ko drivers/iio/accel/bmc150-accel-core.ko lib/test_bpf.ko
drivers/net/can/dev/can-dev.ko arch/x86/kvm/kvm.ko
""".split()


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("board", boards.BOARDS.values(), ids=list(boards.BOARDS))
def test_what_a_node_needs_stays(name: str, board: boards.Board) -> None:
    assert modules.wanted(f"kernel/{name}", board)


@pytest.mark.parametrize("name", DROPPED)
def test_what_no_node_uses_goes(name: str) -> None:
    assert not modules.wanted(f"kernel/{name}", boards.X86_64)


@pytest.mark.parametrize(
    ("board", "name", "kept"),
    [
        (boards.RPI_ARM64, "broadcom/brcm80211/brcmfmac/brcmfmac.ko", True),
        (boards.RPI_ARM64, "intel/iwlwifi/iwlwifi.ko", False),
        (boards.X86_64, "intel/iwlwifi/iwlwifi.ko", True),
        (boards.X86_64, "mediatek/mt76/mt76.ko", False),
    ],
)
def test_a_board_has_the_wireless_drivers_that_it_has_firmware_for(
    board: boards.Board, name: str, kept: bool
) -> None:
    assert modules.wanted(f"kernel/drivers/net/wireless/{name}", board) is kept


def test_a_raspberry_pi_has_the_driver_of_its_screen() -> None:
    assert modules.wanted("kernel/drivers/gpu/drm/vc4/vc4.ko", boards.RPI_ARM64)
    assert not modules.wanted("kernel/drivers/gpu/drm/v3d/v3d.ko", boards.RPI_ARM64)


def test_what_a_kept_module_needs_stays_whatever_it_is() -> None:
    needs = modules.read_needs("a.ko: sound/b.ko c.ko\nsound/b.ko: c.ko\nc.ko:\nsound/d.ko:\n")
    assert modules.closure({"a.ko"}, needs) == {"a.ko", "sound/b.ko", "c.ko"}
