#!/usr/bin/env bash
# The device side of a deploy: checks the requirements, builds a release and switches to it, or rolls back.
#
#   install.sh check ROOT INSTANCE picamera|other install|report
#       One line on stderr and exit 2 if something is missing.
#   install.sh install ROOT INSTANCE STAGE allow|refuse
#       Installs what deploy.sh has put into STAGE; the last word is about a release that is older than the one that runs.
#       Exit 1 if it failed and the device is as before; 2 if it was refused and nothing was changed.
#   install.sh install_model ROOT STAGE allow|refuse
#       Installs the one model that deploy_model.sh has put into STAGE, and has the daemons load it; the same exit codes.
#
# All run as root.
# ROOT is empty, or the folder to use instead of / (deploy.sh --prefix).
set -euo pipefail
umask 022
# Nothing that the user who logged in has lying about is run as root: neither from their folder, where this starts, nor
# through variables or packages of theirs. Every Python here runs with -I, and its children in / without the rest.
cd /
unset "${!PYTHON@}"
export PYTHONNOUSERSITE=1
HOME=$(getent passwd "$(id -u)" | cut -d : -f 6)
# Finish even if the connection is lost.
trap '' HUP PIPE

KEEP=3        # releases left on the device
RELOAD_S=150  # longer than a daemon checks its models, `[reload] timeout_s`, if that is not configured
FRAME_S=120   # from READY=1 to the first frame, which the status of the unit tells
SETTLE_S=3    # a daemon that dies within this time after that was not ready
START_S=120   # longer than the unit's TimeoutStartSec + TimeoutStopSec, in case systemctl itself hangs
JOURNAL=20    # log lines to show of a daemon that did not start
PICAMERA="^[[:space:]]*source[[:space:]]*=[[:space:]]*[\"']picamera:"  # the same line is in deploy.sh

say() { printf 'deploy: %s\n' "$*" 2>/dev/null || true; }
warn() { printf 'deploy: %s\n' "$*" >&2 2>/dev/null || true; }

