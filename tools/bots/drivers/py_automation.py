# Browsers under a driver: Debian's Chromium, moved by somebody else's automation, in its own virtual environment.
"""`python py_automation.py CLIENT BASE CHROMIUM`: its variants against `BASE/c/CLIENT/VARIANT/page`."""

from __future__ import annotations

import importlib.metadata
import sys
import time

AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{major}.0.0.0 Safari/537.36"
FLAGS = ["--no-sandbox", "--ignore-certificate-errors", "--disable-background-networking"]
WAIT = 12.0  # seconds for a page to play its part


def playwright(name: str, base: str, chromium: str) -> None:
    if name == "playwright":
        from playwright.sync_api import sync_playwright
    else:
        from patchright.sync_api import sync_playwright
    with sync_playwright() as play:
        for variant, headless, more in (
            ("plain", True, {}),
            ("headed", False, {}),
            ("disguised", True, {"user_agent": AGENT, "locale": "en-US"}),
            ("other", True, {"user_agent": AGENT.replace("{major}", "147"), "locale": "de-DE"}),
        ):
            browser = play.chromium.launch(executable_path=chromium, headless=headless, args=FLAGS)
            major = browser.version.split(".")[0]
            given = {key: value.replace("{major}", major) for key, value in more.items()}
            context = browser.new_context(ignore_https_errors=True, **given)
            page = context.new_page()
            page.goto(f"{base}/c/{name}/{variant}/page", timeout=20_000)
            time.sleep(WAIT)
            context.request.get(f"{base}/c/{name}/{variant}-request/json")
            browser.close()


def selenium(name: str, base: str, chromium: str) -> None:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    for variant, more in (
        ("plain", []),
        ("headless", ["--headless=new"]),
        ("disguised", ["--headless=new", "--user-agent=" + AGENT.replace("{major}", "156")]),
    ):
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for flag in FLAGS + more:
            options.add_argument(flag)
        browser = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
        browser.get(f"{base}/c/{name}/{variant}/page")
        time.sleep(WAIT)
        browser.quit()


def main() -> None:
    name, base, chromium = sys.argv[1:4]
    print(importlib.metadata.version(name), flush=True)
    (selenium if name == "selenium" else playwright)(name, base, chromium)


if __name__ == "__main__":
    main()
