#!/usr/bin/env bash
# Sends one model to a Raspberry Pi that has Bittern already: the daemons load it while they run, or go on as before.
#
#   deploy/deploy_model.sh HOST MODEL [options]   for example: deploy/deploy_model.sh pi@raspberrypi.local models/mine
#
#   MODEL                a model folder; the name of the folder is that of the model
#   --key FILE           the SSH key that signs it (default: the one that ssh uses for HOST)
#   --unsigned           do not sign, although there is a key
#   --allow-older        go back to an older version on purpose; the daemons are started again
#   --ssh-config FILE    passed to ssh -F
#   --prefix DIR         a folder on the Pi to use instead of /, as with deploy.sh
#
# Exit 0: the model is in use. 1: it is not, and the Pi is as before. 2: nothing was changed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
host='' model='' instance=default ssh_config='' prefix='' key='' older=refuse target=deploy-model

# shellcheck source=deploy/connection.sh
. "$here/connection.sh"

while [ $# -gt 0 ]; do
    case $1 in
        --key | --ssh-config | --prefix)
            [ $# -ge 2 ] || refuse "$1 needs a value"
            name=${1#--}
            printf -v "${name//-/_}" %s "$2"
            shift 2 ;;
        --unsigned) key=none; shift ;;
        --allow-older) older=allow; shift ;;
        -h | --help) usage; exit 0 ;;
        -*) refuse "unknown option $1; see deploy/deploy_model.sh --help" ;;
        *) if [ -z "$host" ]; then host=$1
           elif [ -z "$model" ]; then model=${1%/}
           else refuse "one model at a time, not $model and $1"; fi
           shift ;;
    esac
done
check_target
[ -n "$model" ] || refuse "no model given: make deploy-model HOST=$host MODEL=models/mine"
[ -f "$model/manifest.json" ] || refuse "$model is not a model folder: it has no manifest.json"
[ -z "$ssh_config" ] || [ -f "$ssh_config" ] || refuse "there is no file $ssh_config"
name=$(basename "$(cd "$model" && pwd)")
[[ $name =~ ^[a-z0-9][a-z0-9_.-]*$ ]] || refuse "the name of a model is small letters, digits, _ . and -, not '$name'"
connect
choose_key

bundle=$work/release
mkdir -p "$bundle/models"
date -u "+%Y%m%dT%H%M%SZ-$name" > "$bundle/release"
cp -R "$model" "$bundle/models/$name"
list_files
sign
upload

status=0
# From here on install.sh removes the folder: it may run longer than this script.
remote_stage=$stage stage=''
remote install_model "$prefix" "$remote_stage" "$older" || status=$?
case $status in
    0 | 1 | 2) exit $status ;;
    *) printf 'deploy: the connection was lost; %s finishes by itself; to check: ssh %s bittern models --history\n' \
           "$host" "$host" >&2; exit 1 ;;
esac
