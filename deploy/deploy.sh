#!/usr/bin/env bash
# Puts Bittern on a Raspberry Pi over ssh: a release of its own, a systemd unit, and back again if it does not start.
#
#   deploy/deploy.sh HOST [options]              for example: deploy/deploy.sh pi@raspberrypi.local
#
#   --instance NAME      which camera of the Pi: unit bittern@NAME, /etc/bittern/NAME.toml (default: default)
#   --config FILE        its configuration, used when the Pi has none yet (default: the Pi's own camera, stop_sign)
#   --wheel FILE         what to install (default: the newest dist/bittern-*.whl)
#   --models DIR         model folders that come along, each with a manifest.json (default: models/)
#   --wheelhouse DIR     the files that locks/pi.txt names (on 32 bits locks/build.txt too), for a Pi without internet
#   --install-packages   let apt-get install what Debian packages are missing
#   --ssh-config FILE    as ssh -F
#   --prefix DIR         a folder on the Pi that stands for /: /opt, /etc, /var/lib and /usr/bin/python3 lie below it
#
# Exit 0: the daemon runs and is ready. 1: it is not, and the Pi is as it was. 2: nothing was begun.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
host='' instance=default config='' wheel='' models=$here/../models wheelhouse='' packages=report ssh_config='' prefix=''
PICAMERA="^[[:space:]]*source[[:space:]]*=[[:space:]]*[\"']picamera:"  # the same line is in install.sh

# sha256sum is Linux's, shasum macOS's.
sha256() { { sha256sum "$1" 2> /dev/null || shasum -a 256 "$1"; } | cut -d ' ' -f 1; }
refuse() { printf 'deploy: %s\n' "$*" >&2; exit 2; }
usage() { sed -n '/^#   deploy/,/^# Exit/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

while [ $# -gt 0 ]; do
    case $1 in
        --instance | --config | --wheel | --models | --wheelhouse | --ssh-config | --prefix)
            [ $# -ge 2 ] || refuse "$1 needs a value"
            name=${1#--}
            printf -v "${name//-/_}" %s "$2"
            shift 2 ;;
        --install-packages) packages=install; shift ;;
        -h | --help) usage; exit 0 ;;
        -*) refuse "unknown option $1; see deploy/deploy.sh --help" ;;
        *) [ -z "$host" ] || refuse "one host at a time, not $host and $1"; host=$1; shift ;;
    esac
done
[ -n "$host" ] || refuse "say where to: make deploy HOST=pi@raspberrypi.local"
[[ $host =~ ^[A-Za-z0-9@._:%-]+$ ]] || refuse "HOST is USER@NAME as for ssh, not '$host'"
[[ $instance =~ ^[A-Za-z0-9][A-Za-z0-9_-]*$ ]] || refuse "--instance is a name of letters, digits, _ and -, not '$instance'"
[[ $prefix =~ ^(/[A-Za-z0-9._/-]+)?$ ]] || refuse "--prefix is a full path of letters, digits and . _ -, not '$prefix'"
prefix=${prefix%/}
if [ -z "$wheel" ]; then
    for file in "$here"/../dist/bittern-*.whl; do
        if [ -f "$file" ] && { [ -z "$wheel" ] || [ "$file" -nt "$wheel" ]; }; then wheel=$file; fi
    done
    [ -n "$wheel" ] || refuse "there is no dist/bittern-*.whl; say: make wheel"
fi
for file in "$wheel" ${config:+"$config"} ${ssh_config:+"$ssh_config"}; do
    [ -f "$file" ] || refuse "there is no file $file"
done
for folder in "$models" ${wheelhouse:+"$wheelhouse"}; do
    [ -d "$folder" ] || refuse "there is no folder $folder"
done
[[ $(basename "$wheel") =~ ^bittern-([0-9][A-Za-z0-9.+]*)-py3-none-any\.whl$ ]] || refuse "$wheel is not a wheel of Bittern"
version=${BASH_REMATCH[1]}
for command in ssh rsync; do
    [ -n "$(command -v $command)" ] || refuse "there is no $command on this machine; install it first"
done

