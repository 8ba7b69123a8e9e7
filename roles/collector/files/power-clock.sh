#!/bin/sh
# Sets the system clock because the collector left a mark: the MATE3s's clock says another time, and no time server says any.
# usage: power-clock.sh MARK RELEASED
# MARK holds the time in whole seconds since 1970. It is taken away in any case: the collector leaves another one if need be.
# It is another user's file: no link is followed, a pipe is not waited for, no more than its line is read, and that is not told.
# RELEASED is the day of the collector's release, like 2026-11-24: what lies before it or ten years after it is not believed.
set -eu
mark=$1 released=$2

refuse() {
    echo "<4>The clock is not set: $1"
    exit 0
}

utc_text() {
    date --utc --date="$1" '+%F %T UTC'
}

time=$(dd if="$mark" iflag=nofollow,nonblock bs=12 count=1 status=none 2>/dev/null) || time=
left=$(stat --format=%Y -- "$mark" 2>/dev/null) || left=0
rm -rf -- "$mark"

case $time in
[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]) ;;
*) refuse "what the collector left is no time" ;;
esac
earliest=$(date --utc --date="$released" +%s)
# Ten years, in seconds.
if [ "$time" -lt "$earliest" ] || [ "$time" -gt $((earliest + 315576000)) ]; then
    refuse "$(utc_text "@$time") lies before the collector's release or ten years after it"
fi
if [ "$(timedatectl show --property NTPSynchronized --value)" = yes ]; then
    refuse "a time server keeps it"
fi
# By the very clock that is wrong: whoever has set it since then has made the mark too old or too young.
age=$(($(date +%s) - left))
if [ "$age" -lt 0 ] || [ "$age" -gt 60 ]; then
    refuse "what the collector left is older than a minute, or the clock was set since"
fi
before=$(utc_text now)
if ! why=$(date --utc --set="@$time" 2>&1 >/dev/null); then
    echo "<3>The clock could not be set to $(utc_text "@$time"): $why"
    exit 1
fi
echo "<5>The clock was set from $before to $(utc_text "@$time"), by the MATE3s's clock: the collector asked for it"