check() {
    local root=$1 instance=$2 camera=$3 packages=$4
    local python=$root/usr/bin/python3 version bits machine module missing=() config
    refuse() { warn "$*"; exit 2; }

    for command in systemctl flock; do
        [ -n "$(command -v $command)" ] || refuse "there is no $command here; Bittern's daemon needs a Debian with systemd"
    done
    [ -x "$python" ] || refuse "there is no $python here; run: sudo apt-get install python3"
    read -r version bits machine < <("$python" -I -c \
        'import platform, struct; print(platform.python_version(), 8 * struct.calcsize("P"), platform.machine())')
    case $version in
        3.[0-9].* | 3.10.* | 2.*) refuse "Python here is $version, but Bittern needs 3.11: use Raspberry Pi OS bookworm or newer" ;;
    esac
    if [ "$bits" = 32 ]; then
        # pip chooses wheels by the kernel's architecture: under a 64-bit kernel it finds none for 32 bits.
        case $machine in
            armv7l) [ "${version%.*}" = 3.11 ] || refuse "there is no 32-bit runtime for Python $version, only for 3.11:" \
                        "use the 64-bit Raspberry Pi OS, or 32-bit bookworm" ;;
            armv6l) refuse "there is no runtime for this processor (armv6l: Pi 1, Pi Zero); use a Pi Zero 2 or newer" ;;
            *) refuse "this is a 32-bit system under a 64-bit kernel ($machine); use the 64-bit Raspberry Pi OS," \
                   "or add arm_64bit=0 to /boot/firmware/config.txt and reboot" ;;
        esac
    fi

    config=$root/etc/bittern/$instance.toml
    if [ -e "$config" ]; then
        camera=other
        if grep -Eq "$PICAMERA" "$config"; then camera=picamera; fi
    fi
    [ -n "$(command -v rsync)" ] || missing+=(rsync)
    for module in ensurepip:python3-venv numpy:python3-numpy cv2:python3-opencv; do
        "$python" -I -c "import ${module%:*}" 2>/dev/null || missing+=("${module#*:}")
    done
    if [ "$camera" = picamera ]; then "$python" -I -c 'import picamera2' 2>/dev/null || missing+=(python3-picamera2); fi
    # msgspec has no 32-bit wheel on PyPI: pip compiles it.
    if [ "$bits" = 32 ]; then
        [ -n "$(command -v gcc)" ] || missing+=(gcc)
        "$python" -I -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
            missing+=(python3-dev)
    fi
    if [ ${#missing[@]} != 0 ]; then
        local apt=(apt-get install -y --no-install-recommends "${missing[@]}")
        [ "$packages" = install ] ||
            refuse "packages are missing here; run this, or deploy with --install-packages: sudo ${apt[*]}"
        if ! { apt-get -q update && DEBIAN_FRONTEND=noninteractive "${apt[@]}"; } >&2; then
            refuse "apt-get could not install ${missing[*]}; see above"
        fi
    fi
    # Remove leftovers of interrupted deploys; a running one is less than a day old.
    find /var/tmp -maxdepth 1 -name 'bittern-deploy.*' -mmin +1440 -exec rm -rf {} + 2>/dev/null || true
}

# --- install -----------------------------------------------------------------------------------------------------

# What was uploaded belongs to the user who logged in, and is copied to where nobody but root can change it any more:
# first the copy is checked, then it is installed.
receive() {  # $1: what was uploaded; $2: what its id looks like; sets stage and id
    stage=$(mktemp -d /var/tmp/bittern-deploy.XXXXXX)
    cp -R "$1/." "$stage/"
    rm -rf "$1"
    local bad
    bad=$(cd "$stage" && find . ! -type f ! -type d -print -quit)
    [ -z "$bad" ] || refuse "the release has $bad, which is no ordinary file"
    [ -f "$stage/SHA256SUMS" ] || refuse "the release has no list of its files (SHA256SUMS)"
    bad=$(diff <(cut -c 67- "$stage/SHA256SUMS" | LC_ALL=C sort) \
        <(cd "$stage" && find . -type f ! -name 'SHA256SUMS*' ! -path ./config.toml | LC_ALL=C sort) | sed -n '2s/^[<>] //p') || true
    [ -z "$bad" ] || refuse "the release is not what is in the list of its files: see $bad"
    bad=$(cd "$stage" && sha256sum --check --strict --quiet SHA256SUMS 2> /dev/null | head -n 1) || true
    [ -z "$bad" ] || refuse "the release was altered: another SHA-256 than in the list of its files: ${bad%: *}"
    (cd "$stage" && sha256sum --check --strict --status SHA256SUMS 2> /dev/null) ||
        refuse "the list of the release's files cannot be read"
    id=$(head -c 100 "$stage/release" 2> /dev/null) || true
    [[ $id =~ ^[0-9]{8}T[0-9]{6}Z-$2$ ]] || refuse "the release has no time and version"
}

# The list must be signed by one of the keys in allowed_signers. The first signed release brings its key with it, which
# is trusted from then on, as ssh trusts the key of a host. Sets signed and new_signer.
verify() {
    local trusted=$signers
    new_signer='' signed=0
    if [ ! -f "$stage/SHA256SUMS.sig" ]; then
        [ ! -e "$signers" ] || refuse "this release is not signed, but $signers names the keys that must sign: deploy" \
            "with such a key (--key), or remove that file"
        warn "this release is not signed: with an SSH key (ssh-keygen), deploy signs releases, and no other is accepted"
        return
    fi
    [ -n "$(command -v ssh-keygen)" ] ||
        refuse "there is no ssh-keygen here to verify the release; run: sudo apt-get install openssh-client"
    if [ ! -e "$signers" ]; then
        new_signer=$(cat "$stage/signer.pub" 2> /dev/null) || true
        [[ $new_signer =~ ^[a-z0-9@.-]+\ [A-Za-z0-9+/=]+$ ]] || refuse "the release does not say which key signed it"
        trusted=$stage/allowed_signers
        printf 'bittern namespaces="bittern" %s\n' "$new_signer" > "$trusted"
    fi
    ssh-keygen -Y verify -f "$trusted" -I bittern -n bittern -s "$stage/SHA256SUMS.sig" \
        < "$stage/SHA256SUMS" > /dev/null 2>&1 ||
        refuse "the release is not signed by a key in $signers, or was altered since; to accept another key, add its" \
            "line there: bittern namespaces=\"bittern\" KEY"
    signed=1
}

trust() {  # the key of the first signed release
    [ -n "$new_signer" ] || return 0
    printf 'bittern namespaces="bittern" %s\n' "$new_signer" > "$signers.new"
    mv -f "$signers.new" "$signers"
    say "from now on this device accepts only releases signed by $(ssh-keygen -lf "$signers" | cut -d ' ' -f 2)"
}

is_older() {  # by the time of the release, or by its version without a suffix such as rc1
    local one=${1#*-} two=${2#*-}
    one=${one%%[!0-9.]*} two=${two%%[!0-9.]*}
    [[ ${1%%-*} < ${2%%-*} ]] ||
        { [ "$one" != "$two" ] && [ "$(printf '%s\n' "$one" "$two" | sort -V | head -n 1)" = "$one" ]; }
}

# Runs in a subshell with set -e. Builds the release under a temporary name, then renames it; touches nothing that runs.
build() {
    local package python=$root/usr/bin/python3 log=$stage/pip.log wheel
    wheel=$(cd "$stage" && echo bittern-*.whl)
    # Requirements for pip, every file with its hash: the lock and the wheel.
    { cat "$stage/pi.txt"
      printf '%s/%s[mqtt,metrics] --hash=sha256:%s\n' "$stage" "$wheel" "$(sha256sum "$stage/$wheel" | cut -d ' ' -f 1)"
    } > "$stage/requirements.txt"
    local pip=("$new/venv/bin/python" -I -m pip install --progress-bar off --disable-pip-version-check --no-input --require-hashes)
    mkdir "$new"
    # numpy, OpenCV, picamera2 and libcamera are Debian's: they are built for one another. They are not in the lock, and
    # pip refuses everything that is not: so a package that needs another numpy fails here.
    "$python" -I -m venv --system-site-packages "$new/venv"
    [ ! -d "$stage/wheelhouse" ] || pip+=(--no-index --find-links "$stage/wheelhouse")
    # On 32 bits pip compiles msgspec, with locked build tools; with build isolation it would download other ones.
    if ! { { [ "$("$python" -I -c 'import struct; print(struct.calcsize("P"))')" = 8 ] || "${pip[@]}" -r "$stage/build.txt"; } &&
            "${pip[@]}" --no-build-isolation -r "$stage/requirements.txt"; } > "$log" 2>&1; then
        tail -n "$JOURNAL" "$log" >&2 || true
        warn "pip could not install release $id; see above"
        exit 1
    fi
    mkdir "$new/models"
    cp -R "$stage/models/." "$new/models/"
    # By these `bittern models` says which models were signed.
    cp "$stage"/SHA256SUMS* "$new/"
    package=$("$new/venv/bin/python" -I -c 'import pathlib, bittern; print(pathlib.Path(bittern.__file__).parent)')
    sed -E "s#(^|[ =:])/(opt|etc|var/lib)/bittern#\1$root/\2/bittern#g" "$package/shipped/systemd/bittern@.service" \
        > "$new/bittern@.service"
    if [ "$(systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')" -ge 254 ]; then
        sed -i '/^RestartSec=/a RestartSteps=5\nRestartMaxDelaySec=60' "$new/bittern@.service"
    fi
    # The scripts of a venv contain the path of its folder.
    grep -rlIF "$new" "$new/venv/bin" "$new/venv/pyvenv.cfg" | xargs sed -i "s#$new#$base/releases/$id#g"
    chmod -R u=rwX,go=rX "$new"
    sync -f "$new"
    mv -T "$new" "$base/releases/$id"
    sync -f "$base/releases"
    "$base/releases/$id/venv/bin/python" -I "$base/releases/$id/venv/bin/bittern" --help > /dev/null ||
        { warn "the new bittern command does not start; see above"; exit 1; }
}

switch() {  # $1: a release. Replaces the link and then the unit, each by one rename
    ln -sfn "releases/$1" "$base/current.new" &&
        mv -fT "$base/current.new" "$base/current" &&
        cp "$base/releases/$1/bittern@.service" "$units/.bittern@.service.new" &&
        mv -f "$units/.bittern@.service.new" "$units/bittern@.service" &&
        sync -f "$base" &&
        systemctl daemon-reload
}

start() {  # $1: a unit. Type=notify: systemctl returns when the daemon has sent READY=1, or has died
    timeout "$START_S" systemctl restart "$1"
}

settled() { sleep "$SETTLE_S" && systemctl is-active --quiet "$1"; }

has_frames() { [[ $(systemctl show --property=StatusText --value "$1") == *"frames per second"* ]]; }

await_frame() {  # $1: a unit. Fails if it dies, or gets no frame, unless it had none before either
    local end=$((SECONDS + FRAME_S))
    until has_frames "$1"; do
        systemctl is-active --quiet "$1" || return 1
        if [ $SECONDS -ge $end ]; then
            [[ " ${waiting[*]} " == *" $1 "* ]] || { warn "$1 gets no frame from its camera"; return 1; }
            say "$1 is waiting for its camera, as it was before"
            return 0
        fi
        sleep 1
    done
}

versions() {  # $1: a release; $2, $3: folders of models. The version of each, and whether the first is older
    "$base/releases/$1/venv/bin/python" -I -c '
import sys
from pathlib import Path
from bittern.model import manifest
from bittern.model.candidate import is_older
versions = [manifest.read(Path(folder)).version for folder in sys.argv[1:]]
print(*(version.split()[0] for version in versions), "older" if is_older(*versions) else "newer")
' "$2" "$3"
}

# Models that were deployed alone come before those of a release. Where the new release has the same model, no older
# one, its own counts: the link goes aside, and comes back if the release is taken back.
set_aside() {
    local link name own alone order
    rm -rf "$aside"
    for link in "$base"/models/*; do
        name=${link##*/}
        if [ ! -L "$link" ] || [ ! -e "$base/releases/$id/models/$name/manifest.json" ]; then continue; fi
        read -r own alone order < <(versions "$id" "$base/releases/$id/models/$name" "$link/") || continue
        if [ "$order" = older ]; then
            warn "$name $alone, which was deployed alone, stays in use: the release has $name $own, which is older"
        else
            mkdir -p "$aside"
            mv -T "$link" "$aside/$name"
        fi
    done
}

bring_back() {
    local link
    for link in "$aside"/*; do if [ -L "$link" ]; then mv -fT "$link" "$base/models/${link##*/}"; fi; done
    rm -rf "$aside"
}

