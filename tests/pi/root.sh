#!/usr/bin/env bash
# A whole aarch64 Debian for qemu-system-aarch64: kernel, systemd, sshd, and vivid, the kernel's virtual V4L2 camera.
#
#   root.sh CACHE there     print the folder of the image if it is complete and can be started, else exit 1
#   root.sh CACHE build     make CACHE/pi-SUITE (disk.img, kernel, initrd, key), unless it is there
#   root.sh CACHE wheels    aarch64 wheels for locks/pi.txt into CACHE/pi-SUITE/wheels
#
# SUITE=bookworm (the default: systemd 252, Python 3.11) or trixie (257, 3.13) by the environment. Wheels are fetched by
# the pip of $PYTHON (python3).
# Needs root, Debian on x86-64, apt and pip that reach their registries, and a kernel with binfmt_misc. No KVM.
# bookworm took 7 minutes on two busy cores and 1.4 GB.
#
# Traps:
#   - QEMU_CPU as in tests/arm64/root.sh: cortex-a72 is a Pi 4.
#   - The guest's user pi has sudo without a password, and root's password is in this file: it must reach no network.
set -euo pipefail
[ $# -ge 2 ] || { sed -n 2,7p "$0"; exit 2; }
CACHE=$1 VERB=$2; shift 2
SUITE=${SUITE:-bookworm}
FOLDER=$CACHE/pi-$SUITE
PYTHON=${PYTHON:-python3}
HERE=$(cd "$(dirname "$0")" && pwd)
export QEMU_CPU=${QEMU_CPU:-cortex-a72}
BINFMT=/proc/sys/fs/binfmt_misc

die() { echo "root.sh: $*" >&2; exit 2; }
case $SUITE in
bookworm) SUITE_PYTHON=3.11;;
trixie) SUITE_PYTHON=3.13;;
*) die "unknown SUITE $SUITE: expected bookworm or trixie";;
esac
[ "$(id -u)" = 0 ] || die "needs root, for mmdebstrap"

remove() {   # a folder below CACHE; never through a mount
    if awk '{ print $2 }' /proc/mounts | grep -qF "$(realpath -m "$1")"; then die "something is mounted in $1: umount it first"; fi
    rm -rf "$1"
}

# Command and package. Tools end with the machine, not with the image: looked after on every build.
TOOLS=(qemu-system-aarch64:qemu-system-arm qemu-img:qemu-utils qemu-aarch64-static:qemu-user-static
    mmdebstrap:mmdebstrap arch-test:arch-test mke2fs:e2fsprogs ssh:openssh-client rsync:rsync mosquitto:mosquitto)

