"""The page at / in headless Chromium against a real `lathe serve`: python3 page.py LATHE WORK_DIRECTORY.

Sends messages as a person would and looks at what the page then shows; leaves screenshots in WORK_DIRECTORY. Exits
with 77 (skipped) where there is no Chromium. Chromium is driven over its debugging pipe: no package is needed.
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
import time

SKIPPED = 77
KEY = "interop-key"
SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
BUILTIN = os.path.join(SOURCE, "models/builtin")


class Browser:
    """Chrome DevTools Protocol: JSON that ends with NUL, over file descriptors 3 (in) and 4 (out)."""

    def __init__(self, binary, profile):
        to_read, self.out = os.pipe()
        self.back, to_write = os.pipe()

        def descriptors():  # both first above 4: neither may lie where the other goes
            a, b = os.dup(to_read), os.dup(to_write)
            high = [os.dup2(a, 100), os.dup2(b, 101)]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        arguments = ["--headless=new", "--remote-debugging-pipe", "--disable-gpu", "--disable-dev-shm-usage",
                     "--no-first-run", "--disable-background-networking", "--user-data-dir=" + profile, "about:blank"]
        if os.geteuid() == 0:
            arguments.insert(0, "--no-sandbox")
        self.process = subprocess.Popen([binary, *arguments], preexec_fn=descriptors, close_fds=False,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(to_write)
        self.buffer, self.number, self.session, self.events = b"", 0, None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")

    def message(self, deadline):
        while b"\0" not in self.buffer:
            if not select.select([self.back], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError("Chromium does not answer")
            more = os.read(self.back, 1 << 16)
            if not more:
                raise RuntimeError("Chromium ended")
            self.buffer += more
        one, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(one)

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + 60
        while True:
            answer = self.message(deadline)
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def js(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def until(self, expression, seconds=30):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            value = self.js(expression)
            if value:
                return value
            time.sleep(0.03)
        raise AssertionError(f"never true: {expression}; the page says: {self.js('document.body.innerText')[:2000]}")

    def open(self, url, width=1280, height=860, dark=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def type(self, text):
        self.call("Input.insertText", text=text)

    def press(self, key, code):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code,
                      text="\r" if key == "Enter" and kind == "keyDown" else "")

    def screenshot(self, path):
        picture = self.call("Page.captureScreenshot", format="png")["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(picture))

    # What the page did wrong: exceptions, refused by its policy, errors in the log.
    def complaints(self):
        said = []
        for e in self.events:
            if e.get("method") == "Runtime.exceptionThrown":
                said.append(e["params"]["exceptionDetails"].get("exception", {}).get("description", "exception"))
            if e.get("method") == "Log.entryAdded" and e["params"]["entry"]["level"] == "error":
                said.append(e["params"]["entry"]["text"] + " " + e["params"]["entry"].get("url", ""))
        return said

    def requested(self):
        return [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]

    def close(self):
        self.process.kill()
        self.process.wait()


class Server:
    def __init__(self, lathe, model, *flags):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([lathe, "serve", model, "--port", "0", "--threads", "1", *flags], stderr=self.log)
        for _ in range(600):
            self.log.seek(0)
            found = re.search(r"is ready at (http://\S+)", self.log.read())
            if found:
                self.url = found.group(1) + "/"
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        self.log.seek(0)
        raise RuntimeError("lathe serve did not start: " + self.log.read())

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


READY = "document.getElementById('state').textContent === 'ready'"
ANSWER = "document.querySelector('.turn.model:last-child .text')?.textContent ?? ''"


def send(browser, text):
    browser.js("document.getElementById('prompt').focus()")
    browser.type(text)
    browser.press("Enter", 13)


def chats(browser, server, work):
    browser.open(server.url)
    browser.until(READY)
    assert "builtin" in browser.js("document.getElementById('model').textContent")
    assert browser.js("document.activeElement.id") == "prompt", "typing starts at once"
    browser.js("document.getElementById('seed').value = 7; document.getElementById('max_tokens').value = 400")
    # The text grows while it comes: a watcher in the page notes its lengths.
    browser.js("""window.lengths = new Set(); new MutationObserver(() => window.lengths.add((%s).length))
        .observe(document.getElementById('log'), {childList: true, subtree: true, characterData: true})""" % ANSWER)
    send(browser, "Tell me of the sea.")
    browser.until("document.querySelector('.turn.model .foot').textContent.includes('a second')")
    assert len(browser.js(ANSWER)) > 100
    steps = browser.js("[...window.lengths].filter(n => n > 0).length")
    assert steps > 2, f"the text came in {steps} pieces"
    browser.js("document.getElementById('max_tokens').value = 120")
    send(browser, "And then?")
    browser.until("document.querySelectorAll('.turn.model:not(.busy)').length === 2")
    browser.until("document.querySelectorAll('#charts path.line').length === 10"
                  " && [...document.querySelectorAll('#charts path.line')].some(p => p.getAttribute('d')?.includes('L'))")
    assert browser.until("document.querySelector('#charts .value').textContent !== '–'")
    time.sleep(2.5)  # a few points for the picture
    browser.screenshot(work + "/page-desktop.png")
    # Escape stops a long answer.
    browser.js("document.getElementById('max_tokens').value = 100000")
    send(browser, "Go on for ever.")
    browser.until("document.querySelector('.turn.busy .text')?.textContent.length > 40")
    browser.press("Escape", 27)
    browser.until("document.querySelector('.turn:last-child .foot').textContent.includes('stopped')")
    # What the server refuses is said, and the settings say what a field may hold.
    browser.js("document.getElementById('max_tokens').value = 100; document.getElementById('temperature').value = -1")
    send(browser, "Refused by the form.")
    browser.until("document.getElementById('settings').open && !document.querySelector('.turn.busy')")
    assert "Refused" not in browser.js("document.getElementById('log').textContent")
    browser.js("""document.getElementById('temperature').value = 1; document.getElementById('settings').open = false;
        document.getElementById('prompt').value = 'word '.repeat(5000); document.getElementById('form').requestSubmit()""")
    browser.until("document.querySelector('.turn:last-child .error')?.textContent.includes('context')")
    browser.screenshot(work + "/page-error.png")
    browser.js("document.getElementById('clear').click()")
    assert browser.js("document.querySelectorAll('.turn').length") == 0


def markdown(browser, server, work):
    browser.open(server.url)
    html = browser.js("""import('/page/markdown.js').then(m => { const d = document.createElement('div');
        d.append(m.markdown(%s)); return d.innerHTML; })""" % json.dumps(
            "# Head\nA *b* **c** `d<e` <img src=x onerror=alert(1)> [l](https://e.org/) [j](javascript:alert(1))\n\n"
            "1. one\n   - in\n2. two\n\n> q\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```\n<x>\n```\n---\n```\nopen"))
    for part in ("<h3>Head</h3>", "<em>b</em>", "<strong>c</strong>", "<code>d&lt;e</code>", "&lt;img src=x",
                 '<a href="https://e.org/" rel="noopener noreferrer" target="_blank">l</a>', "[j](javascript:alert(1))",
                 '<ol start="1"><li>one<ul><li>in</li></ul></li><li>two</li></ol>', "<blockquote><p>q</p></blockquote>",
                 "<tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr>", "<pre><code>&lt;x&gt;</code></pre>",
                 "<hr>", "<pre><code>open</code></pre>"):
        assert part in html, f"{part} is not in {html}"


def narrow(browser, server, work):
    browser.open(server.url, 390, 780, dark=True)
    browser.until(READY)
    send(browser, "Tell me of the sea.")
    browser.until("document.querySelector('.turn.model .foot').textContent !== ''")
    assert browser.js("document.documentElement.scrollWidth") <= 390, "nothing sticks out to the right"
    assert browser.js("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 26)"
    browser.screenshot(work + "/page-narrow.png")
    browser.js("document.querySelector('nav [data-view=engine]').click()")
    browser.until("document.querySelector('#charts').getBoundingClientRect().width > 300")
    time.sleep(1.5)
    browser.screenshot(work + "/page-narrow-engine.png")


def keyed(browser, server, work):
    browser.open(server.url)
    browser.until("document.getElementById('state').textContent === 'wants an API key'")
    assert browser.js("document.activeElement.id") == "key"
    browser.type(KEY)
    browser.until(READY)
    send(browser, "Tell me of the sea.")
    browser.until("document.querySelector('.turn.model .foot').textContent.includes('a second')")


def continues(browser, server, work):
    browser.open(server.url)
    browser.until(READY)
    assert "continues what you write" in browser.js("document.getElementById('log').textContent")
    send(browser, "It was a dark night")
    browser.until("document.querySelector('.turn.plain .foot').textContent.includes('a second')")


def report(browser, server, work):
    browser.open(server.url, dark=True)
    browser.until(READY)
    browser.until("document.querySelectorAll('#report circle').length > 2")
    browser.js("document.querySelector('aside').scrollTop = 1e6")
    browser.screenshot(work + "/page-report.png")
    browser.open(server.url + "report.html")
    browser.until("document.querySelectorAll('svg.chart').length === 3")
    browser.screenshot(work + "/page-report-whole.png")
    # Its script sorts tables; a model's files may not run one in this origin.
    assert browser.js("document.querySelectorAll('th button').length + self.origin") == "0null"
    assert any("sandboxed" in c for c in browser.complaints()), browser.complaints()
    browser.events.clear()


def main():
    lathe, work = sys.argv[1], sys.argv[2]
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not binary:
        print("skipped: the page was not tested, for there is no Chromium (apt-get install chromium)")
        return SKIPPED
    os.makedirs(work, exist_ok=True)
    profile = tempfile.mkdtemp(prefix="lathe-chromium-")
    plain, optimized = profile + "/plain", profile + "/optimized"
    shutil.copytree(BUILTIN, plain)  # without its chat template
    with open(plain + "/tokenizer_config.json") as file:
        config = json.load(file)
    del config["chat_template"]
    with open(plain + "/tokenizer_config.json", "w") as file:
        json.dump(config, file)
    subprocess.run([lathe, "optimize", "builtin", "--calibration", BUILTIN + "/calibration.txt", "--eval",
                    BUILTIN + "/heldout.txt", "-o", optimized, "--search-tokens", "512", "--eval-tokens", "512",
                    "--prompt-tokens", "32", "--max-trials", "6", "--max-ppl-increase", "90"],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    browser = Browser(binary, profile + "/profile")
    try:
        for model, flags, tests in (("builtin", [], (chats, markdown, narrow)), ("builtin", ["--api-key", KEY], (keyed,)),
                                    (plain, [], (continues,)), (optimized, [], (report,))):
            server = Server(lathe, model, *flags)
            try:
                for test in tests:
                    test(browser, server, work)
                browser.call("Page.navigate", url="about:blank")
                outside = [u for u in browser.requested() if not u.startswith((server.url, "data:", "about:"))]
                assert not outside, f"requests to others: {outside}"
                # Chromium logs every answer of 4xx; those the tests ask for.
                wrong = [c for c in browser.complaints() if "Failed to load resource" not in c]
                assert not wrong, wrong
                browser.events.clear()
            finally:
                server.stop()
    finally:
        browser.close()
        shutil.rmtree(profile, ignore_errors=True)
    print("page: ok in Chromium; pictures in " + work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
