"""The boot partition of a freshly flashed Raspberry Pi OS Trixie, as far as playbooks/sdcard.yml looks at it.

Made up after what pi-gen, which makes the images, puts there; no real card has been seen.
"""

from pathlib import Path

FILES = {
    "config.txt": "# For more options and information see\n# http://rptl.io/configtxt\narm_64bit=1\n",
    "cmdline.txt": "console=serial0,115200 console=tty1 root=PARTUUID=0fc63daf-02 rootfstype=ext4 fsck.repair=yes rootwait resize\n",
    "issue.txt": (
        "Raspberry Pi reference 2026-06-18\n"
        "Generated using pi-gen, https://github.com/RPi-Distro/pi-gen, ca8aeed0ae300c2a89f55ce9617d5f96a27e99e5, stage4\n"
    ),
    "kernel8.img": "",
    "user-data": "#cloud-config\n\n# This is the user-data configuration file for cloud-init.\n",
    "network-config": "# This file contains a netplan-compatible configuration\n",
    "meta-data": "# This is the meta-data configuration file for cloud-init.\ndsmode: local\ninstance_id: rpios-image\n",
}


def lay(directory: Path) -> Path:
    """Make ``directory`` with the files of a fresh boot partition."""
    directory.mkdir(parents=True)
    for name, content in FILES.items():
        (directory / name).write_text(content, encoding="utf-8")
    return directory
