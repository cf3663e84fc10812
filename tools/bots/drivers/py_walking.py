# A client that walks through a site's pages as fast as it can, then meets a challenge. Run in the client's own environment.
"""`python py_walking.py CLIENT VARIANT BASE CHROMIUM PAGES`: says in its last line whether the challenged page came, and when."""

from __future__ import annotations

import json
import sys
import time

FLAGS = ["--no-sandbox", "--ignore-certificate-errors", "--disable-background-networking"]
PATIENCE = 60.0  # seconds for a challenge
BEHIND = "behind the challenge"  # what the page says that is challenged
PARTS = {"image", "stylesheet", "script", "font"}


def playwright(name, variant, base, chromium, pages):
    if name == "playwright":
        from playwright.sync_api import sync_playwright
    else:
        from patchright.sync_api import sync_playwright
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, headless=variant == "headless", args=FLAGS)

        def page():
            made = browser.new_context(ignore_https_errors=True).new_page()
            if variant == "no parts":
                made.route("**/w/**", lambda route: route.abort() if route.request.resource_type in PARTS else route.continue_())
            return made

        tab = page()
        for at in range(pages):
            tab.goto(f"{base}/w/p{at}", timeout=20_000)
            if variant == "a context per page":
                tab.context.close()
                tab = page()
        began = time.monotonic()
        tab.goto(f"{base}/ask/page", timeout=20_000)
        passed = _until(lambda: BEHIND in tab.content())
        took = time.monotonic() - began
        tab.goto(f"{base}/w/behind", timeout=20_000)
        browser.close()
    return passed, took


def selenium(_, variant, base, chromium, pages):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in FLAGS + (["--headless=new"] if variant == "headless" else []):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    for at in range(pages):
        browser.get(f"{base}/w/p{at}")
    began = time.monotonic()
    browser.get(f"{base}/ask/page")
    passed = _until(lambda: BEHIND in browser.page_source)
    took = time.monotonic() - began
    browser.get(f"{base}/w/behind")
    browser.quit()
    return passed, took


def impersonator(name, variant, base, _, pages):
    if name == "curl_cffi":
        from curl_cffi import requests

        session = requests.Session(impersonate=variant, verify=False)
    else:
        import primp

        session = primp.Client(impersonate=variant, impersonate_os="linux", cookie_store=True, verify=False, timeout=20)
    for at in range(pages):
        session.get(f"{base}/w/p{at}")
    began = time.monotonic()
    answer = session.get(f"{base}/ask/page")
    passed = BEHIND in answer.text
    took = time.monotonic() - began
    session.get(f"{base}/w/behind")
    return passed, took


def _until(true):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            if true():
                return True
        except Exception:  # in the middle of a navigation
            pass
        time.sleep(0.1)
    return False


def main():
    name, variant, base, chromium, pages = sys.argv[1:6]
    walk = {"selenium": selenium, "curl_cffi": impersonator, "primp": impersonator}.get(name, playwright)
    passed, took = walk(name, variant, base, chromium, int(pages))
    print(json.dumps({"passed": passed, "seconds": round(took, 1)}))


if __name__ == "__main__":
    main()
