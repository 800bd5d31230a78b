"""The page in a browser, as a person uses it: URL ARTEFACTS SCENARIO...

Each scenario is a function here. Where one fails, a screenshot, the page and the console are kept in
ARTEFACTS. The node behind the URL has the objects of `make_page_archive.py`.
"""

import json
import os
import sys
import traceback
from pathlib import Path

from browser import Browser

COUNT = "document.querySelector('#count').textContent"
SETTLED = "document.querySelector('#results').getAttribute('aria-busy') === 'false'"
NAMES = "[...document.querySelectorAll('tbody a.main')].map((link) => link.textContent)"
POSITION = "document.querySelector('#position').textContent"
DONE = "document.querySelector('#viewer').dataset.state === 'done'"
# The mean of what the image on the screen shows, from 0 to 255; null while there is none.
BRIGHTNESS = """(() => {
    const picture = document.querySelector("#picture");
    if (picture.hidden || !picture.complete || picture.naturalWidth === 0) return null;
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
    const context = canvas.getContext("2d");
    context.drawImage(picture, 0, 0);
    const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
    let sum = 0;
    for (let at = 0; at < data.length; at += 4) sum += data[at];
    return Math.round((sum * 4) / data.length);
})()"""


def near(found, wanted, by=3):
    assert found is not None and abs(found - wanted) <= by, f"{found} is not about {wanted}"


def search_as_one_types(browser, base):
    """Results follow the typing, in every script, with accents and by sound."""
    browser.open(base + "/")
    browser.wait("document.activeElement.name === 'q'", "the field has the focus")
    for typed, found in [
        ("muller", ["Müller Änne"]),
        ("änne mül", ["Müller Änne"]),
        ("太郎", ["Yamada Tarou · 山田 太郎 · やまだ たろう"]),
        ("smyth", ["Smith John"]),
        ("Q-3", ["Kowalski Jan"]),
        ("B-1", ["Smith John"]),
        ("nobody", []),
    ]:
        browser.type("[name=q]", typed)
        address = f"new URLSearchParams(location.search).get('q') === {json.dumps(typed)}"
        browser.wait(f"{SETTLED} && {address}", f"an answer for {typed}")
        assert browser.evaluate(NAMES) == found, (typed, browser.evaluate(NAMES))
    assert browser.evaluate(COUNT) == "No study matches."
    # Date and modality narrow what was found; nothing typed finds all.
    browser.type("[name=q]", "a")
    browser.type("[name=modality]", "mr")
    browser.wait(f"{SETTLED} && location.search === '?q=a&modality=mr'", "an answer for two fields")
    assert browser.evaluate(NAMES) == [], "Müller Änne has a CT"
    browser.type("[name=q]", "j")
    browser.wait(f"{SETTLED} && location.search === '?q=j&modality=mr'", "an answer for two fields")
    assert browser.evaluate(NAMES) == ["Kowalski Jan", "Smith John"], "the newest first"
    # What was found stays when one comes back to it.
    browser.leave(lambda: browser.evaluate("location.reload()"))
    assert browser.evaluate(NAMES) == ["Kowalski Jan", "Smith John"]


def an_answer_that_nobody_waits_for_is_cancelled(browser, base):
    """Whoever types on gets the answer for all that was typed, and the request before is given up."""
    browser.open(base + "/")
    # The node answers the first search when the test lets it.
    browser.call("Fetch.enable", patterns=[{"urlPattern": "*q=s", "requestStage": "Request"}])
    browser.type("[name=q]", "s")
    paused = browser.event("Fetch.requestPaused")
    browser.add("mith")
    browser.wait(f"{SETTLED} && location.search === '?q=smith'", "an answer for all that was typed")
    failed = browser.event("Network.loadingFailed")
    assert failed["canceled"] and failed["requestId"] == paused["networkId"], failed
    assert browser.evaluate(NAMES) == ["Smith John"]
    browser.call("Fetch.disable")