# /tmp and not $TMPDIR: the path of a socket has at most 104 bytes.
work=$(mktemp -d /tmp/bittern-deploy.XXXXXX)
stage=''
# One connection for everything, so that a password is asked for once.
cat > "$work/ssh" <<END
#!/bin/bash
exec ssh ${ssh_config:+-F $(printf %q "$ssh_config")} -o ConnectTimeout=10 -o ServerAliveInterval=15 \\
    -o ControlMaster=auto -o ControlPath=$work/%C -o ControlPersist=60 "\$@"
END
chmod +x "$work/ssh"
# The device's half, as root: its text on stdin, after the password if there is one, its arguments quoted for the
# shell over there.
remote() {
    { [ -z "$password" ] || printf '%s\n' "$password"; cat "$here/install.sh"; } |
        "$work/ssh" -- "$host" "${sudo}bash -s -- $(printf '%q ' "$@")"
}
# shellcheck disable=SC2317  # reached by the trap
tidy() {
    [ -z "$stage" ] || "$work/ssh" -n -- "$host" "rm -rf $stage" 2>/dev/null || true
    "$work/ssh" -O exit -- "$host" 2>/dev/null || true
    rm -rf "$work"
}
trap tidy EXIT

if ! user=$("$work/ssh" -n -- "$host" id -u 2> "$work/error"); then
    refuse "ssh cannot reach $host ($(tail -n 1 "$work/error" | tr -d '\r')); try: ssh $host"
fi
sudo='' password=''
if [ "$user" != 0 ]; then
    sudo='sudo -n '
    # -k: whatever sudo remembers from a minute ago may be forgotten in the middle.
    if ! "$work/ssh" -n -- "$host" sudo -k -n true 2> /dev/null; then
        [ -t 0 ] || refuse "sudo on $host asks for a password; run this in a terminal, or log in as root"
        read -rs -p "deploy: password for sudo on $host: " password
        echo >&2
        sudo="sudo -k -S -p '' "
        if ! printf '%s\n' "$password" | "$work/ssh" -- "$host" "${sudo}true" 2> /dev/null; then
            refuse "sudo on $host does not accept this password"
        fi
    fi
fi
camera=other
if grep -Eq "$PICAMERA" "${config:-$here/default.toml}"; then camera=picamera; fi
remote check "$prefix" "$instance" "$camera" "$packages" || exit 2
stage=$("$work/ssh" -n -- "$host" mktemp -d /var/tmp/bittern-deploy.XXXXXX) || refuse "$host has no room in /var/tmp"
[[ $stage =~ ^/var/tmp/bittern-deploy\.[A-Za-z0-9]+$ ]] || { stage=''; refuse "$host does not answer as a device: $stage"; }

put=("$wheel" "$here/default.toml" "$here/../locks/build.txt" "$work/requirements.txt")
# What pip installs on the Pi, every file by its hash: the lock, and the wheel.
{ cat "$here/../locks/pi.txt"
  printf '%s/%s[mqtt,metrics] --hash=sha256:%s\n' "$stage" "$(basename "$wheel")" "$(sha256 "$wheel")"
} > "$work/requirements.txt"
if [ -n "$config" ]; then cp "$config" "$work/config.toml"; put+=("$work/config.toml"); fi
mkdir "$work/models"
for folder in "$models"/*/; do
    [ ! -f "$folder/manifest.json" ] || cp -R "${folder%/}" "$work/models/"
done
if [ -n "$wheelhouse" ]; then
    mkdir "$work/wheelhouse"
    find "$wheelhouse/" -maxdepth 1 \( -name '*.whl' -o -name '*.tar.gz' \) -exec cp {} "$work/wheelhouse/" \;
    put+=("$work/wheelhouse")
fi
rsync -rtz -e "$work/ssh" "${put[@]}" "$work/models" "$host:$stage/" ||
    { printf 'deploy: rsync to %s broke off; nothing was changed\n' "$host" >&2; exit 1; }

status=0
release=$(date -u +%Y%m%dT%H%M%SZ)-$version
# From here the folder is the other half's, which may outlive this one.
theirs=$stage stage=''
remote install "$prefix" "$instance" "$theirs" "$release" || status=$?
case $status in
    0 | 1 | 2) exit $status ;;
    *) printf 'deploy: the connection was lost; %s finishes by itself; look with: ssh %s systemctl status bittern@%s\n' \
           "$host" "$host" "$instance" >&2; exit 1 ;;
esac
