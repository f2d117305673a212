# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034  # the variables of those scripts
# What deploy.sh, deploy_model.sh and pull.sh share: one ssh connection to a device, root there, and a signed upload.
# They set here, host, instance, prefix, ssh_config, key, and call these functions in this order.

# sha256sum is Linux's, shasum macOS's.
sha256() { { sha256sum "$1" 2> /dev/null || shasum -a 256 "$1"; } | cut -d ' ' -f 1; }
refuse() { printf '%s: %s\n' "${program:-deploy}" "$*" >&2; exit 2; }
usage() { sed -n '/^#   deploy/,/^# Exit/s/^# \{0,1\}//p' "$0"; }

check_target() {
    [ -n "$host" ] || refuse "no host given: make ${target:-deploy} HOST=pi@raspberrypi.local"
    [[ $host =~ ^[A-Za-z0-9@._:%-]+$ ]] || refuse "HOST is USER@NAME as for ssh, not '$host'"
    [[ $instance =~ ^[A-Za-z0-9][A-Za-z0-9_-]*$ ]] || refuse "--instance is a name of letters, digits, _ and -, not '$instance'"
    [[ $prefix =~ ^(/[A-Za-z0-9._/-]+)?$ ]] || refuse "--prefix is a full path of letters, digits and . _ -, not '$prefix'"
    prefix=${prefix%/}
}

# Sets work, a folder that is removed at the end, with the program `ssh` in it; and sudo and password.
connect() {
    local command user
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
            read -rs -p "${program:-deploy}: password for sudo on $host: " password
            echo >&2
            sudo="sudo -k -S -p '' "
            if ! printf '%s\n' "$password" | "$work/ssh" -- "$host" "${sudo}true" 2> /dev/null; then
                refuse "sudo on $host does not accept this password"
            fi
        fi
    fi
}

# shellcheck disable=SC2317,SC2329  # called by the trap
cleanup() {
    [ -z "$stage" ] || "$work/ssh" -n -- "$host" "rm -rf $stage" 2>/dev/null || true
    "$work/ssh" -O exit -- "$host" 2>/dev/null || true
    rm -rf "$work"
}

# Runs install.sh as root on the device: its text on stdin, after the password if there is one; its arguments quoted for
# the device's shell.
remote() {
    { [ -z "$password" ] || printf '%s\n' "$password"; cat "$here/install.sh"; } |
        "$work/ssh" -- "$host" "${sudo}bash -s -- $(printf '%q ' "$@")"
}

# The SSH key that signs; none if there is none.
choose_key() {
    local file
    if [ -z "$key" ]; then
        while read -r file; do
            file=${file/#\~/$HOME}
            if [ -z "$key" ] && [ -f "$file" ]; then key=$file; fi
        done < <(ssh ${ssh_config:+-F "$ssh_config"} -G -- "$host" 2> /dev/null | sed -n 's/^identityfile //p')
    elif [ "$key" != none ]; then
        [ -f "$key" ] || refuse "there is no file $key"
    fi
    [ "$key" != none ] || key=''
}

# Lists the files in bundle with the SHA-256 of each.
list_files() {
    local public
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
}

sign() {
    if [ -n "$key" ] && ! ssh-keygen -Y sign -n bittern -f "$key" "$bundle/SHA256SUMS" 2> "$work/error"; then
        refuse "cannot sign with $key ($(tail -n 1 "$work/error" | tr -d '\r')): add it to ssh-agent, name another one" \
            "with --key, or deploy with --unsigned"
    fi
}

upload() {
    stage=$("$work/ssh" -n -- "$host" mktemp -d /var/tmp/bittern-deploy.XXXXXX) || refuse "there is no space in /var/tmp on $host"
    [[ $stage =~ ^/var/tmp/bittern-deploy\.[A-Za-z0-9]+$ ]] || { stage=''; refuse "unexpected answer from $host: $stage"; }
    rsync -rtz -e "$work/ssh" "$bundle/" "$host:$stage/" ||
        { printf 'deploy: rsync to %s failed; nothing was changed\n' "$host" >&2; exit 1; }
}
