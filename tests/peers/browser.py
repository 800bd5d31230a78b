"""Headless Chromium, driven by the DevTools protocol over a pipe. Nothing but the standard library.

A test waits for states of the page (`wait`), and never for time. A dialog, a request to another host,
and a violation of the policy are noted, whatever page causes them.
"""

import base64
import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

CHROMIUM = "/usr/bin/chromium"

# A guard against a hang. It measures nothing, so it is generous.
PATIENCE = 90

FLAGS = [
    "--headless=new",
    "--remote-debugging-pipe",
    # Tests run as root in containers, where Chromium has no sandbox.
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    # A tab that nobody looks at works as one on a screen.
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--mute-audio",
    "--hide-scrollbars",
    # No name leads anywhere, so nothing that tries to reach another host gets an answer.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    # WebGL without a graphics card.
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--window-size=1200,900",
]

# Notes what no page may do. It runs before the scripts of each page.
HOOK = """
window.__violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.__violations.push(`${event.violatedDirective} ${event.blockedURI}`);
});
"""

KEYS = {
    "ArrowDown": 40, "ArrowUp": 38, "ArrowLeft": 37, "ArrowRight": 39, "PageDown": 34, "PageUp": 33,
    "Home": 36, "End": 35, "Enter": 13, "Escape": 27, "Tab": 9, "/": 191,
}  # fmt: skip


class BrowserError(Exception):
    """Something that the page should not have done, or did not do in time."""


