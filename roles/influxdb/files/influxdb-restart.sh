#!/bin/sh
# Restarts InfluxDB because the collector left a mark: it answers 5xx although its health passes and its disk has room.
# At most once an hour. The mark is taken away in any case: the collector leaves another one if need be.
# usage: influxdb-restart.sh MARK STAMP [UPTIME]
# STAMP holds the uptime (s) of the last restart, which goes on when the clock is set; both are gone after a reboot.
# MARK is another user's file: it is not read. UPTIME stands in for /proc/uptime in tests.
set -eu
mark=$1 stamp=$2

rm -rf -- "$mark"
read -r uptime _ <"${3:-/proc/uptime}"
uptime=${uptime%%.*}
last=
if [ -e "$stamp" ]; then read -r last <"$stamp" || true; fi
case $last in
'' | *[!0-9]*) ;;
*)
    minutes=$(((uptime - last) / 60))
    if [ "$minutes" -lt 60 ]; then
        echo "<4>InfluxDB is not restarted: the last time was $minutes minutes ago, and it is done once an hour"
        exit 0
    fi
    ;;
esac
echo "$uptime" >"$stamp"
echo "<4>InfluxDB is restarted: the collector asked for it, and says why in journalctl -u power"
# Only where it runs: one that somebody has stopped stays so.
if ! systemctl try-restart influxdb.service; then
    echo "<3>InfluxDB does not come back: see journalctl -u influxdb"
    exit 1
fi
echo "<6>InfluxDB runs again"
