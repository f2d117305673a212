#!/usr/bin/env bash
# An aarch64 Debian under qemu-user, to run the device side without a Raspberry Pi.
#
#   root.sh CACHE there               print the root file system if it is made and can be entered, else exit 1
#   root.sh CACHE build               make it, CACHE/arm64-SUITE, unless it is there
#   root.sh CACHE wheels NAME ARG...  aarch64 wheels into its /opt/NAME: ARG... are pip's requirements and options
#   root.sh CACHE run CMD...          run CMD inside
#
# SUITE=bookworm (the default, Python 3.11) or trixie (Python 3.13) by the environment. Wheels are fetched by the pip of
# $PYTHON (python3) outside, and again when ARG... changes.
# Needs root, Debian on x86-64, apt and pip that reach their registries, and a kernel with binfmt_misc.
# `build` of trixie took 2.3 minutes of CPU and 0.14 GB, bookworm is 0.22 GB; the wheels of a test run are 0.28 GB more.
#
# Two traps:
#   QEMU_CPU  by default qemu 7.2 offers a CPU with everything (SVE, SME, pointer authentication): XNNPACK takes kernels
#             that give wrong answers there, without a message. cortex-a72 is a Pi 4, -a76 a Pi 5, -a53 a Pi 3.
#   /proc     with the outer /proc and /sys inside, ai-edge-litert reads an x86 cpuinfo and dies of SIGSEGV; with neither
#             it drops XNNPACK, without a message. So both are plain files that describe a Pi 4.
set -euo pipefail
[ $# -ge 2 ] || { sed -n 2,7p "$0"; exit 2; }
CACHE=$1 VERB=$2; shift 2
SUITE=${SUITE:-bookworm}
ROOT=$CACHE/arm64-$SUITE
PYTHON=${PYTHON:-python3}
export QEMU_CPU=${QEMU_CPU:-cortex-a72}
BINFMT=/proc/sys/fs/binfmt_misc

die() { echo "root.sh: $*" >&2; exit 2; }
case $SUITE in
bookworm) SUITE_PYTHON=3.11 GLIBC=36;;
trixie) SUITE_PYTHON=3.13 GLIBC=41;;
*) die "unknown SUITE $SUITE: expected bookworm or trixie";;
esac
[ "$(id -u)" = 0 ] || die "needs root, for chroot"

remove() {   # a folder below CACHE; never through a mount
    if awk '{ print $2 }' /proc/mounts | grep -qF "$(realpath -m "$1")"; then die "something is mounted in $1: umount it first"; fi
    rm -rf "$1"
}

tools() {   # ends with the machine, not with the root file system: looked after on every build
    command -v mmdebstrap >/dev/null && command -v qemu-aarch64-static >/dev/null && command -v arch-test >/dev/null && return
    [ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] || die "needs Debian on x86-64"
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends qemu-user-static mmdebstrap arch-test >/dev/null
}

binfmt() {   # flag F: the kernel opens qemu now, so that nothing of it is needed inside, and child processes work
    [ -e $BINFMT/register ] || mount -t binfmt_misc binfmt_misc $BINFMT
    [ -e $BINFMT/qemu-aarch64 ] || cat /usr/lib/binfmt.d/qemu-aarch64.conf > $BINFMT/register
}

system() {   # Debian, and the files that describe a Pi 4, into $1
    local mirror=${MIRROR:-} n
    # shellcheck disable=SC2016  # it is apt-get that expands these
    [ -n "$mirror" ] || mirror=$(apt-get indextargets --format '$(REPO_URI)|$(ORIGIN)|$(LABEL)' 'Created-By: Packages' |
        awk -F'|' '$2 == "Debian" && $3 == "Debian" && !seen { print $1; seen = 1 }')
    [ -n "$mirror" ] || die "no Debian mirror in apt's sources: say MIRROR=..."
    mmdebstrap --quiet --mode=root --architectures=arm64 --variant=apt --include=python3,libgomp1,ca-certificates \
        --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --keyring=/usr/share/keyrings/debian-archive-keyring.gpg "$SUITE" "$1" "$mirror"
    mkdir -p "$1/sys/devices/system/cpu" "$1/proc"
    for n in possible present; do echo 0-3 > "$1/sys/devices/system/cpu/$n"; done
    for n in 0 1 2 3; do
        printf 'processor\t: %d\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n' $n
        printf 'CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n'
    done > "$1/proc/cpuinfo"
}

case $VERB in
there)
    [ -e "$ROOT/proc/cpuinfo" ] && command -v qemu-aarch64-static >/dev/null || exit 1
    realpath "$ROOT";;
build)
    tools
    [ ! -e "$ROOT" ] || exit 0
    echo "making $ROOT: Debian $SUITE for aarch64"
    mkdir -p "$CACHE"
    remove "$ROOT.part"
    binfmt
    system "$ROOT.part"
    mv "$ROOT.part" "$ROOT";;
wheels)
    [ $# -ge 2 ] || die "wheels NAME ARG...: which?"
    target=$ROOT/opt/$1 plat=(); shift
    [ "$(cat "$target/.arguments" 2>/dev/null)" != "$*" ] || exit 0
    for tag in $(seq $GLIBC -1 17); do plat+=(--platform "manylinux_2_${tag}_aarch64"); done
    remove "$target.part"
    "$PYTHON" -m pip install -q --disable-pip-version-check --root-user-action=ignore --only-binary=:all: \
        --python-version $SUITE_PYTHON "${plat[@]}" --platform manylinux2014_aarch64 --target "$target.part" "$@"
    echo "$*" > "$target.part/.arguments"
    remove "$target"
    mv "$target.part" "$target";;
run)
    [ $# -ge 1 ] || die "run what?"
    binfmt
    exec chroot "$ROOT" "$@";;
*)  die "unknown verb $VERB: expected there, build, wheels or run";;
esac