class Browser:
    """One Chromium with one tab."""

    def __init__(self, artefacts):
        self.artefacts = Path(artefacts)
        self.directory = tempfile.mkdtemp(prefix="dcmdex-chromium-")
        to_read, to_write = os.pipe()
        from_read, from_write = os.pipe()
        # Chromium reads commands from descriptor 3 and writes to descriptor 4.
        command = ["/bin/sh", "-c", f'exec "$0" "$@" 3<&{to_read} 4>&{from_write}', CHROMIUM]
        self.process = subprocess.Popen(
            [*command, *FLAGS, f"--user-data-dir={self.directory}", "about:blank"],
            pass_fds=(to_read, from_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # A group of its own, so that all its processes can be ended.
            start_new_session=True,
        )
        os.close(to_read)
        os.close(from_write)
        self.output = os.fdopen(to_write, "wb", buffering=0)
        self.input = os.fdopen(from_read, "rb", buffering=0)
        self.messages = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.number = 0
        self.answers = {}
        self.awaited = None
        self.session = None
        self.console = []
        self.requests = []
        self.dialogs = []
        # What the policies of pages refused.
        self.refused = []
        # Events that a test waits for by name.
        self.events = []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Page.addScriptToEvaluateOnNewDocument", source=HOOK)

    def _read(self):
        waiting = b""
        while piece := self.input.read(1 << 20):
            *whole, waiting = (waiting + piece).split(b"\0")
            for message in whole:
                self.messages.put(json.loads(message))
        self.messages.put(None)

    def call(self, method, **parameters):
        """Sends a command and returns its result."""
        number = self._send(method, **parameters)
        deadline = time.monotonic() + PATIENCE
        self.awaited = number
        while number not in self.answers:
            self._take(deadline)
        answer = self.answers.pop(number)
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error']}")
        return answer["result"]

    def _take(self, deadline):
        try:
            message = self.messages.get(timeout=max(0.001, deadline - time.monotonic()))
        except queue.Empty:
            raise BrowserError("Chromium does not answer") from None
        if message is None:
            raise BrowserError("Chromium has ended")
        if message.get("id") == self.awaited:
            self.answers[message["id"]] = message
        elif "id" in message:
            # Nobody waits for it: a dialog was closed.
            pass
        else:
            self._event(message["method"], message["params"])

    def _event(self, method, event):
        if method == "Page.javascriptDialogOpening":
            self.dialogs.append(event["message"])
            # Without an answer the page would stand still.
            self._send("Page.handleJavaScriptDialog", accept=False)
        elif method in ("Fetch.requestPaused", "Network.loadingFailed"):
            self.events.append((method, event))
        elif method == "Network.requestWillBeSent":
            self.requests.append(event["request"]["url"])
        elif method == "Runtime.consoleAPICalled":
            words = [str(each.get("value", each.get("description", ""))) for each in event["args"]]
            self.console.append(f"{event['type']}: {' '.join(words)}")
        elif method == "Runtime.exceptionThrown":
            details = event["exceptionDetails"]
            text = details.get("exception", {}).get("description", details["text"])
            self.console.append(f"exception: {text}")
        elif method == "Log.entryAdded":
            entry = event["entry"]
            self.console.append(f"{entry['level']}: {entry['text']} {entry.get('url', '')}")

    def event(self, method):
        """Waits for an event, or takes the first of its kind that has come already."""
        deadline = time.monotonic() + PATIENCE
        while True:
            for at, (known, event) in enumerate(self.events):
                if known == method:
                    del self.events[at]
                    return event
            self._take(deadline)

    def forget(self):
        """Forgets what was noted so far."""
        for notes in (self.console, self.requests, self.dialogs, self.refused, self.events):
            notes.clear()

    def _send(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.output.write(json.dumps(message).encode() + b"\0")
        return self.number

    def evaluate(self, expression):
        """Returns the value of an expression in the page. It may be a promise."""
        result = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in result:
            raise BrowserError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait(self, expression, what=None):
        """Waits until an expression is true in the page, and returns its value."""
        deadline = time.monotonic() + PATIENCE
        # The page itself looks again and again, so that no time passes here without need. A look
        # that takes long leaves the page time for its own work.
        script = f"""new Promise((done) => {{
            const look = () => {{
                const begun = performance.now();
                let value;
                try {{ value = ({expression}); }} catch (error) {{ value = null; }}
                if (value) return done(value instanceof Node ? true : value);
                setTimeout(look, 10 + 10 * (performance.now() - begun));
            }};
            look();
            setTimeout(() => done(null), 2000);
        }})"""
        while time.monotonic() < deadline:
            try:
                value = self.evaluate(script)
            except BrowserError as error:
                # The page went to another one meanwhile.
                if "context" not in str(error) and "navigated" not in str(error):
                    raise
                continue
            if value:
                return value
        raise BrowserError(f"did not happen: {what or expression}")

    def open(self, address):
        """Goes to an address and waits until the page is loaded."""
        self._before_leaving()
        result = self.call("Page.navigate", url=address)
        if "errorText" in result:
            raise BrowserError(f"{address}: {result['errorText']}")
        self.wait("!window.__old && document.readyState === 'complete'", f"{address} is loaded")

    def leave(self, action):
        """Does something that goes to another page, and waits until that is loaded."""
        self._before_leaving()
        action()
        self.wait("!window.__old && document.readyState === 'complete'", "another page is loaded")

    def _before_leaving(self):
        self.refused += self.evaluate("window.__violations") or []
        self.evaluate("window.__old = true")

    def key(self, name, modifiers=0):
        """Presses a key."""
        code = KEYS.get(name, 0)
        text = {"text": name} if len(name) == 1 else {}
        if name == "Enter":
            text = {"text": "\r"}
        for kind in ("keyDown" if text else "rawKeyDown", "keyUp"):
            parameters = text if kind == "keyDown" else {}
            self.call(
                "Input.dispatchKeyEvent",
                type=kind, key=name, code=name, windowsVirtualKeyCode=code, modifiers=modifiers, **parameters,
            )  # fmt: skip

    def type(self, selector, text):
        """Types text into a field in place of what it has, one character after the other."""
        field = f"document.querySelector({json.dumps(selector)})"
        # A browser gives the focus of `autofocus` some time after the page is loaded.
        self.evaluate(f"{field}.focus()")
        self.wait(f"document.activeElement === {field}", f"{selector} has the focus")
        self.evaluate(f"{field}.select()")
        for character in text:
            self.call("Input.insertText", text=character)

    def add(self, text):
        """Types more text into the field that has the focus."""
        for character in text:
            self.call("Input.insertText", text=character)

    def mouse(self, kind, x, y, **parameters):
        """Moves, presses or turns the mouse."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **parameters)

    def centre(self, selector):
        """Returns the middle of an element on the screen."""
        return self.evaluate(
            f"""(() => {{
                const element = document.querySelector({json.dumps(selector)});
                element.scrollIntoView({{ block: "center" }});
                const box = element.getBoundingClientRect();
                return [box.left + box.width / 2, box.top + box.height / 2];
            }})()"""
        )

    def tree(self):
        """Returns the names and roles that a screen reader gets."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        value = lambda node, key: node.get(key, {}).get("value", "")  # noqa: E731
        return [(value(node, "role"), value(node, "name")) for node in nodes if not node.get("ignored")]

    def violations(self):
        """Returns what the policies of all pages refused so far, and forgets it."""
        refused = self.refused + (self.evaluate("window.__violations") or [])
        self.refused = []
        self.evaluate("window.__violations = []")
        return refused

    def keep_evidence(self, name):
        """Writes a screenshot, the page and the console for whoever looks at a failure."""
        self.artefacts.mkdir(parents=True, exist_ok=True)
        lines = [*self.console, *(f"dialog: {text}" for text in self.dialogs), *(f"GET {url}" for url in self.requests)]
        (self.artefacts / f"{name}.log").write_text("\n".join(lines) + "\n", encoding="utf-8")
        # Chromium may be what failed.
        with contextlib.suppress(BrowserError, OSError):
            picture = self.call("Page.captureScreenshot", format="png")["data"]
            (self.artefacts / f"{name}.png").write_bytes(base64.b64decode(picture))
            html = self.evaluate("document.documentElement.outerHTML")
            (self.artefacts / f"{name}.html").write_text(html or "", encoding="utf-8")

    def close(self):
        """Ends Chromium with all its processes. It has nothing to save."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.output.close()
        shutil.rmtree(self.directory, ignore_errors=True)
