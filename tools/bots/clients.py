# Which clients are captured, what each is made of, and how it is started. A table; nothing runs here.
"""`CLIENTS`: rows of name, implementation, tier and way to start. One that is missing on a machine is noted, not fatal."""

from __future__ import annotations

from typing import NamedTuple


class Client(NamedTuple):
    """A program that asks.

    Attributes:
        name: in labels and in the manifest.
        group: its implementation of TLS and HTTP. Programs that share one stay together in every split.
        tier: of what it does by itself: library, impersonator, automation or human.
        way: python, impersonator, node, plan (a driver that is given a plan), command or browser.
        start: packages for python, impersonator and node; argv for plan and command; names of browsers' recipes.
        highest: HTTP versions of the edges that it is run against.
    """

    name: str
    group: str
    tier: str
    way: str
    start: tuple[str, ...]
    highest: str = "12"


def _library(name: str, group: str, way: str, *start: str, highest: str = "12") -> Client:
    return Client(name, group, "library", way, start, highest)


def _liar(name: str, group: str, way: str, *start: str, highest: str = "12") -> Client:
    return Client(name, group, "impersonator", way, start, highest)


CLIENTS: tuple[Client, ...] = (
    _library("urllib", "python-http.client", "python", highest="1"),
    _library("requests", "urllib3", "python", "requests", highest="1"),
    _library("cloudscraper", "urllib3", "python", "cloudscraper", highest="1"),
    _library("niquests", "urllib3-future", "python", "niquests", highest="123"),
    _library("httpx", "httpcore", "python", "httpx[http2]"),
    _library("openai", "httpcore", "python", "openai"),
    _library("anthropic", "httpcore", "python", "anthropic"),
    _library("aiohttp", "aiohttp", "python", "aiohttp", highest="1"),
    _library("treq", "twisted", "python", "treq"),
    _library("httplib2", "python-http.client", "python", "httplib2", highest="1"),
    _library("tornado", "tornado", "python", "tornado", "certifi", highest="1"),
    _library("pycurl", "libcurl", "python", "pycurl"),
    _library("fetch", "undici", "node", highest="1"),
    _library("undici", "undici", "node", "undici"),
    _library("axios", "node-http", "node", "axios", highest="1"),
    _library("got", "node-http", "node", "got"),
    _library("node-fetch", "node-http", "node", "node-fetch", highest="1"),
    _library("superagent", "node-http", "node", "superagent", highest="1"),
    _library("needle", "node-http", "node", "needle", highest="1"),
    _library("ky", "undici", "node", "ky", highest="1"),
    _library("http2", "node-http2", "node", highest="2"),
    _library("openai-node", "undici", "node", "openai", highest="1"),
    _library("java", "java", "plan", "java", "drivers/Client.java"),
    _library("go", "go", "plan", "go", "run", "drivers/client.go"),
    _library("php-curl", "libcurl", "plan", "php", "drivers/client.php"),
    _library("ruby", "ruby", "plan", "ruby", "drivers/client.rb", highest="1"),
    _library("perl-lwp", "perl", "plan", "perl", "drivers/client.pl", highest="1"),
    _library("curl", "libcurl", "command", "curl", "-sk", "-o", "/dev/null", "-m", "10", "{url}"),
    _library(
        "wget", "wget", "command", "wget", "-q", "--no-check-certificate", "-O", "/dev/null", "-T", "10", "-t", "1", "{url}"
    ),
    _library("aria2", "aria2", "command", "aria2c", "-q", "--check-certificate=false", "--dir={tmp}", "{url}", highest="1"),
    _library("lynx", "lynx", "command", "lynx", "-dump", "{url}", highest="1"),
    _library("w3m", "w3m", "command", "w3m", "-dump", "-o", "ssl_verify_server=0", "{url}", highest="1"),
    _library("nghttp", "nghttp2", "command", "nghttp", "-n", "--no-verify-peer", "{url}", highest="2"),
    _library("h2load", "nghttp2", "command", "h2load", "-n2", "-c2", "{url}", highest="2"),
    _liar("curl_cffi", "curl-impersonate", "impersonator", "curl-cffi", highest="123"),
    _liar("primp", "primp", "impersonator", "primp"),
    _liar("wreq", "wreq", "impersonator", "wreq"),
    _liar("rnet", "wreq", "impersonator", "rnet"),
    _liar("wreq-js", "wreq", "node", "wreq-js"),
    _liar("tls-client", "bogdanfinn", "impersonator", "tls-client"),
    _liar("impit", "impit", "impersonator", "impit", highest="123"),
    _liar("impit-node", "impit", "node", "impit"),
    _liar("gakido", "gakido", "impersonator", "gakido"),
    _liar("curlpro", "curlpro", "impersonator", "curlpro", highest="123"),
    _liar("geektls", "geektls", "impersonator", "geektls"),
    _liar("cycletls", "cycletls", "impersonator", "cycletls"),
    _liar("got-scraping", "got-scraping", "node", "got-scraping"),
    Client("chromium", "chromium", "human", "browser", ("headed",), "123"),
    Client("firefox", "firefox", "human", "browser", ("headed",), "123"),
    Client("chromium-headless", "chromium", "automation", "browser", ("headless", "disguised"), "123"),
    Client("firefox-headless", "firefox", "automation", "browser", ("headless",), "123"),
    Client("playwright", "chromium", "automation", "playwright", ("playwright",), "12"),
    Client("patchright", "chromium", "automation", "playwright", ("patchright",), "12"),
    Client("selenium", "chromium", "automation", "selenium", ("selenium",), "12"),
)
