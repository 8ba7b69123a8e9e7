"""The driver tests on the fork of pysunspec2 as well; the suite itself runs them on the installed one."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

VARIABLE = "POWER_PYSUNSPEC2_FORK"
TOP = Path(__file__).parents[2]


@pytest.fixture
def fork(tmp_path: Path) -> Path:
    """The directory that holds the fork's `sunspec2`: the one that is given, or its wheel unpacked."""
    given = os.environ.get(VARIABLE)
    if not given:
        pytest.skip(
            f"left out: the driver tests on the pysunspec2 fork; set {VARIABLE} to a directory with its wheel"
            " or its checkout"
        )
    directory = Path(given).resolve()
    if (directory / "sunspec2" / "device.py").is_file():
        return directory
    wheels = sorted(directory.glob("pysunspec2-*.whl"))
    if len(wheels) != 1:
        pytest.fail(f"{VARIABLE}={given}: neither a package sunspec2 nor one wheel pysunspec2-*.whl in there")
    with zipfile.ZipFile(wheels[0]) as wheel:
        wheel.extractall(tmp_path / "fork")
    return tmp_path / "fork"


def test_the_driver_tests_pass_on_the_fork(fork: Path, tmp_path: Path) -> None:
    """In a process of its own, which also says which sunspec2 it used."""
    probe = tmp_path / "probe" / "which_sunspec2.py"
    probe.parent.mkdir()
    probe.write_text(
        "import sunspec2.device\n\n"
        "def pytest_report_header():\n"
        "    return f'used: {sunspec2.device.__file__}'\n"
    )
    paths = [str(fork), str(probe.parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "which_sunspec2", "-p", "no:cacheprovider"),
            *("-o", "console_output_style=classic", "collector/tests/devices"),
        ],
        cwd=TOP,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert f"used: {fork / 'sunspec2' / 'device.py'}" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout.splitlines()[-1]
