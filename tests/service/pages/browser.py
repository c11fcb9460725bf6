"""Chromium without a window, driven over a pipe by the DevTools protocol."""

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")


def installed() -> str | None:
    """Where it is."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """One browser with one page."""

    def __init__(self, folder: Path) -> None:
        their_in, self._out = os.pipe()
        self._in, their_out = os.pipe()
        path = installed()
        assert path is not None
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                 "--hide-scrollbars", "--remote-debugging-pipe", f"--user-data-dir={folder / 'profile'}"]  # fmt: skip
        joined = f'exec "$0" "$@" 3<&{their_in} 4>&{their_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", joined, path, *flags, "about:blank"], pass_fds=(their_in, their_out), start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "HOME": str(folder)},
        )  # fmt: skip
        os.close(their_in)
        os.close(their_out)
        self._rest, self._number, self.events = b"", 0, list[Any]()
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        os.close(self._out)
        os.close(self._in)
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)

    def call(self, method: str, **params: Any) -> Any:
        """One command and its result."""
        self._number += 1
        asked = {"id": self._number, "method": method, "params": params}
        if self._session:
            asked["sessionId"] = self._session
        os.write(self._out, json.dumps(asked).encode() + b"\0")
        ends = time.monotonic() + 30
        while time.monotonic() < ends:
            said = self._next(ends - time.monotonic())
            if said.get("id") == self._number:
                assert "error" not in said, said
                return said["result"]
            self.events.append(said)
        raise TimeoutError(method)

    def _next(self, seconds: float) -> Any:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0.0, seconds))
            if not ready:
                raise TimeoutError
            self._rest += os.read(self._in, 2**16)
        first, _, self._rest = self._rest.partition(b"\0")
        return json.loads(first)

    def js(self, text: str) -> Any:
        """The value of an expression in the page."""
        got = self.call("Runtime.evaluate", expression=text, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in got, got
        return got["result"].get("value")

    def until(self, text: str, seconds: float = 20.0) -> Any:
        """Wait for an expression to be true."""
        ends, value = time.monotonic() + seconds, None
        while time.monotonic() < ends:
            try:
                value = self.js(text)
                if value or value == {}:  # an element comes as {}
                    return value
            except AssertionError:
                pass  # between two pages
            time.sleep(0.05)
        raise AssertionError(f"not within {seconds} s: {text}; {self.js('document.body.innerText')[:600]}")

    def open(self, url: str) -> None:
        said = self.call("Page.navigate", url=url)
        assert "errorText" not in said, said
        self.until(f"document.readyState === 'complete' && location.href === {json.dumps(url)}")

    def size(self, width: int, *, dark: bool = False) -> None:
        """A window, and the colours that its owner likes."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500
        )
        self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )

    def click(self, selector: str) -> None:
        """As a mouse does."""
        at = self.until(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); if (!e) return null;"
            " e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
            " return r.width ? [r.x + r.width / 2, r.y + r.height / 2] : null; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", clickCount=1)

    def key(self, name: str) -> None:
        """As a keyboard does."""
        code = {"Tab": 9, "Enter": 13, " ": 32, "Escape": 27}[name]
        text = {"text": "\r" if name == "Enter" else name} if name in ("Enter", " ") else {}
        for kind in ("keyDown", "keyUp"):
            more = text if kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code, **more)

    def shot(self, path: Path) -> None:
        """The whole page as a picture."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def complaints(self) -> list[str]:
        """What the browser did not like: errors of scripts, refusals of the policy."""
        self.js("1")
        found = [e["params"]["entry"]["text"] for e in self.events
                 if e.get("method") == "Log.entryAdded" and e["params"]["entry"]["level"] == "error"]  # fmt: skip
        return found + [str(e["params"]) for e in self.events if e.get("method") == "Runtime.exceptionThrown"]