activate() {  # starts the new release in every instance; fails at the first that does not become ready
    local unit since own=bittern@$instance.service
    since=$(date +%s)
    if ! { switch "$id" && systemctl enable --quiet "$own"; }; then
        warn "could not switch to release $id"
        return 1
    fi
    local units_to_start=("$own")
    for unit in "${running[@]}"; do [ "$unit" = "$own" ] || units_to_start+=("$unit"); done
    for unit in "${units_to_start[@]}"; do
        say "starting $unit"
        if ! { start "$unit" && await_frame "$unit" && settled "$unit"; }; then
            warn "$unit did not become ready; its last lines:"
            journalctl -u "$unit" -n "$JOURNAL" --no-pager -o cat --since "@$since" >&2 || true
            return 1
        fi
    done
}

roll_back() {  # to the previous release, or to none
    local unit ok=1
    bring_back
    if [ "$created_config" = 1 ]; then rm -f "$config"; fi
    if [ "$was_enabled" = 0 ]; then systemctl disable --quiet "bittern@$instance.service" || true; fi
    if [ -z "$previous" ]; then
        systemctl stop "bittern@$instance.service" || true
        rm -f "$base/current" "$units/bittern@.service"
        systemctl daemon-reload
        warn "removed again: nothing was installed before"
    else
        switch "$previous" || warn "could not switch back to release $previous"
        [[ " ${running[*]} " == *" bittern@$instance.service "* ]] || systemctl stop "bittern@$instance.service" || true
        for unit in "${running[@]}"; do
            { start "$unit" && settled "$unit"; } || { ok=0; warn "$unit does not start with release $previous either"; }
        done
        [ $ok = 0 ] || warn "restored release $previous${running[*]:+, which is running}"
    fi
    rm -rf "${base:?}/releases/$id"
}

