#!/usr/bin/env bash
# A Debian trixie with PyPI's picamera2 on libcamera's virtual camera: no Raspberry Pi, no kernel module, no /dev/video*.
#
#   root.sh CACHE build         make CACHE/amd64-trixie, or bring one that is there up to date
#   root.sh CACHE run CMD...    run CMD inside, next to a fresh copy of the package bittern and of this folder's scripts
#
# Needs root, Debian on x86-64 with gcc, and apt and pip that reach their registries. Took 1 to 4 minutes on two cores; 1.1 GB.
#
# What the camera is: "bars0", colour bars that move (virtual.yaml). What it can: NV12 only, whatever was asked for; a
#   size not in its list becomes the first of the list. What it cannot: raw streams, a pace (frames come as fast as they
#   are taken), flips (it says that it does and does not), exposure and focus controls.
# Trap: libcamera 0.4.0's virtual pipeline leaves a buffer's metadata uninitialised, and a frame whose status happens
#   to look wrong is never delivered. GLIBC_TUNABLES makes fresh memory zero, and the hang goes away.
set -euo pipefail
[ $# -ge 2 ] || { sed -n 2,7p "$0"; exit 2; }
CACHE=$1 VERB=$2; shift 2
HERE=$(cd "$(dirname "$0")" && pwd); PROJECT=$(cd "$HERE/../.." && pwd)
ROOT=$CACHE/amd64-trixie
PYTHON=${PYTHON:-python3}
SUITE_PYTHON=3.13

die() { echo "root.sh: $*" >&2; exit 2; }
[ "$(id -u)" = 0 ] || die "needs root, for chroot"

remove() {   # a folder below CACHE; never through a mount
    if awk '{ print $2 }' /proc/mounts | grep -qF "$(realpath -m "$1")"; then die "something is mounted in $1: umount it first"; fi
    rm -rf "$1"
}

wheels() {   # wheels TARGET REQUIREMENT...: by the host's pip, for the Python inside
    local target=$1 plat=() tag; shift
    for tag in 2_36 2_34 2_28 2_27 2_17; do plat+=(--platform "manylinux_${tag}_x86_64"); done
    "$PYTHON" -m pip install -q --disable-pip-version-check --root-user-action=ignore --no-deps --only-binary=:all: \
        --python-version $SUITE_PYTHON "${plat[@]}" --platform manylinux2014_x86_64 --target "$target" "$@"
}

system() {   # Debian and picamera2, into $1
    [ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] || die "needs Debian on x86-64"
    if ! command -v mmdebstrap >/dev/null; then
        apt-get -qq update
        DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends mmdebstrap
    fi
    local mirror=${MIRROR:-} packages
    # shellcheck disable=SC2016  # apt's own placeholders
    [ -n "$mirror" ] || mirror=$(apt-get indextargets --format '$(REPO_URI)|$(ORIGIN)|$(LABEL)' 'Created-By: Packages' |
        awk -F'|' '$2 == "Debian" && $3 == "Debian" && !seen { print $1; seen = 1 }')
    [ -n "$mirror" ] || die "no Debian mirror in apt's sources: say MIRROR=..."
    packages=python3,python3-pip,python3-setuptools,python3-wheel,python3-libcamera,libcamera-tools,python3-numpy
    packages+=,python3-pil,python3-prctl,python3-av,python3-piexif,python3-libarchive-c,python3-jsonschema,python3-tqdm
    packages+=,gcc,libc6-dev,python3-dev
    mmdebstrap --quiet --mode=root --variant=apt --include=$packages --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --keyring=/usr/share/keyrings/debian-archive-keyring.gpg trixie "$1" "$mirror"
    wheels "$1/opt/picam" picamera2==0.3.38 simplejpeg videodev2 OpenEXR
    # PiDNG comes as source only: fetched here, where pip is set up, built in there.
    mkdir -p "$1/opt/dl"
    "$PYTHON" -m pip download -q --disable-pip-version-check --no-deps --no-binary=:all: -d "$1/opt/dl" PiDNG
    chroot "$1" sh -c 'python3 -m pip install -q --root-user-action=ignore --no-deps --no-index --no-build-isolation \
        --target /opt/picam /opt/dl/*.tar.gz'
}

case $VERB in
build)
    if [ ! -e "$ROOT" ]; then
        echo "making $ROOT: Debian trixie, libcamera, picamera2"
        mkdir -p "$CACHE"
        remove "$ROOT.part"
        system "$ROOT.part"
        mv "$ROOT.part" "$ROOT"
    fi
    if [ ! -e "$ROOT/opt/bittern-wheels" ]; then   # numpy is Debian's, as on a Raspberry Pi
        remove "$ROOT/opt/bittern-wheels.part"
        wheels "$ROOT/opt/bittern-wheels.part" opencv-python-headless msgspec click
        mv "$ROOT/opt/bittern-wheels.part" "$ROOT/opt/bittern-wheels"
    fi
    cc -Wall -Wno-nonnull-compare -shared -fPIC -O2 -o "$ROOT/opt/fake_udmabuf.so" "$HERE/fake_udmabuf.c" -ldl
    install -D -m 644 "$HERE/virtual.yaml" "$ROOT/usr/share/libcamera/pipeline/virtual/virtual.yaml";;
run)
    [ -e "$ROOT/opt/bittern-wheels" ] || die "$ROOT is not complete: $0 $CACHE build"
    [ $# -ge 1 ] || die "run what?"
    remove "$ROOT/opt/bittern"
    mkdir -p "$ROOT/opt/bittern"
    cp -r "$PROJECT/edge/bittern" "$HERE"/*.py "$ROOT/opt/bittern/"
    exec chroot "$ROOT" env -C /opt/bittern PYTHONDONTWRITEBYTECODE=1 \
        PYTHONPATH=/opt/bittern:/opt/picam:/opt/bittern-wheels LD_PRELOAD=/opt/fake_udmabuf.so \
        GLIBC_TUNABLES=glibc.malloc.perturb=255:glibc.malloc.tcache_count=0 \
        LIBCAMERA_LOG_LEVELS="${LIBCAMERA_LOG_LEVELS:-*:FATAL}" "$@";;
*)  die "unknown verb $VERB: expected build or run";;
esac