def everything_goes_by_keyboard(browser, base):
    """The list, a study and a series are reached without a mouse."""
    browser.open(base + "/?q=muller")
    focus = "document.activeElement.textContent.trim()"
    browser.wait("document.activeElement.name === 'q'", "the field has the focus")
    browser.evaluate("document.activeElement.blur()")
    browser.key("/")
    assert browser.evaluate("document.activeElement.name") == "q"
    browser.key("ArrowDown")
    assert browser.evaluate(focus) == "Müller Änne"
    browser.key("ArrowUp")
    assert browser.evaluate("document.activeElement.name") == "q"
    browser.key("ArrowDown")
    browser.leave(lambda: browser.key("Enter"))
    assert browser.evaluate("document.querySelector('h1').textContent") == "Müller Änne"
    # The first tab stop skips what all pages have.
    stops = []
    for _ in range(5):
        browser.key("Tab")
        stops.append(browser.evaluate(focus))
        style = "getComputedStyle(document.activeElement).outlineStyle"
        assert browser.evaluate(style) != "none", f"the focus on {stops[-1]} is seen"
    assert stops[:4] == ["Skip to the content", "dcmdex", "Studies", "Index"], stops
    browser.evaluate("document.querySelector('.skip').focus()")
    browser.key("Enter")
    browser.wait("document.activeElement.id === 'main'", "the content has the focus")
    browser.evaluate("document.querySelector('a.main').focus()")
    browser.key("ArrowDown")
    browser.key("ArrowUp")
    browser.leave(lambda: browser.key("Enter"))
    browser.wait(DONE, "an image")
    browser.key("ArrowDown")
    browser.wait(f"{POSITION} === 'Image 2 of 12'", "the next image")


# The contrast of each text on the screen with what lies behind it (WCAG 2.2, 1.4.3).
CONTRAST = """(() => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const colour = (text) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = text;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = (rgb) => {
        const [r, g, b] = rgb.slice(0, 3).map((each) => {
            const part = each / 255;
            return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        for (let each = element; each; each = each.parentElement) {
            const found = colour(getComputedStyle(each).backgroundColor);
            if (found[3] > 0) return found;
        }
        return colour("white");
    };
    const poor = [];
    for (const element of document.querySelectorAll("body *")) {
        const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim() !== "");
        if (!text || !element.checkVisibility()) continue;
        const [one, other] = [light(colour(getComputedStyle(element).color)), light(behind(element))];
        const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        if (contrast < 4.5) poor.push(`${element.tagName} ${element.textContent.trim().slice(0, 40)}: ${contrast}`);
    }
    return poor;
})()"""

PAGES = ["/", "/study/1.2.3", "/study/1.2.3/series/1.2.3.1", "/study/1.2.3/series/1.2.3.4", "/status",
         "/status/failures", "/status/conflicts", "/study/9.9"]  # fmt: skip


def it_is_read_in_light_and_dark_and_on_a_phone(browser, base):
    """Contrast, names and roles, one heading, and a page no wider than the screen."""
    for scheme in ("light", "dark"):
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        for page in PAGES:
            browser.open(base + page)
            assert browser.evaluate(CONTRAST) == [], (scheme, page, browser.evaluate(CONTRAST))
    browser.call("Emulation.setEmulatedMedia", features=[])
    for page in PAGES:
        browser.open(base + page)
        assert browser.evaluate("document.querySelectorAll('h1').length") == 1, page
        assert browser.evaluate("document.documentElement.lang") == "en"
        nodes = browser.tree()
        roles = {role for role, _ in nodes}
        assert {"main", "navigation", "banner", "heading"} <= roles, (page, roles)
        for role, name in nodes:
            if role in ("link", "button", "searchbox", "textbox", "slider", "spinbutton", "region"):
                assert name, f"{page}: a {role} without a name"
        assert browser.evaluate("[...document.images].every((image) => image.hasAttribute('alt'))"), page
    browser.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
    for page in PAGES:
        browser.open(base + page)
        assert browser.evaluate("document.documentElement.scrollWidth") <= 360, f"{page} is wider than a phone"
        small = """[...document.querySelectorAll("a.main, button, input")].filter((each) =>
            each.checkVisibility() && each.getBoundingClientRect().height < 24).map((each) => each.outerHTML)"""
        assert browser.evaluate(small) == [], page
    browser.call("Emulation.clearDeviceMetricsOverride")


