#!/usr/bin/env bash
# A Debian trixie with a real Home Assistant from PyPI, for Python 3.13.
#
#   root.sh CACHE there         print the root file system if it is complete and can be entered, else exit 1
#   root.sh CACHE build         make CACHE/homeassistant-trixie, unless it is there
#   root.sh CACHE run CMD...    run CMD inside, with /proc, /sys, /dev and the folder $SHARE (if set) bound, in a mount
#                               namespace of its own: nothing stays mounted
#
# Needs root, Debian on x86-64, and apt and pip that reach their registries. Took 5 to 8 minutes on two busy cores; 1.6 GB.
set -euo pipefail
[ $# -ge 2 ] || { sed -n 2,9p "$0"; exit 2; }
CACHE=$1 VERB=$2; shift 2
ROOT=$CACHE/homeassistant-trixie
# The newest for Python 3.13, trixie's.
VERSION=2026.2.3
# Whose requirements are installed, so that Home Assistant starts without fetching anything. The last two are imported
# when a browser asks which services there are.
COMPONENTS=(mqtt recorder history image_upload file_upload frontend camera stream device_automation automation counter
    hassio ai_task assist_satellite)

die() { echo "root.sh: $*" >&2; exit 2; }
[ "$(id -u)" = 0 ] || die "needs root, for chroot"

remove() {   # a folder below CACHE; never through a mount
    if awk '{ print $2 }' /proc/mounts | grep -qF "$(realpath -m "$1")"; then die "something is mounted in $1: umount it first"; fi
    rm -rf "$1"
}

inside() {   # inside ROOT CMD...
    # shellcheck disable=SC2016  # expanded by the inner shell
    unshare --mount --propagation private bash -euc '
        root=$1; shift
        mount --rbind /proc "$root/proc"; mount --rbind /sys "$root/sys"; mount --rbind /dev "$root/dev"
        if [ -n "${SHARE:-}" ]; then mkdir -p "$root$SHARE"; mount --bind "$SHARE" "$root$SHARE"; fi
        exec chroot "$root" "$@"' bash "$@"
}

system() {   # Debian, into $1
    [ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] || die "needs Debian on x86-64"
    if ! command -v mmdebstrap >/dev/null; then
        apt-get -qq update
        DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends mmdebstrap >/dev/null
    fi
    local mirror=${MIRROR:-} packages
    # shellcheck disable=SC2016  # apt's own placeholders
    [ -n "$mirror" ] || mirror=$(apt-get indextargets --format '$(REPO_URI)|$(ORIGIN)|$(LABEL)' 'Created-By: Packages' |
        awk -F'|' '$2 == "Debian" && $3 == "Debian" && !seen { print $1; seen = 1 }')
    [ -n "$mirror" ] || die "no Debian mirror in apt's sources: say MIRROR=..."
    packages=python3,python3-venv,python3-pip,python3-dev,gcc,g++,libc6-dev,ca-certificates,libturbojpeg0,tzdata
    mmdebstrap --quiet --mode=root --variant=apt --include=$packages --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --keyring=/usr/share/keyrings/debian-archive-keyring.gpg trixie "$1" "$mirror"
}

homeassistant() {   # into $1/opt/ha, by pip inside: some requirements are source that has to be built for its Python
    local pip=(/opt/ha/bin/python -m pip install -q --disable-pip-version-check --root-user-action=ignore) index
    cp /etc/resolv.conf "$1/etc/resolv.conf"
    cp /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/ca-certificates.crt"
    index=$("${PYTHON:-python3}" -m pip config get global.index-url 2>/dev/null || true)
    index=${PIP_INDEX_URL:-$index}
    [ -z "$index" ] || pip+=(--index-url "$index")
    inside "$1" python3 -m venv /opt/ha
    inside "$1" env -u PIP_FIND_LINKS -u PIP_CONSTRAINT "${pip[@]}" "homeassistant==$VERSION"
    inside "$1" /opt/ha/bin/python - "${COMPONENTS[@]}" > "$1/opt/requirements.txt" <<'END'
"""The requirements of components and of those they depend on, one a line."""
import json, pathlib, sys
import homeassistant.components as package
folder, waiting, seen, found = pathlib.Path(package.__path__[0]), sys.argv[1:], set(), set()
while waiting:
    name = waiting.pop()
    if name not in seen:
        seen.add(name)
        manifest = json.loads((folder / name / "manifest.json").read_text())
        found.update(manifest.get("requirements", ()))
        waiting += manifest.get("dependencies", []) + manifest.get("after_dependencies", [])[:0]
print(*sorted(found), sep="\n")
END
    inside "$1" env -u PIP_FIND_LINKS -u PIP_CONSTRAINT "${pip[@]}" \
        -c /opt/ha/lib/python3.13/site-packages/homeassistant/package_constraints.txt -r /opt/requirements.txt
}

STAMP="$VERSION ${COMPONENTS[*]}"
complete() { [ -e "$ROOT/opt/complete" ] && [ "$(cat "$ROOT/opt/complete")" = "$STAMP" ]; }

case $VERB in
there)
    complete || exit 1
    realpath "$ROOT";;
build)
    if complete; then exit 0; fi
    mkdir -p "$CACHE"
    if [ ! -e "$ROOT" ]; then
        echo "making $ROOT: Debian trixie"
        remove "$ROOT.part"
        system "$ROOT.part"
        mv "$ROOT.part" "$ROOT"
    fi
    echo "installing Home Assistant $VERSION (some minutes)"
    remove "$ROOT/opt/ha"
    homeassistant "$ROOT"
    echo "$STAMP" > "$ROOT/opt/complete";;
run)
    complete || die "$ROOT is not complete: $0 $CACHE build"
    [ $# -ge 1 ] || die "run what?"
    inside "$ROOT" "$@";;
*)  die "unknown verb $VERB: expected there, build or run";;
esac