install() {
    root=$1 instance=$2 uploaded=$3 older=$4 stage=$3
    base=$root/opt/bittern units=$root/etc/systemd/system config=$root/etc/bittern/$instance.toml
    signers=$root/etc/bittern/allowed_signers aside=$base/.models-aside
    new='' created_config=0 was_enabled=0 previous='' running=() waiting=()
    trap 'rm -rf "$new" "$stage" "$uploaded" "$config.new"' EXIT
    refuse() { warn "$*; nothing was changed"; exit 2; }
    exec 9< "${root:-/}"
    flock -w 30 9 || { warn "another deploy is running here"; exit 1; }
    if [ -L "$base/current" ]; then previous=$(basename "$(readlink "$base/current")"); fi
    if [ ! -d "$base/releases/$previous" ]; then previous=''; fi
    receive "$uploaded" '[0-9][A-Za-z0-9.+]*'
    verify
    if [ "$signed" = 1 ] && [ "$older" != allow ] && [ -n "$previous" ] && is_older "$id" "$previous"; then
        refuse "release $id is older than $previous, which runs here; to go back on purpose: --allow-older"
    fi
    new=$base/releases/.new-$id
    mkdir -p "$base/releases" "$root/etc/bittern" "$units"
    rm -rf "$base"/releases/.new-* "$base/current.new"
    [ ! -e "$base/releases/$id" ] || { warn "release $id is already here"; exit 1; }
    if [ -e "$stage/config.toml" ] && [ -e "$config" ] && ! cmp -s "$stage/config.toml" "$config"; then
        warn "$config differs from the file of --config, and is never overwritten:" \
            "change it on the device, or move it away"
        exit 2
    fi

    getent passwd bittern > /dev/null ||
        useradd --system --user-group --home-dir /var/lib/bittern --shell /usr/sbin/nologin bittern
    local group unit
    for group in video render gpio; do
        if getent group "$group" > /dev/null; then usermod --append --groups "$group" bittern; fi
    done

    say "building release $id"
    local built
    set +e  # for the next line only: inside `if` and `||`, set -e would not hold in build
    (set -e; build); built=$?
    set -e
    if [ $built != 0 ]; then
        rm -rf "${base:?}/releases/$id"
        warn "release $id could not be built; nothing was changed"
        exit 1
    fi

    if [ ! -e "$config" ]; then
        created_config=1
        # A camera's address may contain a password: only root and the daemon may read it, from the first byte on.
        rm -f "$config.new"
        (umask 077
         if [ -e "$stage/config.toml" ]; then cat "$stage/config.toml"
         else sed "s/@NAME/@$instance/" "$stage/default.toml"; fi > "$config.new")
        chgrp bittern "$config.new"
        chmod 640 "$config.new"
        sync "$config.new"
        mv -f "$config.new" "$config"
    fi
    if systemctl is-enabled --quiet "bittern@$instance.service" 2>/dev/null; then was_enabled=1; fi
    # Every instance runs from `current`, so all running ones are restarted.
    mapfile -t running < <(systemctl list-units --plain --no-legend --state=active,activating 'bittern@*.service' |
        awk '{print $1}')

    for unit in "${running[@]}"; do has_frames "$unit" || waiting+=("$unit"); done

    set_aside
    if ! activate; then
        roll_back
        exit 1
    fi

    trust
    rm -rf "$aside"

    # Names begin with the time, so sorting by name sorts by age.
    find "$base/releases" -mindepth 1 -maxdepth 1 -type d ! -name "$id" ! -name '.*' -printf '%f\n' | sort -r |
        tail -n "+$KEEP" | while read -r old; do rm -rf "${base:?}/releases/$old"; done
    say "bittern@$instance runs release $id; to see its events:  journalctl -u bittern@$instance -f -o cat"
}

