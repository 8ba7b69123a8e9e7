#!/bin/sh
# Starts the server, then waits for /ready without end, also when the server has already ended: so does the real one.
/usr/bin/influxd &
echo $! >/var/lib/influxdb/influxd.pid
exec /usr/bin/influxd wait-ready
