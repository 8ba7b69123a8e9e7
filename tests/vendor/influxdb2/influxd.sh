#!/bin/sh
# As the real program: `influxd recovery ...` works on the stopped database, all else is the server.
library=/usr/lib/influxdb2-substitute
program=adapter
[ "$1" != recovery ] || program=recovery
exec /usr/bin/python3 -B "$library/$program.py" "$@"