# Rules of WCAG 2.2 to level AA, and what axe calls good practice.
AXE = """axe.run(document, {
    runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    resultTypes: ["violations"],
}).then((found) => ({
    passed: found.passes.length,
    wrong: found.violations.flatMap((rule) => rule.nodes.map((node) => `${rule.id}: ${node.html.slice(0, 200)}`)),
}))"""


def axe_finds_nothing(browser, base):
    """axe-core, which knows what screen readers need, has no complaint of any page."""
    axe = Path(os.environ["DCMDEX_AXE"]).read_text()
    for scheme in ("light", "dark"):
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        for page in [*PAGES, "/?q=j", "/?q=nobody", "/study/1.2.3/series/1.2.3.3"]:
            browser.open(base + page)
            if "/series/" in page:
                browser.wait(f"!document.querySelector('#viewer') || {DONE}", "an image or none")
            browser.evaluate(axe)
            found = browser.evaluate(AXE)
            assert found["wrong"] == [], (scheme, page, found["wrong"])
            assert found["passed"] > 10, (page, found)
    browser.evaluate("document.documentElement.removeAttribute('lang')")
    assert any(wrong.startswith("html-has-lang") for wrong in browser.evaluate(AXE)["wrong"]), "axe finds what is wrong"
    browser.call("Emulation.setEmulatedMedia", features=[])


def a_study_has_thumbnails_and_icons(browser, base):
    """A series has its thumbnail, and an icon where there can be none."""
    browser.open(base + "/study/1.2.3")
    thumbs = """[...document.querySelectorAll(".thumb")].map((thumb) => {
        const image = thumb.querySelector("img");
        return !image ? "none" : image.hidden ? "hidden" : image.complete && image.naturalWidth > 0 ? "shown" : "loading";
    }).join(" ")"""
    browser.wait(f"{thumbs} === 'shown shown hidden none'", "two thumbnails and two icons")
    assert browser.evaluate("document.querySelectorAll('.thumb svg').length") == 4


def a_stack_is_scrolled(browser, base):
    """Keys, wheel and slider go through the images, which are loaded ahead in their order."""
    browser.open(base + "/study/1.2.3/series/1.2.3.1")
    browser.wait(DONE, "the first image")
    near(browser.evaluate(BRIGHTNESS), 100 / 1000 * 255)
    # The neighbours are loaded, the nearest first.
    neighbours = [f"1.2.3.1.{number}/frames/1/rendered" for number in range(2, 8)]
    seen = "performance.getEntriesByType('resource').map((entry) => entry.name).filter((name) => name.includes('rendered'))"
    browser.wait(f"{seen}.some((name) => name.includes('{neighbours[-1]}'))", "six images ahead")
    order = browser.evaluate(seen)
    order = [next((at for at, part in enumerate(neighbours) if part in name), -1) for name in order]
    assert [at for at in order if at >= 0] == list(range(6)), order
    for key, position, level in [
        ("ArrowDown", 2, 150),
        ("ArrowRight", 3, 200),
        ("ArrowUp", 2, 150),
        ("End", 12, 650),
        ("ArrowDown", 12, 650),
        ("PageUp", 2, 150),
        ("PageDown", 12, 650),
        ("Home", 1, 100),
    ]:
        browser.key(key)
        browser.wait(f"{DONE} && {POSITION} === 'Image {position} of 12'", f"image {position}")
        near(browser.evaluate(BRIGHTNESS), level / 1000 * 255)
    x, y = browser.centre("#stage")
    browser.mouse("mouseWheel", x, y, deltaX=0, deltaY=120)
    browser.wait(f"{DONE} && {POSITION} === 'Image 2 of 12'", "the wheel goes on")
    browser.mouse("mouseWheel", x, y, deltaX=0, deltaY=-120)
    browser.wait(f"{DONE} && {POSITION} === 'Image 1 of 12'", "the wheel goes back")
    browser.evaluate("document.querySelector('#at').focus()")
    browser.key("End")
    browser.wait(f"{DONE} && {POSITION} === 'Image 12 of 12'", "the slider goes to the end")
    # A screen reader hears where one is, from the slider and from the status. It reads the slider
    # at once, before the image is there. AT-SPI has the attribute; the tree of DevTools has not.
    at_once = """(() => {
        const slider = document.querySelector("#at");
        const told = [slider.getAttribute("aria-valuetext")];
        slider.value = 7;
        slider.dispatchEvent(new Event("input", { bubbles: true }));
        told.push(slider.getAttribute("aria-valuetext"));
        const key = { key: "ArrowDown", bubbles: true, cancelable: true };
        slider.dispatchEvent(new KeyboardEvent("keydown", key));
        told.push(slider.getAttribute("aria-valuetext"), slider.value);
        slider.dispatchEvent(new KeyboardEvent("keydown", { ...key, key: "End" }));
        return told.join("; ");
    })()"""
    told = browser.evaluate(at_once)
    assert told == "Image 12 of 12; Image 7 of 12; Image 8 of 12; 8", told
    browser.wait(f"{DONE} && {POSITION} === 'Image 12 of 12'", "the last image again")
    assert of_role(browser, "status")
    # The place is in the address, so that it can be sent to somebody.
    browser.leave(lambda: browser.evaluate("location.reload()"))
    browser.wait(f"{DONE} && {POSITION} === 'Image 12 of 12'", "the same image again")


