"""Chromium without a window, driven over its DevTools protocol: JSON messages on two pipes, so no port is opened."""

import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from base64 import b64decode
from contextlib import suppress
from itertools import count
from time import monotonic

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_LONGEST = 300  # seconds for an answer; only a browser that hangs takes as long
_OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
# The protocol's pipes are the descriptors 3 and 4 of the browser.
_WITH_PIPES = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)


class Chromium:
    """One browser with one page, its profile in a temporary folder; a context manager that ends it."""

    def __enter__(self):
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # Above 4, so that putting one in its place closes no other.
        theirs = [_above_4(theirs_in), _above_4(theirs_out)]
        command = [
            PROGRAM,
            *_OPTIONS,
            "--remote-debugging-pipe",
            f"--user-data-dir={self._profile.name}",
            "about:blank",
        ]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WITH_PIPES, *map(str, theirs), *command],
            pass_fds=theirs,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for descriptor in theirs:
            os.close(descriptor)
        self._numbers, self._unread, self.events = count(1), b"", []
        self._session = None
        try:
            self._open_page()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _open_page(self):
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.command(f"{domain}.enable")

    def __exit__(self, *_):
        os.close(self._out)
        os.close(self._in)
        with suppress(ProcessLookupError):  # it went by itself once its pipes were closed
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._profile.cleanup()

    def command(self, method, **parameters):
        """The answer to one command; what the browser tells meanwhile goes to `events`."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._message()).get("id") != number:
            self.events.append(answer)
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']}")
        return answer["result"]

    def _message(self):
        end = monotonic() + _LONGEST
        while b"\0" not in self._unread:
            if not select.select([self._in], [], [], max(0, end - monotonic()))[0]:
                raise AssertionError("the browser does not answer")
            if not (read := os.read(self._in, 1 << 16)):
                raise AssertionError("the browser has ended")
            self._unread += read
        message, self._unread = self._unread.split(b"\0", 1)
        return json.loads(message)

    def open(self, file):
        """Show a page and wait until all of it is there; forgets earlier events."""
        self.events.clear()
        self.command("Page.navigate", url=file.as_uri())
        self.wait_for_load()

    def wait_for_load(self):
        """Wait until the page that was asked for last is there."""
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._message())

    def script(self, code):
        """The value of an expression in the page; a promise is waited for."""
        answer = self.command("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def press(self, key, code=None, text=None):
        """Press a key as a person does."""
        more = {"text": text} if text else {}
        about = {"key": key, "code": code or key, "windowsVirtualKeyCode": {"Tab": 9, "Enter": 13}.get(key, 0)}
        self.command("Input.dispatchKeyEvent", type="keyDown", **about, **more)
        self.command("Input.dispatchKeyEvent", type="keyUp", **about)

    def size(self, width, height):
        """The width and height of the page's window in pixels."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def prefer(self, scheme):
        """Prefer `light` or `dark` colours."""
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def requested(self):
        """The address of everything that the page has asked for."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]

    def complaints(self):
        """What the browser says of the page that is no good: errors, refused content, exceptions."""
        logged = [event["params"]["entry"] for event in self.events if event.get("method") == "Log.entryAdded"]
        thrown = [event for event in self.events if event.get("method") == "Runtime.exceptionThrown"]
        return [entry for entry in logged if entry["level"] in ("warning", "error")] + thrown

    def screenshot(self, file, whole=False):
        """A PNG of what the window shows, or of the whole page."""
        shown = self.command("Page.captureScreenshot", captureBeyondViewport=whole)
        file.write_bytes(b64decode(shown["data"]))


def _above_4(descriptor):
    copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD, 10)
    os.close(descriptor)
    return copy
