#!/usr/bin/env bash
# Fetches the frames that a daemon has kept to learn from, those that are not here yet.
#
#   deploy/pull.sh HOST FOLDER [options]         for example: deploy/pull.sh pi@raspberrypi.local kept/garden
#
#   FOLDER               where they go, with an index.csv; what was labelled there stays as it is
#   --instance NAME      the camera's name (default: default)
#   --ssh-config FILE    passed to ssh -F
#   --prefix DIR         a folder on the Pi to use instead of /, as with deploy.sh
#
# What was interrupted goes on with the next call. Nothing on the Pi is changed.
# Exit 0: every kept frame is here. 1: the connection was lost. 2: usage, or no such frames.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
host='' folder='' instance=default ssh_config='' prefix='' program=pull target=pull
python=${PYTHON:-python3}

# shellcheck source=deploy/connection.sh
. "$here/connection.sh"

while [ $# -gt 0 ]; do
    case $1 in
        --instance | --ssh-config | --prefix)
            [ $# -ge 2 ] || refuse "$1 needs a value"
            name=${1#--}
            printf -v "${name//-/_}" %s "$2"
            shift 2 ;;
        -h | --help) usage; exit 0 ;;
        -*) refuse "unknown option $1; see deploy/pull.sh --help" ;;
        *) if [ -z "$host" ]; then host=$1
           elif [ -z "$folder" ]; then folder=${1%/}
           else refuse "one folder at a time, not $folder and $1"; fi
           shift ;;
    esac
done
check_target
[ -n "$folder" ] || refuse "no folder given: make pull HOST=$host OUT=kept"
[ -z "$ssh_config" ] || [ -f "$ssh_config" ] || refuse "there is no file $ssh_config"
connect
kept=$prefix/var/lib/bittern/$instance/kept
as_root() { { [ -z "$password" ] || printf '%s\n' "$password"; } | "$work/ssh" -- "$host" "${sudo}$(printf '%q ' "$@")"; }
as_root test -f "$kept/index.csv" 2> /dev/null ||
    refuse "there are no kept frames of $instance on $host: [keep] in /etc/bittern/$instance.toml keeps some"

# rsync talks to its other half through this program; sudo reads the password first, and not more than that line. Nothing
# waits for cat, which ends when rsync does.
cat > "$work/rsh" <<END
#!/bin/bash
[ -n "\$PULL_PASSWORD" ] || exec "$work/ssh" "\$@"
exec 3<&0
exec "$work/ssh" "\$@" < <(printf '%s\n' "\$PULL_PASSWORD"; exec cat <&3)
END
chmod 700 "$work/rsh"
mkdir -p "$folder"
# The index first: it names no picture that is not there. A frame never changes, and the ring may have lost some of them
# meanwhile (code 24).
fetch() {
    local status=0
    PULL_PASSWORD=$password rsync -rtz --partial-dir=.partial --no-perms -e "$work/rsh" --rsync-path "${sudo}rsync" "$@" || status=$?
    [ $status = 0 ] || [ $status = 24 ] || { printf 'pull: rsync from %s failed: the next pull goes on\n' "$host" >&2; exit 1; }
}
fetch "$host:$kept/index.csv" "$work/index.csv"
fetch --ignore-existing --include '*.jpg' --exclude '*' "$host:$kept/" "$folder/"
"$python" -m bittern_train.data.pulled "$work/index.csv" "$folder"
