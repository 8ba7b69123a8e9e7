#!/bin/sh
# Runs inside labwc, which ends with it; systemd then starts both anew.
set -eu

if [ "$KIOSK_TRANSFORM" != normal ]; then
  wlr-randr --output "$KIOSK_OUTPUT" --transform "$KIOSK_TRANSFORM"
fi

night=$(dirname "$0")/night.sh
swayidle -w timeout "$KIOSK_AWAKE_S" "$night untouched" resume "$night touched" &

until curl --fail --silent --max-time 5 --output /dev/null "$KIOSK_URL"; do
  sleep 2
done

exec chromium --kiosk --ozone-platform=wayland --user-data-dir="$XDG_RUNTIME_DIR/chromium" \
  --force-device-scale-factor="$KIOSK_SCALE" --password-store=basic --no-first-run --no-default-browser-check \
  --noerrdialogs --disable-infobars --disable-session-crashed-bubble --disable-component-update \
  --disable-features=Translate --overscroll-history-navigation=0 --disable-pinch "$KIOSK_URL"
