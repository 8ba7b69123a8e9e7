"""Headless Chromium, spoken to over its debugging pipe."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_ANSWER_S = 60


class BrowserError(Exception):
    """The browser is missing, refused a command or did not answer."""


class Browser:
    """One page. Sizes are in CSS pixels."""

    def __init__(self, to: int, of: int) -> None:
        self._to, self._of, self._rest, self._number = to, of, b"", 0
        target = self._send("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self._send("Target.attachToTarget", {"targetId": target, "flatten": True})[
            "sessionId"
        ]
        self.command("Page.enable")

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol to the page and return its result."""
        return self._send(method, parameters, self._session)

    def resize(self, width: int, height: int) -> None:
        """Give the page another size."""
        phone = width < 600
        size = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        self.command("Emulation.setDeviceMetricsOverride", **size)

    def open(self, url: str) -> None:
        """Go to an address; returns before anything is loaded."""
        self.command("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """Evaluate JavaScript and return its value."""
        result = self.command("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise BrowserError(f"{script}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait(self, script: str, seconds: float = 30) -> bool:
        """Evaluate JavaScript again and again until it gives true or the time is up."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.run(script) is True:
                return True
            time.sleep(0.05)
        return False

    def picture(self, path: Path) -> None:
        """Write what the page shows as PNG."""
        path.write_bytes(base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"]))

    def _send(self, method: str, parameters: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + _ANSWER_S
        while True:
            answer = self._read(end)
            if answer.get("id") == self._number:
                break
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error']['message']}")
        return dict(answer["result"])

    def _read(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not select.select([self._of], [], [], max(end - time.monotonic(), 0))[0]:
                raise BrowserError("the browser does not answer")
            data = os.read(self._of, 1 << 20)
            if not data:
                raise BrowserError("the browser has ended")
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """Run Chromium with its profile in `folder` until the block ends."""
    command = shutil.which("chromium") or shutil.which("chromium-browser")
    if command is None:
        raise BrowserError("chromium is missing: apt-get install chromium")
    its_in, our_out = os.pipe()
    our_in, its_out = os.pipe()
    words = [command, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--mute-audio"]
    words += [
        "--no-first-run",
        "--disable-background-networking",
        f"--user-data-dir={folder}",
        "--remote-debugging-pipe",
    ]
    # Its pipe is descriptors 3 and 4.
    shell = ["sh", "-c", f'exec "$@" 3<&{its_in} 4>&{its_out}', "sh", *words]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(shell, pass_fds=(its_in, its_out), stdout=log, stderr=log)
    os.close(its_in)
    os.close(its_out)
    try:
        yield Browser(our_out, our_in)
    finally:
        os.close(our_out)
        os.close(our_in)
        process.terminate()
        process.wait(30)
