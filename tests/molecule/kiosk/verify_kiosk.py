"""The kiosk from outside: what is on the screen, and whether it comes back. .rehearsal/kiosk.png is a picture of it.

labwc runs on its headless back end. What is not proven here: a real screen, its backlight, touches, the desktop image.
The tests run in this order.
"""

from __future__ import annotations

import json
import re
import subprocess

from tests.rehearsal import pi, playbook
from tests.rehearsal.disturb import virtual_pi, wait_for
from tests.virtual_pi.machine import ssh_command

PICTURE = playbook.TOP / ".rehearsal" / "kiosk.png"
SCREEN = json.dumps(
    {
        "kiosk_enabled": True,
        "kiosk_output": "HEADLESS-1",
        "kiosk_environment": {
            "WLR_BACKENDS": "headless",
            "WLR_RENDERER": "pixman",
            "WLR_LIBINPUT_NO_DEVICES": 1,
        },
    }
)
AS_KIOSK = "setpriv --reuid power-kiosk --regid power-kiosk --clear-groups env XDG_RUNTIME_DIR=/run/power-kiosk WAYLAND_DISPLAY=wayland-0"


def windows() -> str:
    """Application and title of what is on the screen."""
    return pi.sudo(f"{AS_KIOSK} wlrctl toplevel list", check=False)


def shows_the_page() -> bool:
    return "Grafana" in windows()


def browser() -> str:
    """The process number of the browser itself."""
    return pi.sudo("pgrep --oldest --uid power-kiosk chromium", check=False).strip()


def picture(kind: str) -> bytes:
    """What is on the screen now."""
    done = subprocess.run(
        ssh_command("sudo", AS_KIOSK, "grim", "-t", kind, "-"), capture_output=True, timeout=60, check=True
    )
    return done.stdout


Picture = list[list[bytes]]
"""Rows of pixels, three bytes each."""


def pixels() -> Picture:
    """What is on the screen now."""
    magic, size, depth, data = picture("ppm").split(b"\n", 3)
    width, height = map(int, size.split())
    assert (magic, depth, len(data)) == (b"P6", b"255", width * height * 3)
    row = width * 3
    return [[data[at : at + 3] for at in range(top, top + row, 3)] for top in range(0, len(data), row)]


def test_a_pi_with_a_screen_is_provisioned_and_shows_the_page() -> None:
    run = playbook.site("-e", SCREEN)
    assert run.code == 0, run.error
    pi.sudo("apt-get install -qq --no-install-recommends grim wlrctl", timeout_s=300)
    wait_for("the page", shows_the_page, 60)
    PICTURE.write_bytes(picture("png"))
    assert len({colour for row in pixels() for colour in row}) > 2, "nothing is drawn"


def test_the_page_fills_the_screen() -> None:
    """No frame and no panel; and on the substitute's page, below its few words, no pointer either."""
    seen = pixels()
    ground = seen[0][0]
    assert {seen[0][-1], seen[-1][0], seen[-1][-1]} == {ground}
    if "SUBSTITUTE" in windows():
        assert {colour for row in seen[100:] for colour in row} == {ground}


def test_the_browser_is_nobody_who_may_do_anything() -> None:
    assert "power-kiosk" in pi.sudo(f"ps -o user= -p {browser()}")
    assert "not allowed" in pi.sudo("sudo -l -U power-kiosk", check=False)
    assert pi.sudo("find / -xdev -user power-kiosk -not -path '/proc/*'") == ""


def test_a_second_run_changes_nothing() -> None:
    before = browser()
    run = playbook.site("-e", SCREEN)
    assert run.code == 0, run.error
    assert run.changed == ()
    assert browser() == before


def test_it_comes_back_after_a_crash_a_new_grafana_and_a_reboot() -> None:
    before = browser()
    pi.sudo(f"kill -KILL {before}")
    wait_for("a new browser", lambda: browser() not in ("", before) and shows_the_page(), 60)
    before = browser()
    pi.sudo("systemctl restart grafana-server")
    wait_for("a new browser", lambda: browser() not in ("", before) and shows_the_page(), 60)
    virtual_pi("reboot")
    wait_for("the page after a reboot", shows_the_page, 90)


def test_it_waits_for_grafana_and_the_check_tells_of_a_dark_screen() -> None:
    pi.sudo("systemctl stop grafana-server")
    wait_for("the end of the browser", lambda: browser() == "", 30)
    check = playbook.run("playbooks/check.yml", "-e", SCREEN)
    assert check.code != 0
    assert re.search(r"^ +FAIL +power-kiosk +inactive", check.output, re.MULTILINE), check.output
    pi.sudo("systemctl start grafana-server")
    wait_for("the page", shows_the_page, 60)


def test_other_settings_take_effect_and_at_night_an_untouched_screen_goes_dark() -> None:
    settings = {"kiosk_scale": 1.25, "kiosk_night": "00:00-23:59", "kiosk_awake_s": 5}
    run = playbook.site("--tags", "kiosk", "-e", SCREEN, "-e", json.dumps(settings))
    assert run.code == 0, run.error
    assert run.changed == (
        "kiosk : Write its settings",
        "systemd_unit : Start, anew where it has read older files, power-kiosk.service",
    )
    wait_for("the page", shows_the_page, 60)
    assert "--force-device-scale-factor=1.25" in pi.sudo(f"tr '\\0' ' ' < /proc/{browser()}/cmdline")
    wait_for("the dark", lambda: pi.sudo(f"{AS_KIOSK} wlopm", check=False).strip() == "HEADLESS-1 off", 60)


def test_without_a_screen_it_is_taken_away() -> None:
    run = playbook.site()
    assert run.code == 0, run.error
    assert browser() == ""
    assert (
        pi.sudo("ls -d /etc/power-kiosk /usr/local/lib/power-kiosk /etc/systemd/system/*kiosk*", check=False)
        == ""
    )
    again = playbook.site("--tags", "kiosk")
    assert again.code == 0, again.error
    assert again.changed == ()
