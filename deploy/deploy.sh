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

# shellcheck source=deploy/connection.sh
. "$here/connection.sh"

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
check_target
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
connect
camera=other
if grep -Eq "$PICAMERA" "${config:-$here/default.toml}"; then camera=picamera; fi
choose_key
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
list_files
# Not in the list, which everybody on the device can read: from its hash a weak password could be guessed.
if [ -n "$config" ]; then cp "$config" "$bundle/config.toml"; fi
sign

upload

status=0
# From here on install.sh removes the folder: it may run longer than this script.
remote_stage=$stage stage=''
remote install "$prefix" "$instance" "$remote_stage" "$older" || status=$?
case $status in
    0 | 1 | 2) exit $status ;;
    *) printf 'deploy: the connection was lost; %s finishes by itself; to check: ssh %s systemctl status bittern@%s\n' \
           "$host" "$host" "$instance" >&2; exit 1 ;;
esac
