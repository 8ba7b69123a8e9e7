"""A site.yml that is cut at a moment, and the cuts themselves."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from dataclasses import dataclass

from tests.rehearsal import playbook
from tests.virtual_pi import machine
from tests.virtual_pi.state import State, exclusive

from .plan import Cut, Moment

# In a process namespace of its own nothing of it outlives the kill: neither the workers, which have sessions of their own,
# nor the ssh that keeps the connection for the next task.
KILLABLE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
START, END = "start", "end"


@dataclass(frozen=True)
class CutRun:
    """What a cut met."""

    at: Moment
    since_start_s: float
    code: int | None
    """Of a run that ended before its cut came; None of one that was cut."""
    output: str


def run_and_cut(cut: Cut) -> CutRun:
    """Run site.yml, cut it at the cut's moment, and boot again after a power cut."""
    running = _Running()
    try:
        running.wait_for(cut.moment)
        since_start_s = time.monotonic() - running.began
        at, code = running.now()
        if cut.kind == "power":
            with exclusive(timeout=30):
                machine.power_cut(State.own(), _unsaid)
                running.kill()
                machine.wait_ssh(_unsaid)
        else:
            running.kill()
    finally:
        running.kill()
    return CutRun(at, since_start_s, code, running.output())


def _unsaid(_text: str) -> None:
    """The machine's progress: the table has room for a line a cut."""


class _Running:
    """site.yml while it runs: which task is at it, since when."""

    def __init__(self) -> None:
        # A connection that died with the Pi must not be taken for a living one by the next run.
        self._sockets = tempfile.mkdtemp(prefix="ssh-")
        environment = {
            "ANSIBLE_SSH_CONTROL_PATH_DIR": self._sockets,
            # Else Ansible names a task only when it has its result.
            "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "true",
        }
        self.began = time.monotonic()
        self._process = playbook.begin("site.yml", within=KILLABLE, environment=environment)
        self._lines: list[str] = []
        self._tasks = [(START, self.began)]
        self._ended = False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        times: dict[str, int] = {}
        with playbook.LOG.open("a", encoding="utf-8") as log:
            for line in self._process.stdout:
                log.write(line)
                self._lines.append(line)
                if match := playbook.TASK.match(line):
                    name = match["name"]
                    times[name] = times.get(name, 0) + 1
                    # A role that is used twice has its tasks twice.
                    self._note(name if times[name] == 1 else f"{name} ({times[name]})")
        self._note(END)

    def _note(self, task: str) -> None:
        with self._news:
            self._tasks.append((task, time.monotonic()))
            self._ended = task == END
            self._news.notify_all()

    def wait_for(self, moment: Moment) -> None:
        """Wait until the moment, or for the run's end where that comes first."""

        def begun() -> float | None:
            return next((begun for task, begun in self._tasks if task == moment.task), None)

        with self._news:
            self._news.wait_for(lambda: begun() is not None or self._ended)
            at = (begun() or time.monotonic()) + moment.seconds
            if moment.task == END:
                self._news.wait_for(lambda: False, max(0, at - time.monotonic()))
            else:
                self._news.wait_for(lambda: self._ended, max(0, at - time.monotonic()))

    def now(self) -> tuple[Moment, int | None]:
        """The running task and the seconds since its begin; the exit code where the run has ended."""
        with self._news:
            task, begun = self._tasks[-1]
            ended = self._ended
        at = Moment(task, round(time.monotonic() - begun, 1))
        return at, self._process.wait() if ended else None

    def kill(self) -> None:
        """Kill all processes of the run at once."""
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._reader.join(10)
        shutil.rmtree(self._sockets, ignore_errors=True)

    def output(self) -> str:
        """What the run has said."""
        return "".join(self._lines)
