#!/usr/bin/env bash
# Installs Bittern on a Raspberry Pi over ssh: a new release and a systemd unit; rolls back if the daemon does not start.
#
#   deploy/deploy.sh HOST [options]              for example: deploy/deploy.sh pi@raspberrypi.local
#
#   --instance NAME      the camera's name: unit bittern@NAME, /etc/bittern/NAME.toml (default: default)
#   --config FILE        its configuration, if the Pi has none yet (default: the Pi's own camera, stop_sign)
#   --wheel FILE         the wheel to install (default: the newest dist/bittern-*.whl)
#   --models DIR         model folders to copy, each with a manifest.json (default: models/)
#   --wheelhouse DIR     the files in locks/pi.txt (for 32 bits also locks/build.txt), for a Pi without internet
#   --install-packages   install missing Debian packages with apt-get
#   --key FILE           the SSH key that signs the release (default: the one that ssh uses for HOST)
#   --unsigned           do not sign, although there is a key
#   --allow-older        go back to an older version on purpose
#   --ssh-config FILE    passed to ssh -F
#   --prefix DIR         a folder on the Pi to use instead of /: it contains /opt, /etc, /var/lib and /usr/bin/python3
#
# Exit 0: the daemon is running and ready. 1: it is not, and the Pi is as before. 2: nothing was changed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
host='' instance=default config='' wheel='' models=$here/../models wheelhouse='' packages=report ssh_config='' prefix=''
key='' older=refuse
PICAMERA="^[[:space:]]*source[[:space:]]*=[[:space:]]*[\"']picamera:"  # the same line is in install.sh

# sha256sum is Linux's, shasum macOS's.
sha256() { { sha256sum "$1" 2> /dev/null || shasum -a 256 "$1"; } | cut -d ' ' -f 1; }
refuse() { printf 'deploy: %s\n' "$*" >&2; exit 2; }
usage() { sed -n '/^#   deploy/,/^# Exit/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

while [ $# -gt 0 ]; do
    case $1 in
        --instance | --config | --wheel | --models | --wheelhouse | --key | --ssh-config | --prefix)
            [ $# -ge 2 ] || refuse "$1 needs a value"
            name=${1#--}
            printf -v "${name//-/_}" %s "$2"
            shift 2 ;;
        --install-packages) packages=install; shift ;;
        --unsigned) key=none; shift ;;
        --allow-older) older=allow; shift ;;
        -h | --help) usage; exit 0 ;;
        -*) refuse "unknown option $1; see deploy/deploy.sh --help" ;;
        *) [ -z "$host" ] || refuse "one host at a time, not $host and $1"; host=$1; shift ;;
    esac
done
[ -n "$host" ] || refuse "no host given: make deploy HOST=pi@raspberrypi.local"
[[ $host =~ ^[A-Za-z0-9@._:%-]+$ ]] || refuse "HOST is USER@NAME as for ssh, not '$host'"
[[ $instance =~ ^[A-Za-z0-9][A-Za-z0-9_-]*$ ]] || refuse "--instance is a name of letters, digits, _ and -, not '$instance'"
[[ $prefix =~ ^(/[A-Za-z0-9._/-]+)?$ ]] || refuse "--prefix is a full path of letters, digits and . _ -, not '$prefix'"
prefix=${prefix%/}
if [ -z "$wheel" ]; then
    for file in "$here"/../dist/bittern-*.whl; do
        if [ -f "$file" ] && { [ -z "$wheel" ] || [ "$file" -nt "$wheel" ]; }; then wheel=$file; fi
    done
    [ -n "$wheel" ] || refuse "there is no dist/bittern-*.whl; run: make wheel"
fi
for file in "$wheel" ${config:+"$config"} ${ssh_config:+"$ssh_config"}; do
    [ -f "$file" ] || refuse "there is no file $file"
done
for folder in "$models" ${wheelhouse:+"$wheelhouse"}; do
    [ -d "$folder" ] || refuse "there is no folder $folder"
done
[[ $(basename "$wheel") =~ ^bittern-([0-9][A-Za-z0-9.+]*)-py3-none-any\.whl$ ]] || refuse "$wheel is not a Bittern wheel"
version=${BASH_REMATCH[1]}
for command in ssh rsync ssh-keygen; do
    [ -n "$(command -v $command)" ] || refuse "there is no $command on this machine; install it first"
done

# /tmp, not $TMPDIR: the path of a socket may have at most 104 bytes.
work=$(mktemp -d /tmp/bittern-deploy.XXXXXX)
stage=''
# One connection for everything, so that ssh asks for a password only once.
cat > "$work/ssh" <<END
#!/bin/bash
exec ssh ${ssh_config:+-F $(printf %q "$ssh_config")} -o ConnectTimeout=10 -o ServerAliveInterval=15 \\
    -o ControlMaster=auto -o ControlPath=$work/%C -o ControlPersist=60 "\$@"
