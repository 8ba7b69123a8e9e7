#!/bin/sh
# Takes the staged profile into use, and the old one again unless `confirmed` appears beside this script within 60 s.
# usage: apply-or-restore.sh INTERFACE UUID KEYFILE
set -u
interface=$1 uuid=$2 keyfile=$3
run=$(dirname "$0")
staged=/etc/NetworkManager/power-room.new  # beside the keyfile's folder, which NetworkManager reads whole
rm -f "$run/confirmed" "$run/old"

sleep 1 # lets the connection that started this hear that it has started
old_uuid=$(nmcli --get-values GENERAL.CON-UUID device show "$interface")
if [ -e "$keyfile" ]; then cp -p "$keyfile" "$run/old"; fi

restore() {
    echo "power-network: $1: back to the old profile" >&2
    if [ -e "$run/old" ]; then cp -p "$run/old" "$keyfile"; else rm -f "$keyfile"; fi
    nmcli connection reload
    if [ -n "$old_uuid" ]; then nmcli connection up uuid "$old_uuid" ifname "$interface"; fi
    exit 1
}

# Renamed into place and synced, so that a power cut leaves the old file or the new one.
if ! { cp "$run/new" "$staged" && chmod 0600 "$staged" && sync "$staged" && mv "$staged" "$keyfile"; }; then
    restore "the profile cannot be written"
fi
if ! { nmcli connection reload && nmcli --wait 30 connection up uuid "$uuid" ifname "$interface"; }; then
    restore "the profile cannot be taken into use"
fi

seconds=0
while [ ! -e "$run/confirmed" ]; do
    [ "$seconds" -lt 60 ] || restore "nobody confirmed it"
    sleep 1
    seconds=$((seconds + 1))
done
rm -rf "$run"
