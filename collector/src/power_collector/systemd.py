"""What systemd is told (sd_notify) and how (priorities of log lines), without a dependency."""

from __future__ import annotations

import logging
import os
import socket
import sys


def notify(state: str) -> bool:
    """Send `state` ("READY=1", "WATCHDOG=1", "STOPPING=1", "STATUS=...") to the service manager.

    Returns whether there was one to tell: False outside a unit with `Type=notify`.

    Raises:
        OSError: the manager's socket does not take it.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]  # an abstract socket: no file, so a name that begins with a zero byte
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
        connection.connect(address)
        connection.sendall(state.encode())
    return True


def stderr_is_the_journal() -> bool:
    """Return whether stderr is the journal's own stream: then each line may begin with its priority."""
    stream = os.environ.get("JOURNAL_STREAM", "")
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False  # a closed or replaced stderr, as under a test runner
    return stream == f"{status.st_dev}:{status.st_ino}"


class JournalFormatter(logging.Formatter):
    """Puts the priority of sd-daemon(3) before each line; the journal adds time and unit itself."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message, each of its lines with the priority."""
        if record.levelno >= logging.CRITICAL:
            priority = 2
        elif record.levelno >= logging.ERROR:
            priority = 3
        elif record.levelno >= logging.WARNING:
            priority = 4
        else:
            priority = 6 if record.levelno >= logging.INFO else 7
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())
