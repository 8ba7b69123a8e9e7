"""What has been made on this host. Each thing is recorded before it is made, so that `down` finds it after any end of `up`."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .host import VirtualPiError, run, wait_until

CHECKOUT = Path(__file__).resolve().parents[2]
HOME = CHECKOUT / ".rehearsal"  # cards, keys and logs of this checkout
RUN = Path(
    "/run/power-rehearsal"
)  # one virtual Pi a host: the state is also the lock against other checkouts
STATE = RUN / "state.json"


@contextlib.contextmanager
def exclusive(timeout: float = 5) -> Iterator[None]:
    """One command at a time, on the whole host. The kernel frees an abstract socket when its process ends, however it ends.

    A child that is being started holds it as well until it has become its program, so that `down` never overtakes it.
    """
    with socket.socket(socket.AF_UNIX) as lock:

        def taken() -> bool:
            with contextlib.suppress(OSError):
                lock.bind("\0power-rehearsal")
                return True
            return False

        wait_until(
            "the end of another command of the virtual Pi on this host", taken, timeout, "try again after it"
        )
        yield


class State:
    """The list of things made, oldest first, kept in a file that is always whole."""

    def __init__(self, checkout: str, inventory: str, things: list[list[str]]) -> None:
        self.checkout = checkout
        self.inventory = inventory
        self.things = things

    @classmethod
    def load(cls) -> "State | None":
        """What is recorded, or None when nothing is up."""
        try:
            content = json.loads(STATE.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return cls(**content)

    @classmethod
    def claim(cls, inventory: Path) -> "State":
        """Begin a new virtual Pi; refuse while there is another one."""
        if (there := cls.load()) is not None:
            raise VirtualPiError(
                f"there is a virtual Pi already, made by {there.checkout}: "
                f"`cd {there.checkout} && .venv/bin/python -m tests.virtual_pi down` first"
            )
        state = cls(str(CHECKOUT), str(inventory.resolve()), [])
        RUN.mkdir(parents=True, exist_ok=True)
        state._save()
        return state

    @classmethod
    def own(cls) -> "State":
        """This checkout's virtual Pi; refuse when it is not up."""
        state = cls.load()
        if state is None:
            raise VirtualPiError("no virtual Pi is up: `.venv/bin/python -m tests.virtual_pi up` first")
        if state.checkout != str(CHECKOUT):
            raise VirtualPiError(
                f"the virtual Pi of this host belongs to {state.checkout}: run the command there"
            )
        return state

    def record(self, kind: str, *details: str) -> None:
        """Remember a thing that is about to be made."""
        if [kind, *details] not in self.things:
            self.things.append([kind, *details])
            self._save()

    def require(self, kind: str, *details: str) -> None:
        """Refuse to go on with a virtual Pi whose making ended before this thing."""
        if [kind, *details] not in self.things:
            raise VirtualPiError(
                "the virtual Pi is only half made: `.venv/bin/python -m tests.virtual_pi down`, then `up`"
            )

    def undo(self) -> list[str]:
        """Remove everything, newest first; return what would not go. Safe to call again."""
        failures = []
        for kind, *details in reversed(self.things):
            try:
                _UNDO[kind](*details)
            except (VirtualPiError, OSError) as error:
                failures.append(f"{kind} {' '.join(details)}: {error}")
        if not failures:
            shutil.rmtree(RUN, ignore_errors=True)
        return failures

    def _save(self) -> None:
        new = STATE.with_suffix(".new")
        new.write_text(json.dumps(vars(self), indent=1), encoding="utf-8")
        new.replace(STATE)


def start(state: State, name: str, argv: Sequence[str | Path], log: Path) -> None:
    """Start a process in the background. It notes its number and start time itself before it becomes the program."""
    state.record("process", name)

    def note() -> None:
        _pid_file(name).write_text(f"{os.getpid()} {_stat(os.getpid())['start']} {_boot()}", encoding="utf-8")

    with log.open("ab") as output:
        subprocess.Popen(
            [str(word) for word in argv],
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=note,
        )


def processes(name: str) -> list[int]:
    """Living processes of the session that was started under this name: its leader first."""
    try:
        leader, begun, boot = _pid_file(name).read_text(encoding="utf-8").split()
    except (FileNotFoundError, ValueError):
        return []  # never started, or killed while noting its number, before it became anything
    there = _stat(int(leader))
    if boot != _boot() or (there and there["start"] != begun):
        return []  # the number belongs to somebody else by now
    everyone = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return sorted(
        (
            pid
            for pid in everyone
            if (found := _stat(pid)) and found["session"] == leader and found["state"] not in "ZX"
        ),
        key=lambda pid: (pid != int(leader), pid),
    )


def end(name: str) -> None:
    """Kill a session that we started, and wait until it is gone."""

    def gone() -> bool:
        for pid in processes(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not processes(name)

    wait_until(f"the end of {name}", gone, 20, "look at it with ps")
    _pid_file(name).unlink(missing_ok=True)


def _pid_file(name: str) -> Path:
    return RUN / f"{name}.pid"


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()


def _stat(pid: int) -> dict[str, str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return {}
    fields = text.rpartition(")")[2].split()
    return {"state": fields[0], "session": fields[3], "start": fields[19]}


def _undo_netns(name: str) -> None:
    if Path("/run/netns", name).exists():
        run("ip", "netns", "delete", name)


def _undo_link(name: str) -> None:
    if Path("/sys/class/net", name).exists():
        run("ip", "link", "delete", name, check=False)  # its peer's namespace may take it away at this moment
        wait_until(
            f"the end of {name}", lambda: not Path("/sys/class/net", name).exists(), 10, "look at `ip link`"
        )


def _undo_nft(family: str, table: str) -> None:
    if run("nft", "list", "table", family, table, check=False).returncode == 0:
        run("nft", "delete", "table", family, table)


def _undo_sysctl(file: str, value: str) -> None:
    Path(file).write_text(value, encoding="utf-8")


def _undo_path(path: str) -> None:
    target = Path(path)
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)


def _undo_loop(image: str) -> None:
    """Loop devices free themselves when the machine's mount namespace ends; that takes the kernel a moment."""
    wait_until(
        f"the release of {image}", lambda: not run("losetup", "-j", image).stdout.strip(), 30, "`losetup -j`"
    )


def remove_cgroup(path: str) -> None:
    """Remove a control group from its leaves up; its processes have ended with the machine."""

    def gone() -> bool:
        for folder, _, _ in os.walk(path, topdown=False):
            with contextlib.suppress(OSError):  # a process in it is still ending
                Path(folder).rmdir()
        return not Path(path).exists()

    wait_until(f"the end of {path}", gone, 20, "look at its cgroup.procs")


def _undo_mount(point: str) -> None:
    if Path(point).is_mount():
        run("umount", point)


def _undo_binfmt(rule: str) -> None:
    if Path(rule).exists():
        Path(rule).write_text("-1", encoding="utf-8")


_UNDO: dict[str, Callable[..., None]] = {
    "binfmt": _undo_binfmt,
    "cgroup": remove_cgroup,
    "process": end,
    "netns": _undo_netns,
    "link": _undo_link,
    "nft": _undo_nft,
    "sysctl": _undo_sysctl,
    "path": _undo_path,
    "loop": _undo_loop,
    "mount": _undo_mount,
}