tools() {
    local missing=() tool
    for tool in "${TOOLS[@]}"; do
        [ -n "$(PATH=$PATH:/usr/sbin command -v "${tool%:*}")" ] || missing+=("${tool#*:}")
    done
    [ ${#missing[@]} != 0 ] || return 0
    [ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] || die "needs Debian on x86-64"
    # Debian's mosquitto must not start by itself.
    local policy=/usr/sbin/policy-rc.d new=
    [ -e "$policy" ] || { printf '#!/bin/sh\nexit 101\n' > "$policy"; chmod +x "$policy"; new=1; }
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
    [ -z "$new" ] || rm -f "$policy"
}

binfmt() {   # flag F: the kernel opens qemu now, so that nothing of it is needed inside
    [ -e $BINFMT/register ] || mount -t binfmt_misc binfmt_misc $BINFMT
    [ -e $BINFMT/qemu-aarch64 ] || cat /usr/lib/binfmt.d/qemu-aarch64.conf > $BINFMT/register
}

system() {   # Debian into $1, with a user and a camera as on a Raspberry Pi
    local mirror=${MIRROR:-} packages
    # shellcheck disable=SC2016  # it is apt-get that expands these
    [ -n "$mirror" ] || mirror=$(apt-get indextargets --format '$(REPO_URI)|$(ORIGIN)|$(LABEL)' 'Created-By: Packages' |
        awk -F'|' '$2 == "Debian" && $3 == "Debian" && !seen { print $1; seen = 1 }')
    [ -n "$mirror" ] || die "no Debian mirror in apt's sources: say MIRROR=..."
    packages=linux-image-arm64,initramfs-tools,systemd-sysv,udev,dbus,libpam-systemd,openssh-server,sudo,rsync,kmod
    packages+=,iproute2,e2fsprogs,procps,ca-certificates,python3,python3-venv,python3-numpy,python3-opencv,v4l-utils
    # Debian's bookworm has no lgpio; the one of Raspberry Pi OS is in a registry of its own.
    [ "$SUITE" = bookworm ] || packages+=,python3-gpiozero,python3-lgpio
    # The initrd holds what a virtio disk needs: under emulation all that is made and loaded counts.
    # shellcheck disable=SC2016  # it is mmdebstrap that gives $1
    mmdebstrap --quiet --mode=root --architectures=arm64 --variant=apt --include="$packages" \
        --aptopt='APT::Install-Recommends "false"' --dpkgopt='force-unsafe-io' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"
            printf "MODULES=list\nCOMPRESS=gzip\n" > "$1/etc/initramfs-tools/conf.d/virtual-pi"
            printf "virtio_pci\nvirtio_blk\nvirtio_net\next4\n" > "$1/usr/share/initramfs-tools/modules.d/virtual-pi"' \
        --keyring=/usr/share/keyrings/debian-archive-keyring.gpg "$SUITE" "$1" "$mirror"
    echo virtual-pi > "$1/etc/hostname"
    printf '127.0.0.1 localhost\n127.0.1.1 virtual-pi\n' > "$1/etc/hosts"
    echo '/dev/vda / ext4 defaults,noatime 0 1' > "$1/etc/fstab"      # as on Raspberry Pi OS
    : > "$1/etc/machine-id"
    rm -f "$1/etc/resolv.conf"; echo 'nameserver 10.0.2.3' > "$1/etc/resolv.conf"
    printf '[Match]\nName=en* eth*\n[Network]\nDHCP=ipv4\n' > "$1/etc/systemd/network/lan.network"
    mkdir -p "$1/etc/systemd/journald.conf.d" "$1/var/log/journal"
    printf '[Journal]\nStorage=persistent\nSystemMaxUse=64M\n' > "$1/etc/systemd/journald.conf.d/virtual-pi.conf"
    # One virtual camera with one input, a webcam: /dev/video0
    echo vivid > "$1/etc/modules-load.d/vivid.conf"
    echo 'options vivid n_devs=1 node_types=0x1 num_inputs=1 input_types=0' > "$1/etc/modprobe.d/vivid.conf"
    chroot "$1" /bin/sh -e <<'END'
useradd --create-home --shell /bin/bash --groups adm,sudo,video pi   # as on Raspberry Pi OS: adm reads the journal
echo 'pi ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/010_pi-nopasswd
echo root:virtual-pi | chpasswd
systemctl --quiet enable systemd-networkd ssh
systemctl --quiet disable apt-daily.timer apt-daily-upgrade.timer 2>/dev/null || true
install -d -m 700 -o pi -g pi /home/pi/.ssh
END
    rm -rf "$1"/var/cache/apt/*.bin "$1"/var/lib/apt/lists/*
}

image() {   # all files of the guest into $1
    mkdir -p "$1"
    system "$1/root"
    ssh-keygen -q -t ed25519 -N '' -C virtual-pi -f "$1/key"
    install -m 600 "$1/key.pub" "$1/root/home/pi/.ssh/authorized_keys"
    chown --reference="$1/root/home/pi/.ssh" "$1/root/home/pi/.ssh/authorized_keys"
    cp -L "$1"/root/boot/vmlinuz-* "$1/kernel"
    cp -L "$1"/root/boot/initrd.img-* "$1/initrd"
    mke2fs -q -t ext4 -L rootfs -d "$1/root" "$1/disk.img" 4G   # sparse
    rm -rf "$1/root"
}

case $VERB in
there)
    [ -e "$FOLDER/disk.img" ] && [ -n "$(command -v qemu-system-aarch64)" ] && [ -n "$(command -v qemu-img)" ] || exit 1
    realpath "$FOLDER";;
build)
    tools
    [ ! -e "$FOLDER" ] || exit 0
    echo "making $FOLDER: Debian $SUITE for aarch64 (some minutes)"
    binfmt
    remove "$FOLDER.part"
    image "$FOLDER.part"
    mv "$FOLDER.part" "$FOLDER";;
wheels)
    lock=$HERE/../../locks/pi.txt
    ! cmp -s "$lock" "$FOLDER/wheels/pi.lock" || exit 0
    remove "$FOLDER/wheels.part"
    # As in docs/raspberry-pi.md.
    "$PYTHON" -m pip download -q --disable-pip-version-check --require-hashes --no-deps --only-binary :all: \
        --python-version $SUITE_PYTHON --platform manylinux_2_27_aarch64 --platform manylinux_2_17_aarch64 \
        --platform manylinux2014_aarch64 --dest "$FOLDER/wheels.part" -r "$lock"
    cp "$lock" "$FOLDER/wheels.part/pi.lock"
    remove "$FOLDER/wheels"
    mv "$FOLDER/wheels.part" "$FOLDER/wheels";;
*)  die "unknown verb $VERB: expected there, build or wheels";;
esac