def of_role(browser, role):
    """The nodes with a role, as a screen reader gets them."""
    tree = browser.call("Accessibility.getFullAXTree")["nodes"]
    return [node for node in tree if node.get("role", {}).get("value") == role]


def a_drag_changes_the_window(browser, base):
    """Sideways the width, up and down the centre; the fields say it, and can be typed into."""
    browser.open(base + "/study/1.2.3/series/1.2.3.1?at=5")
    browser.wait(DONE, "an image")
    near(browser.evaluate(BRIGHTNESS), 300 / 1000 * 255)
    x, y = browser.centre("#stage")
    browser.mouse("mouseMoved", x, y)
    browser.mouse("mousePressed", x, y, button="left", buttons=1, clickCount=1)
    browser.mouse("mouseMoved", x + 30, y - 60, button="left", buttons=1)
    fields = "['#center', '#width'].map((id) => document.querySelector(id).value).join(' ')"
    # A fifth of 1,000 down, a tenth of it up: 300 in a window from -250 to 850.
    browser.wait(f"{DONE} && {fields} === '300 1100'", "another window")
    browser.mouse("mouseReleased", x + 30, y - 60, button="left", buttons=0, clickCount=1)
    near(browser.evaluate(BRIGHTNESS), 127.5)
    browser.mouse("mouseMoved", x + 90, y)
    browser.key("ArrowDown")
    browser.wait(f"{DONE} && {POSITION} === 'Image 6 of 12'", "the next image")
    near(browser.evaluate(BRIGHTNESS), (350 + 250) / 1100 * 255)
    assert "center=300&width=1100" in browser.evaluate("location.search")
    browser.type("#width", "200")
    browser.key("Enter")
    browser.wait(f"{DONE} && {BRIGHTNESS} > 185", "the width that was typed")
    near(browser.evaluate(BRIGHTNESS), (350 - 200) / 200 * 255)
    browser.evaluate("document.querySelector('#reset').click()")
    browser.wait(f"{DONE} && {BRIGHTNESS} < 100", "the window of the object")
    near(browser.evaluate(BRIGHTNESS), 350 / 1000 * 255)


