#!/bin/sh
# night.sh untouched|touched: dims the screen by night while nobody touches it. By day it does nothing, and goes on looking:
# nobody need touch the screen for it to dim in the evening.
set -eu
pid_file=$XDG_RUNTIME_DIR/night.pid

is_night() {
  [ -n "$KIOSK_NIGHT" ] || return 1
  from=$(echo "${KIOSK_NIGHT%-*}" | tr -d :) to=$(echo "${KIOSK_NIGHT#*-}" | tr -d :) now=$(date +%H%M)
  # A night that goes over midnight is what is not day.
  if [ "$from" -le "$to" ]; then
    [ "$now" -ge "$from" ] && [ "$now" -lt "$to" ]
  else
    [ "$now" -ge "$from" ] || [ "$now" -lt "$to" ]
  fi
}

# A screen without a backlight of its own, such as one on HDMI, is switched off instead.
dim() {
  brightnessctl --quiet --class=backlight set 5% 2>/dev/null || wlopm --off "$KIOSK_OUTPUT"
}

light() {
  brightnessctl --quiet --class=backlight set 100% 2>/dev/null || wlopm --on "$KIOSK_OUTPUT"
}

if [ -s "$pid_file" ]; then
  kill "$(cat "$pid_file")" 2>/dev/null || true
  rm -f "$pid_file"
fi
light
[ "$1" = untouched ] || exit 0

while sleep 20; do
  if is_night; then dim; else light; fi
done &
echo $! >"$pid_file"
