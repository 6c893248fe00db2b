"""
What of Debian's packages an image does without, by path.

Everything else stays. Notices of copyright and licences are never left out.
"""

import re

_KEPT = re.compile(r"usr/share/doc/[^/]+(/copyright)?$|usr/share/common-licenses/")

# One alternative a line: what it is, by its path without a slash in front.
_DROPPED = re.compile(
    r"""
    usr/share/(doc|man|info|locale|lintian|bug|apport|bash-completion|zsh|fish|menu|gettext)/
    | usr/share/(i18n|pixmaps|applications|metainfo|mime|polkit-1|gdb|gcc|initramfs-tools)/
    | usr/share/(openssh/.*md5sums|base-files|perl5|awk|readline|xml|debianutils|calendar)(/|$)
    | usr/share/(pam|pam-configs|tabset|dict|binfmts|python3|runit|doc-base|keyrings)/
    | usr/share/systemd/|usr/share/dbus-1/(interfaces|services|session)|usr/share/initramfs
    | usr/share/zoneinfo/(posix|right)/|usr/share/zoneinfo/tzdata.zi
    | usr/(include|games|src|local)/
    | usr/lib/[^/]+/(gconv|audit|gprofng|bash)/|usr/lib/bash/
    | usr/lib/[^/]+/(perl|perl-base)/
    | usr/lib/[^/]+/lib(asan|lsan|tsan|ubsan).*
    | usr/lib/(locale/(?!C\.utf8)|pkgconfig|lsb|kernel|pcrlock\.d|apt|dracut|initcpio|valgrind)/
    | usr/lib/[^/]+/pkgconfig/|.*\.(a|la)$
    # Old ways to start services, and ways that are other systems'.
    | etc/(init\.d|rc\w?\.d|runit|sv|ufw|cron[^/]*|apparmor\.d|apt|logrotate\.d|X11|xdg)/
    | etc/(update-motd\.d|kernel|initramfs-tools|emacs|perl|python3[^/]*)/
    | etc/(issue.*|motd|containerd/.*|skel/.*|default/(ssh|dbus|nss))$
    # Programs.
    | usr/bin/(ctr|containerd-shim|containerd-shim-runc-v1|containerd-stress)$
    | usr/lib/cni/(?!bridge$|host-local$|loopback$|bandwidth$)
    | usr/bin/pzstd$|usr/lib/[^/]+/lib(mvec|memusage|pcprofile)\.so.*
    | usr/bin/(localedef|iconv|pldd|tzselect|zdump|ldd|locale|getconf)$
    | usr/sbin/(iconvconfig|zic|update-passwd|pam-auth-update|remove-shell|add-shell)$
    | usr/bin/dpkg-(deb|divert|maintscript-helper|realpath|split|statoverride|trigger)$
    | usr/sbin/(dpkg-.*|start-stop-daemon|fstab-decode|installkernel)$
    | usr/lib/dpkg/|usr/share/dpkg/(?!cputable|ostable|tupletable)
    | usr/bin/(savelog|ischroot|which\.debianutils|update-alternatives|tempfile|run-parts)$
    | usr/sbin/(e2scrub.*|fsck\.(cramfs|minix)|mkfs\.(bfs|cramfs|minix|msdos)|mklost\+found)$
    | usr/sbin/(e4crypt|e4defrag|filefrag|e2undo|e2image|logsave|cfdisk)$
    | usr/libexec/(e2fsprogs|dpkg)/
    | usr/bin/(systemd-(firstboot|stdio-bridge|ac-power|vpick)|kernel-install|localectl)$
    | usr/bin/(loginctl|run0|systemd-inhibit|perl.*|pydoc.*|pygettext.*)$
    | usr/lib/systemd/systemd-(logind|bsod|localed|backlight|battery-check|sleep|homed)$
    | usr/lib/systemd/systemd-(hibernate-resume|rfkill|quotacheck|pcr.*|tpm2-.*|import.*)$
    | usr/lib/systemd/systemd-(measure|storagetm|export|pull|keyutil|update-utmp|initctl)$
    | usr/lib/systemd/(catalog/systemd\.\w.*\.catalog|user/|user-generators/|user-preset/)
    | usr/lib/systemd/system-generators/(?!systemd-(debug|run|fstab)-generator$)
    | usr/lib/systemd/(ukify|boot/|ntp-units\.d/)
    | usr/lib/systemd/resolved\.conf\.d/00-disable-mdns\.conf
    | usr/lib/(modules-load\.d|sysctl\.d)/README|.*/README(\..*)?$
    | usr/lib/systemd/network/(?!.*default\.link$|.*by-mac\.link$)
    | usr/lib/udev/hwdb\.d/|usr/lib/udev/rules\.d/60-(persistent-(alsa|v4l|input)|cdrom_id).*
    | usr/lib/udev/rules\.d/(78-sound|70-(joystick|mouse|touchpad|camera)|60-(sensor|evdev)).*
    | usr/lib/udev/(cdrom_id|v4l_id|fido_id)$
    | usr/lib/ssl/misc/|usr/lib/openssh/(ssh-keysign|ssh-pkcs11-helper|ssh-session-cleanup)$
    | usr/bin/(ssh-copy-id|ssh-argv0|ssh-agent|ssh-add|ssh-keyscan|slogin|scp\.old)$
    | usr/lib/[^/]+/(ossl-modules/legacy\.so|engines-3/)
    | usr/share/rauc/|usr/lib/systemd/catalog/
    | boot/(config|System\.map)-
    """,
    re.VERBOSE,
)


def keep(place: str) -> bool:
    """Whether this path, without a slash in front, belongs into an image."""
    return bool(_KEPT.match(place)) or not _DROPPED.match(place)


# Units of Debian's that are not started here, and what has a part in doing so: timers that write
# at night, what waits for a first start that never is one, and logins on a console.
MASKED = frozenset(
    """
    systemd-logind.service systemd-firstboot.service systemd-sysusers.service ldconfig.service
    systemd-hwdb-update.service systemd-journal-catalog-update.service systemd-update-done.service
    systemd-networkd-wait-online.service systemd-machine-id-commit.service
    systemd-journal-flush.service
    systemd-hibernate-clear.service systemd-backlight@.service systemd-battery-check.service
    systemd-initctl.socket systemd-pcrextend.socket systemd-pcrlock.socket systemd-sysext.socket
    systemd-pcrmachine.service systemd-pcrphase.service systemd-pcrphase-sysinit.service
    systemd-tpm2-setup.service systemd-tpm2-setup-early.service systemd-creds.socket
    systemd-ask-password-wall.path systemd-ask-password-console.path getty-static.service
    systemd-remount-fs.service systemd-user-sessions.service systemd-localed.service
    sys-kernel-config.mount sys-fs-fuse-connections.mount
    systemd-rfkill.service systemd-rfkill.socket quotaon-root.service
    systemd-quotacheck-root.service
    rc-local.service e2scrub_reap.service e2scrub_all.timer dpkg-db-backup.timer fstrim.timer
    containerd.service tmp.mount nftables.service sshd-keygen.service ssh.service rescue-ssh.target
    """.split()
)
