#!/usr/bin/env bash
# Podman with the images that Containerfile and compose.yaml start from, which no registry is asked for.
#
#   engine.sh CACHE there               exit 0 if Podman and the base image are here
#   engine.sh CACHE build               install Podman, and make the base image and one with mosquitto, unless they are here
#   engine.sh CACHE podman ARG...       podman; `build` gets the pip.conf of this machine as the secret "pip"
#   engine.sh CACHE compose ARG...      podman-compose
#
# ARCH=arm64 by the environment is for a base image of that architecture, localhost/debian-arm64, run by qemu-user (which
# needs a kernel with binfmt_misc). Images are in CACHE/container.
#
#   ARCH=arm64 engine.sh CACHE build
#   make container IMAGE=localhost/bittern-arm64 ENGINE='tests/container/engine.sh CACHE podman' \
#       ARGS='--arch arm64 --build-arg BASE=localhost/debian-arm64 --env QEMU_CPU=cortex-a72'
#
# The first took 13 minutes on two busy cores; the second was not run to its end (see docs/container.md).
# Needs root, Debian, and apt and pip that reach their registries. Took 2 minutes for Podman and base image; 0.1 GB.
set -euo pipefail
[ $# -ge 2 ] || { sed -n 2,16p "$0"; exit 2; }
mkdir -p "$1/container"; CACHE=$(cd "$1/container" && pwd) VERB=$2; shift 2
ARCH=${ARCH:-amd64}
# Without it qemu 7.2 offers a processor with everything, which costs it most of its time; see ../arm64/root.sh.
export QEMU_CPU=${QEMU_CPU:-cortex-a72}
case $ARCH in
amd64) BASE=docker.io/library/debian:trixie-slim;;
arm64) BASE=localhost/debian-arm64;;
*) echo "unknown ARCH $ARCH: expected amd64 or arm64" >&2; exit 2;;
esac
MQTT=docker.io/library/eclipse-mosquitto:2

die() { echo "engine.sh: $*" >&2; exit 2; }
[ "$(id -u)" = 0 ] || die "needs root"

# What Podman is told by its own files, so that podman-compose obeys them too.
export CONTAINERS_STORAGE_CONF=$CACHE/storage.conf CONTAINERS_CONF=$CACHE/containers.conf BUILDAH_ISOLATION=chroot
files() {
    # Overlay where the kernel lets us, as a copy of everything for each layer takes its time.
    local driver=overlay
    mkdir -p "$CACHE/try/"{lower,upper,work,merged}
    unshare --mount mount -t overlay -o "lowerdir=$CACHE/try/lower,upperdir=$CACHE/try/upper,workdir=$CACHE/try/work" \
        overlay "$CACHE/try/merged" 2>/dev/null || driver=vfs
    rm -rf "$CACHE/try"
    printf '[storage]\ndriver = "%s"\ngraphroot = "%s"\nrunroot = "%s"\n' "$driver" "$CACHE/storage" "$CACHE/run" \
        > "$CONTAINERS_STORAGE_CONF"
    # runc: crun refuses cgroups of both versions at a time. Limits: no more than this user has.
    printf '[engine]\nruntime = "runc"\n[containers]\ndefault_ulimits = ["nofile=%s:%s", "nproc=%s:%s"]\n' \
        "$(ulimit -Hn)" "$(ulimit -Hn)" "$(ulimit -Hn)" "$(ulimit -Hn)" > "$CONTAINERS_CONF"
}

base() {   # the system of the official image, into the file $1: minbase, without manuals and translations
    local mirror=${MIRROR:-}
    # shellcheck disable=SC2016  # it is apt-get that expands these
    [ -n "$mirror" ] || mirror=$(apt-get indextargets --format '$(REPO_URI)|$(ORIGIN)|$(LABEL)' 'Created-By: Packages' |
        awk -F'|' '$2 == "Debian" && $3 == "Debian" && !seen { print $1; seen = 1 }')
    [ -n "$mirror" ] || die "no Debian mirror in apt's sources: say MIRROR=..."
    mmdebstrap --quiet --mode=root --architectures="$ARCH" --variant=minbase \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --keyring=/usr/share/keyrings/debian-archive-keyring.gpg trixie "$1" "$mirror"
}

install_tools() {
    local packages=(podman buildah runc podman-compose mmdebstrap containernetworking-plugins
        golang-github-containernetworking-plugin-dnsname)
    [ "$ARCH" = amd64 ] || packages+=(qemu-user-static arch-test)
    dpkg -s "${packages[@]}" >/dev/null 2>&1 && return
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${packages[@]}" >/dev/null
}

binfmt() {   # as in ../arm64/root.sh: flag F, so that nothing of qemu is needed inside
    local binfmt=/proc/sys/fs/binfmt_misc
    [ -e $binfmt/register ] || mount -t binfmt_misc binfmt_misc $binfmt
    [ -e $binfmt/qemu-aarch64 ] || cat /usr/lib/binfmt.d/qemu-aarch64.conf > $binfmt/register
}

secret() {   # what this machine's pip needs to reach its index
    local index
    index=$("${PYTHON:-python3}" -m pip config get global.index-url 2>/dev/null || true)
    index=${PIP_INDEX_URL:-$index}
    printf '[global]\ncert = /run/certificates.crt\n'
    [ -z "$index" ] || printf 'index-url = %s\n' "$index"
}

case $VERB in
there)
    [ -e "$CACHE/trixie-$ARCH.tar" ] && command -v podman runc podman-compose >/dev/null;;
build)
    install_tools
    [ "$ARCH" = amd64 ] || binfmt
    files
    if [ ! -e "$CACHE/trixie-$ARCH.tar" ]; then
        echo "making $CACHE/trixie-$ARCH.tar: Debian trixie"
        rm -f "$CACHE/trixie.part.tar"
        base "$CACHE/trixie.part.tar"
        mv "$CACHE/trixie.part.tar" "$CACHE/trixie-$ARCH.tar"
    fi
    # Both under the names of the official images.
    podman image exists $BASE || podman import --arch "$ARCH" "$CACHE/trixie-$ARCH.tar" $BASE >/dev/null
    [ "$ARCH" = arm64 ] || podman image exists $MQTT || podman build -q -t $MQTT - >/dev/null <<END
FROM $BASE
RUN apt-get -qq update && apt-get -qq install -y --no-install-recommends mosquitto mosquitto-clients >/dev/null 2>&1
RUN printf 'listener 1883\nallow_anonymous true\n' > /mosquitto-no-auth.conf
END
    ;;
podman)
    if [ "${1:-}" = build ]; then
        shift
        pip_conf=$(mktemp)
        trap 'rm -f "$pip_conf"' EXIT
        secret > "$pip_conf"
        podman build --secret id=pip,src="$pip_conf" \
            --volume /etc/ssl/certs/ca-certificates.crt:/run/certificates.crt:ro "$@"
    else
        exec podman "$@"
    fi;;
compose)
    exec podman-compose "$@";;
*)  die "unknown verb $VERB: expected there, build, podman or compose";;
esac