END
chmod +x "$work/ssh"
# Runs install.sh as root on the device: its text on stdin, after the password if there is one; its arguments quoted for
# the device's shell.
remote() {
    { [ -z "$password" ] || printf '%s\n' "$password"; cat "$here/install.sh"; } |
        "$work/ssh" -- "$host" "${sudo}bash -s -- $(printf '%q ' "$@")"
}
# shellcheck disable=SC2317  # called by the trap
cleanup() {
    [ -z "$stage" ] || "$work/ssh" -n -- "$host" "rm -rf $stage" 2>/dev/null || true
    "$work/ssh" -O exit -- "$host" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

if ! user=$("$work/ssh" -n -- "$host" id -u 2> "$work/error"); then
    refuse "ssh cannot reach $host ($(tail -n 1 "$work/error" | tr -d '\r')); try: ssh $host"
fi
sudo='' password=''
if [ "$user" != 0 ]; then
    sudo='sudo -n '
    # -k: a password that sudo has cached could expire halfway.
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
if [ -z "$key" ]; then
    while read -r file; do
        file=${file/#\~/$HOME}
        if [ -z "$key" ] && [ -f "$file" ]; then key=$file; fi
    done < <(ssh ${ssh_config:+-F "$ssh_config"} -G -- "$host" 2> /dev/null | sed -n 's/^identityfile //p')
elif [ "$key" != none ]; then
    [ -f "$key" ] || refuse "there is no file $key"
fi
[ "$key" != none ] || key=''
remote check "$prefix" "$instance" "$camera" "$packages" || exit 2

# What goes to the device, with a list of the SHA-256 of every file; the list is signed.
bundle=$work/release
mkdir -p "$bundle/models"
date -u "+%Y%m%dT%H%M%SZ-$version" > "$bundle/release"
cp "$wheel" "$here/default.toml" "$here/../locks/build.txt" "$here/../locks/pi.txt" "$bundle/"
for folder in "$models"/*/; do
    [ ! -f "$folder/manifest.json" ] || cp -R "${folder%/}" "$bundle/models/"
done
if [ -n "$wheelhouse" ]; then
    mkdir "$bundle/wheelhouse"
    find "$wheelhouse/" -maxdepth 1 \( -name '*.whl' -o -name '*.tar.gz' \) -exec cp {} "$bundle/wheelhouse/" \;
fi
if [ -n "$key" ]; then
    if [ -f "$key.pub" ]; then public=$key.pub; else public=$key; fi
    # The file itself, if it is the public half of a key that is in ssh-agent.
    { case $public in *.pub) cat "$public" ;; *) ssh-keygen -y -f "$public" ;; esac } 2> "$work/error" |
        awk 'NR == 1 {print $1, $2}' > "$bundle/signer.pub" || refuse "cannot read $key: $(tail -n 1 "$work/error")"
fi
(cd "$bundle" && find . -type f | LC_ALL=C sort | while IFS= read -r file; do
    printf '%s  %s\n' "$(sha256 "$file")" "$file"
done) > "$work/SHA256SUMS"
mv "$work/SHA256SUMS" "$bundle/"
# Not in the list, which everybody on the device can read: from its hash a weak password could be guessed.
if [ -n "$config" ]; then cp "$config" "$bundle/config.toml"; fi
if [ -n "$key" ] && ! ssh-keygen -Y sign -n bittern -f "$key" "$bundle/SHA256SUMS" 2> "$work/error"; then
    refuse "cannot sign with $key ($(tail -n 1 "$work/error" | tr -d '\r')): add it to ssh-agent, name another one with" \
        "--key, or deploy with --unsigned"
fi

stage=$("$work/ssh" -n -- "$host" mktemp -d /var/tmp/bittern-deploy.XXXXXX) || refuse "there is no space in /var/tmp on $host"
[[ $stage =~ ^/var/tmp/bittern-deploy\.[A-Za-z0-9]+$ ]] || { stage=''; refuse "unexpected answer from $host: $stage"; }
rsync -rtz -e "$work/ssh" "$bundle/" "$host:$stage/" ||
    { printf 'deploy: rsync to %s failed; nothing was changed\n' "$host" >&2; exit 1; }

status=0
# From here on install.sh removes the folder: it may run longer than this script.
remote_stage=$stage stage=''
remote install "$prefix" "$instance" "$remote_stage" "$older" || status=$?
case $status in
    0 | 1 | 2) exit $status ;;
    *) printf 'deploy: the connection was lost; %s finishes by itself; to check: ssh %s systemctl status bittern@%s\n' \
           "$host" "$host" "$instance" >&2; exit 1 ;;
esac
