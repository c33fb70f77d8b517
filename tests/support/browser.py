"""Reports: what their files hold, and as a page in headless Chromium.

The browser is driven through a pipe by its DevTools protocol, which needs no other package.
"""

import base64
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile

CHROMIUM = next(filter(None, map(shutil.which, (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None)
_LAUNCH = """
import fcntl, os, sys
for to, fd in enumerate([fcntl.fcntl(int(one), fcntl.F_DUPFD, 10) for one in sys.argv[1:3]], 3):
    os.dup2(fd, to)
os.execv(sys.argv[3], sys.argv[3:])
"""
KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Enter": 13, "Tab": 9}


def contents(path):
    """The data of a report."""
    data, = re.findall(r'<script type="application/json" id="data">(.*?)</script>',
                       path.read_text(), re.DOTALL)
    return json.loads(data)


class Page:
    """An open file; `errors` are what its console was told and what it asked the network for."""

    def __init__(self, path, width=1400, height=1000, *, phone=False, dark=False):
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        ours, theirs = os.pipe(), os.pipe()  # it reads descriptor 3 and writes 4
        self._browser = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, str(ours[0]), str(theirs[1]), CHROMIUM, "--headless",
             "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--disable-extensions", "--remote-debugging-pipe",
             f"--user-data-dir={self._folder.name}", "about:blank"],
            pass_fds=(ours[0], theirs[1]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(ours[0])
        os.close(theirs[1])
        self._to, self._from = os.fdopen(ours[1], "wb", 0), os.fdopen(theirs[0], "rb")
        self._count, self._rest, self._session, self.errors = 0, b"", None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target,
                                  flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=2 if phone else 1, mobile=phone)
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone, maxTouchPoints=2)
        self.call("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.settle()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._to.close()
        self._browser.kill()
        self._browser.wait()
        self._from.close()
        self._folder.cleanup()

    def call(self, method, **parameters):
        """The result of a method of the protocol."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer.get("method"), answer.get("params"))

    def _read(self):
        while b"\0" not in self._rest:
            ready, *_ = select.select([self._from], [], [], 60)
            assert ready, "the browser does not answer"
            part = os.read(self._from.fileno(), 1 << 16)
            assert part, "the browser ended"
            self._rest += part
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    def _note(self, event, told):
        if event == "Runtime.exceptionThrown":
            self.errors.append(str(told["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning"):
            self.errors.append(str(told["args"]))
        elif event == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.errors.append(told["entry"]["text"])
        elif event == "Network.requestWillBeSent":
            url = told["request"]["url"]
            if not url.startswith(("file:", "data:")):
                self.errors.append(f"asked for {url}")

    def run(self, script):
        """The value of a JavaScript expression, or of the promise that it is."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True,
                          returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def settle(self):
        """Wait until the page is loaded and has drawn what it was told."""
        self.run("""(async () => {
            if (document.readyState !== 'complete')
              await new Promise(done => addEventListener('load', done));
            let before;
            do {
              before = document.body.dataset.ready;
              await new Promise(done => setTimeout(done, 60));
            } while (!before || before !== document.body.dataset.ready);
        })()""")

    def press(self, key, *, shift=False):
        """Press a key and wait for what it does."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if len(key) == 1 and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, modifiers=8 * shift,
                      windowsVirtualKeyCode=KEYS.get(key, ord(key[0].upper())), **text)
        self.settle()

    def mouse(self, *events, **options):
        """Events `(kind, x, y)` of the left button, as `mousePressed`."""
        for kind, x, y in events:
            held = kind in ("mousePressed", "mouseReleased")
            told = {"clickCount": int(held), "button": "left",
                    "buttons": int(kind in ("mousePressed", "mouseMoved"))}
            if kind == "mouseWheel":
                told = {"deltaX": 0, "deltaY": -200}
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **(told | options))
        self.settle()

    def screenshot(self, path=None, *, whole=False):
        """A picture of what is seen, or of the whole page, as PNG."""
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png",
                                          captureBeyondViewport=whole)["data"])
        if path:
            path.write_bytes(data)
        return data