def a_finger_goes_through_the_images(browser, base):
    """On a touch screen a drag scrolls the stack, and does not change the window."""
    browser.open(base + "/study/1.2.3/series/1.2.3.1")
    browser.wait(DONE, "an image")
    x, y = browser.centre("#stage")
    browser.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
    browser.call("Input.dispatchTouchEvent", type="touchMove", touchPoints=[{"x": x, "y": y + 40}])
    browser.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    browser.wait(f"{DONE} && {POSITION} === 'Image 3 of 12'", "two images on")
    assert browser.evaluate("document.querySelector('#width').value") == ""


def frames_are_gone_through(browser, base):
    """An object of several frames shows each of them."""
    browser.open(base + "/study/1.2.3/series/1.2.3.2")
    browser.wait(DONE, "a frame")
    for number, level in enumerate((30, 90, 150, 210), start=1):
        browser.wait(f"{DONE} && {POSITION} === 'Image 1 of 1, frame {number} of 4'", f"frame {number}")
        near(browser.evaluate(BRIGHTNESS), level)
        browser.key("ArrowDown")
    assert browser.evaluate("document.querySelector('#frame').checkVisibility()")
    assert browser.evaluate("document.querySelector('#frame').max") == "4"
    assert browser.evaluate("document.querySelector('#frame').getAttribute('aria-valuetext')") == "Frame 4 of 4"
    browser.key("Home")
    browser.wait(f"{DONE} && {POSITION} === 'Image 1 of 1, frame 1 of 4'", "the first frame")


def what_cannot_be_shown_is_said(browser, base):
    """A film is 406 and a report has no images: the page says both in words."""
    browser.open(base + "/study/1.2.3/series/1.2.3.3")
    browser.wait(DONE, "an answer")
    problem = browser.evaluate("document.querySelector('#problem').innerText")
    assert "cannot be shown here: not rendered" in problem, problem
    assert not browser.evaluate("document.querySelector('#picture').checkVisibility()")
    assert ("alert", problem) in browser.tree() or any(role == "alert" for role, _ in browser.tree())
    browser.open(base + "/study/1.2.3/series/1.2.3.4")
    assert "documents" in browser.evaluate("document.querySelector('#why-not').innerText")
    browser.open(base + "/study/9.9")
    assert "no such study" in browser.evaluate("document.querySelector('#why').innerText")


def no_value_is_markup(browser, base):
    """Every value of these objects is markup. It is text on all pages, and nothing of it runs."""
    links = "[...document.querySelectorAll('main a[href^=\"/s\"]')].map((link) => link.getAttribute('href'))"
    browser.open(base + "/")
    browser.type("[name=q]", "alert")
    browser.wait(f"{SETTLED} && location.search !== ''", "an answer")
    browser.open(base + "/")
    text = browser.evaluate("document.querySelector('#results').innerText")
    assert text.count("alert(1)") >= 3 and text.count("onload=alert(3)") >= 3, text
    waiting, seen = ["/", "/status", "/status/failures", "/status/conflicts"], set()
    kinds = set()
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        browser.open(base + page)
        if page.startswith("/study/") and "/series/" in page:
            browser.wait(f"!document.querySelector('#viewer') || {DONE}", "an image or none")
        kinds.add(page.split("/")[1] + ("/series" if "/series/" in page else ""))
        scripts = browser.evaluate("[...document.scripts].map((script) => script.src + script.textContent)")
        assert scripts == [f"{base}/page.js"], (page, scripts)
        odd = "[...document.querySelectorAll('[onerror],[onload],main svg:not(.thumb svg),[href^=\"javascript\"]')].length"
        assert browser.evaluate(odd) == 0, page
        waiting += browser.evaluate(links)
    assert len(seen) > 30, seen
    failures = "document.querySelector('main').innerText"
    browser.open(base + "/status/failures")
    assert "<img src=x onerror=alert(2)>.dcm" in browser.evaluate(failures), "names of files are text"
    browser.open(base + "/status/conflicts")
    assert "different content" in browser.evaluate(failures)
    for query in ('?q="><script>alert(7)</script>', '?modality="><img src=x onerror=alert(8)>&from="><b>'):
        browser.open(base + "/" + query)
        assert browser.evaluate("document.querySelectorAll('main script, main img, main b').length") == 0
    assert browser.dialogs == [], browser.dialogs
    assert browser.violations() == [], "nothing even tried"


