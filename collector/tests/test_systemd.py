from __future__ import annotations

import io
import logging
import os
import socket
import sys

import pytest

from power_collector.systemd import JournalFormatter, notify, stderr_is_the_journal


@pytest.mark.parametrize("abstract", [False, True])
def test_the_manager_hears_it(tmp_path, monkeypatch, abstract) -> None:
    name = f"power-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name if abstract else name)
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name if abstract else name)
        assert notify("READY=1")
        assert manager.recv(100) == b"READY=1"


def test_outside_a_unit_nobody_is_told(monkeypatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")


def test_a_manager_that_is_gone_is_an_error(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    with pytest.raises(FileNotFoundError):
        notify("READY=1")


def test_the_journal_is_recognised_by_device_and_inode(tmp_path, monkeypatch) -> None:
    with (tmp_path / "stream").open("w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        assert stderr_is_the_journal()
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino + 1}")
        assert not stderr_is_the_journal()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not stderr_is_the_journal()


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.DEBUG, 7)],
)
def test_each_line_carries_its_priority(level, priority) -> None:
    record = logging.LogRecord("x", level, __file__, 1, "one\ntwo", None, None)
    assert JournalFormatter("%(message)s").format(record) == f"<{priority}>one\n<{priority}>two"