# --- one model ---------------------------------------------------------------------------------------------------

instance_of() { local instance=${1#*@}; printf '%s' "${instance%.service}"; }  # $1: a unit

newest_line() { tail -n 1 "$root/var/lib/bittern/$1/models.jsonl" 2> /dev/null || true; }  # $1: an instance

reload() {  # $1: a unit. Has it load its models again, and waits for what its history says then; sets line
    local instance before end=$((SECONDS + RELOAD_S))
    instance=$(instance_of "$1")
    before=$(newest_line "$instance")
    systemctl reload "$1" || return 1
    while line=$(newest_line "$instance"); [ "$line" = "$before" ]; do
        if ! systemctl is-active --quiet "$1" || [ $SECONDS -ge $end ]; then
            warn "$1 does not say what came of its models"
            return 1
        fi
        sleep 0.5
    done
    if [[ $line != *'"state":"models_loaded"'* ]]; then
        line=${line##*\"reason\":\"}
        warn "$1 refuses the model: ${line%\"*}"
        return 1
    fi
}

link_to() {  # $1: a folder below $base; replaces the link of the model by one rename
    ln -sfn "$1" "$base/models/.$name.new" && mv -fT "$base/models/.$name.new" "$base/models/$name" && sync -f "$base/models"
}

install_model() {
    root=$1 uploaded=$2 older=$3 stage=$2
    base=$root/opt/bittern signers=$root/etc/bittern/allowed_signers
    local name version='' old='' before='' sha256 unit other order='' current used_by=() running=() waiting=() changed=() line
    trap 'rm -rf "$stage" "$uploaded"' EXIT
    refuse() { warn "$*; nothing was changed"; exit 2; }
    exec 9< "${root:-/}"
    flock -w 30 9 || { warn "another deploy is running here"; exit 1; }
    [ -e "$base/current/venv/bin/python" ] || refuse "there is no Bittern here yet: make deploy"
    grep -qs "$base/models:" "$root/etc/systemd/system/bittern@.service" ||
        refuse "the release here is from before models were deployed alone: make deploy"
    receive "$uploaded" '[a-z0-9][a-z0-9_.-]*'
    verify
    name=${id#*-}
    { [ "$(cd "$stage/models" && echo *)" = "$name" ] && [ -e "$stage/models/$name/manifest.json" ]; } ||
        refuse "the release should hold the model $name and no other"
    current=$base/models/$name
    if [ -L "$current" ]; then before=$(readlink "$current"); else current=$base/current/models/$name; fi
    if [ -e "$current/manifest.json" ]; then
        read -r version old order < <(versions "$(basename "$(readlink "$base/current")")" "$stage/models/$name" "$current/") ||
            refuse "the manifest of $name cannot be read"
        if [ -n "$before" ] && [[ ${id%%-*} < $(basename "${before%/models/*}") ]]; then order=older; fi
        if [ "$order" = older ] && [ "$older" != allow ]; then
            refuse "$name $version is older than $old, which is in use here; to go back on purpose: --allow-older"
        fi
    fi
    # As the histories of the daemons have it; the manifest also says what the file is called.
    sha256=$("$base/current/venv/bin/python" -I -c 'import json, sys; print(json.load(open(sys.argv[1]))["sha256"])' \
        "$stage/models/$name/manifest.json" 2> /dev/null) || refuse "the manifest of $name cannot be read"

    mkdir -p "$base/models" "$base/deployed"
    [ ! -e "$base/deployed/$id" ] || { warn "$id is already here"; exit 1; }
    rm -rf "$base"/deployed/.new-*
    mkdir "$base/deployed/.new-$id"
    cp -R "$stage/models" "$stage"/SHA256SUMS* "$base/deployed/.new-$id/"
    chmod -R u=rwX,go=rX "$base/deployed/.new-$id"
    sync -f "$base/deployed"
    mv -T "$base/deployed/.new-$id" "$base/deployed/$id"
    link_to "../deployed/$id/models/$name"

    mapfile -t running < <(systemctl list-units --plain --no-legend --state=active,activating 'bittern@*.service' |
        awk '{print $1}')
    for unit in "${running[@]}"; do has_frames "$unit" || waiting+=("$unit"); done
    for unit in "${running[@]}"; do
        changed+=("$unit")
        line=''
        # A daemon that runs takes no older model: it is started again.
        if { [ "$order" = older ] && start "$unit" && await_frame "$unit" && line=$(newest_line "$(instance_of "$unit")"); } ||
            { [ "$order" != older ] && reload "$unit"; }; then
            if [[ $line == *"\"$sha256\""* ]]; then used_by+=("$unit"); fi
            continue
        fi
        warn "the model that was in use before is put back"
        if [ -n "$before" ]; then link_to "$before"; else rm -f "$base/models/$name"; fi
        rm -rf "${base:?}/deployed/$id"
        for other in "${changed[@]::${#changed[@]}-1}"; do start "$other" || warn "$other does not start"; done
        [ "$order" != older ] || start "${changed[-1]}" || true
        exit 1
    done
    trust
    # The one before stays, for --allow-older has only to name it.
    find "$base/deployed" -mindepth 1 -maxdepth 1 -name "????????T??????Z-$name" ! -name "$id" -printf '%f\n' | sort -r | tail -n +2 |
        while read -r old; do rm -rf "${base:?}/deployed/$old"; done
    if [ ${#used_by[@]} != 0 ]; then say "$name ${version:+$version }runs in ${used_by[*]}"
    else say "$name ${version:+$version }is here, but no camera that runs uses it: name it in models of /etc/bittern/NAME.toml"; fi
}

# On the last line, so that an incomplete script, after a lost connection, does nothing.
"$@"