def ohif_shows_a_study(browser, base):
    """OHIF below /ohif/ lists the studies, opens one, and draws an image."""
    browser.open(base + "/ohif/")
    for name in ("Müller", "Smith", "Kowalski"):
        browser.wait(f"document.body.innerText.includes('{name}')", f"{name} in the list of OHIF")
    browser.evaluate("document.querySelector('tr[data-cy=\"1.2.3\"]').click()")
    # The first of its modes is the viewer.
    viewer = "document.querySelector('[data-cy^=mode-]')"
    browser.wait(viewer, "the modes of OHIF")
    browser.evaluate(f"{viewer}.click()")
    browser.wait("location.pathname.startsWith('/ohif/viewer')", "the viewer of OHIF")
    # A drawing has pixels of more than one colour.
    drawn = """[...document.querySelectorAll("canvas")].some((canvas) => {
        if (canvas.width < 100 || !canvas.checkVisibility()) return false;
        const copy = document.createElement("canvas");
        [copy.width, copy.height] = [64, 64];
        const context = copy.getContext("2d");
        context.drawImage(canvas, 0, 0, 64, 64);
        const data = context.getImageData(0, 0, 64, 64).data;
        return data.some((level, at) => at % 4 < 3 && Math.abs(level - data[at % 4]) > 20);
    })"""
    browser.wait(drawn, "an image in OHIF")
    wrong = [line for line in browser.console if "Content Security Policy" in line]
    assert wrong == [], wrong
    frames = [url for url in browser.requests if "/frames/" in url]
    assert frames, "frames were retrieved"
    # OHIF tells things on its own console; what counts is what it shows.
    browser.console.clear()


def the_hooks_see_what_they_are_for(browser, base):
    """A dialog, a script in the page and a request to another host are noted: the other tests rely on it."""
    browser.open(base + "/status")
    browser.evaluate("alert('hook')")
    browser.evaluate("1")
    assert browser.dialogs == ["hook"]
    browser.dialogs.clear()
    browser.evaluate("""{
        const script = document.createElement("script");
        script.textContent = "window.__ran = true";
        document.body.append(script);
        const image = document.createElement("img");
        image.src = "http://example.org/x.png";
        document.body.append(image);
    }""")
    browser.wait("window.__violations.length === 2", "the policy refuses both")
    assert browser.evaluate("window.__ran ?? false") is False
    assert {each.split()[0] for each in browser.violations()} == {"script-src-elem", "img-src"}
    browser.forget()
    browser.evaluate("fetch('http://example.org/').catch(() => {})")
    assert browser.violations()
    browser.forget()


def check_after(browser, base):
    """What holds whatever a page does."""
    assert browser.dialogs == [], browser.dialogs
    foreign = [url for url in browser.requests if not url.startswith((base + "/", "blob:" + base, "data:", "about:"))]
    assert foreign == [], f"requests to elsewhere: {foreign}"
    refused = browser.violations()
    assert refused == [], f"the policy refused: {refused}"
    # A status of 4xx or 5xx is one, and is told as one: `Failed to load resource`.
    wrong = [line for line in browser.console if line.startswith(("exception:", "error:", "assert:"))]
    wrong = [line for line in wrong if "Failed to load resource: the server responded" not in line]
    assert wrong == [], wrong


def main():
    base, artefacts, *scenarios = sys.argv[1:]
    browser = Browser(artefacts)
    try:
        for name in scenarios:
            browser.forget()
            try:
                globals()[name](browser, base)
                check_after(browser, base)
            except Exception:
                browser.keep_evidence(name)
                traceback.print_exc()
                print(f"FAILED {name}; screenshot, page and console are in {artefacts}", file=sys.stderr)
                sys.exit(1)
            print(f"passed {name}")
    finally:
        browser.close()


if __name__ == "__main__":
    main()
