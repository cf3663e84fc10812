# One process per Python client, in its own virtual environment: this file may import nothing but the client and lies.py.
"""`python py_clients.py CLIENT BASE`: plays the client's variants against `BASE/c/CLIENT/VARIANT/…`."""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from lies import ROBOTS, lies

CA = os.environ.get("EDGE_CA", "")
HTTP = os.environ.get("EDGE_HTTP", "1")  # 1, 2 or 3: what the edge before us speaks at most
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": False}).encode()
LIMIT = 20.0  # seconds a request may take


class Plain:
    """A client without impersonation: `send` makes a connection of its own and asks once."""

    targets = ("",)

    def __init__(self, target: str) -> None:
        self.target = target

    def send(self, method: str, url: str, headers: list | None, body: bytes | None) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass


def named(headers: list | None, body: bytes | None) -> dict | None:
    """As a mapping, with a content type when there is a body."""
    made = dict(headers) if headers is not None else {}
    if body is not None:
        made.setdefault("content-type", "application/json")
    return made or None


class Urllib(Plain):
    def send(self, method, url, headers, body):
        import ssl
        import urllib.request

        asked = urllib.request.Request(url, data=body, headers=named(headers, body) or {}, method=method)
        with urllib.request.urlopen(asked, timeout=LIMIT, context=ssl.create_default_context(cafile=CA)) as answer:
            answer.read()


class Requests(Plain):
    module = "requests"

    def __init__(self, target):
        super().__init__(target)
        self.session = importlib.import_module(self.module).Session()

    def send(self, method, url, headers, body):
        self.session.request(method, url, headers=named(headers, body), data=body, verify=CA, timeout=LIMIT)

    def close(self):
        self.session.close()


class Cloudscraper(Requests):
    def __init__(self, target):
        import cloudscraper

        self.session = cloudscraper.create_scraper()


class Niquests(Requests):
    module = "niquests"

    def __init__(self, target):
        import niquests

        self.session = niquests.Session(disable_http3=HTTP != "3", disable_http2=HTTP == "1")
        if HTTP == "3":
            port = int(os.environ["EDGE_PORT"])
            self.session.quic_cache_layer.add_domain("localhost", port, port)


class Httpx(Plain):
    def __init__(self, target):
        import httpx

        self.client = httpx.Client(http2=HTTP != "1", verify=_context())

    def send(self, method, url, headers, body):
        self.client.request(method, url, headers=named(headers, body), content=body, timeout=LIMIT)

    def close(self):
        self.client.close()


def _context():
    import ssl

    return ssl.create_default_context(cafile=CA)


class Aiohttp(Plain):
    def send(self, method, url, headers, body):
        import aiohttp

        async def go():
            async with (
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=_context())) as session,
                session.request(method, url, headers=named(headers, body), data=body) as answer,
            ):
                await answer.read()

        asyncio.run(asyncio.wait_for(go(), LIMIT))


class Treq(Plain):
    def send(self, method, url, headers, body):
        import treq
        from twisted.internet import defer, reactor, ssl
        from twisted.internet.task import react
        from twisted.web.client import Agent, BrowserLikePolicyForHTTPS

        with open(CA) as text:
            trust = ssl.trustRootFromCertificates([ssl.Certificate.loadPEM(text.read())])

        @defer.inlineCallbacks
        def go(_reactor):
            client = treq.client.HTTPClient(Agent(reactor, BrowserLikePolicyForHTTPS(trust)))
            answer = yield client.request(method, url, headers=named(headers, body), data=body)
            yield answer.content()

        # A reactor runs once in a process.
        if os.fork() == 0:
            try:
                react(go, [])
            finally:
                os._exit(0)
        os.wait()


class Httplib2(Plain):
    def send(self, method, url, headers, body):
        import httplib2

        httplib2.Http(ca_certs=CA, timeout=LIMIT).request(url, method, body=body, headers=named(headers, body) or {})


class Tornado(Plain):
    def send(self, method, url, headers, body):
        from tornado.httpclient import HTTPClient, HTTPRequest

        asked = HTTPRequest(url, method=method, headers=named(headers, body), body=body, ca_certs=CA, request_timeout=LIMIT)
        HTTPClient().fetch(asked, raise_error=False)


class Pycurl(Plain):
    def send(self, method, url, headers, body):
        import pycurl

        one = pycurl.Curl()
        one.setopt(pycurl.URL, url)
        one.setopt(pycurl.CAINFO, CA)
        one.setopt(pycurl.WRITEFUNCTION, len)
        one.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS if HTTP != "1" else pycurl.CURL_HTTP_VERSION_1_1)
        one.setopt(pycurl.TIMEOUT, int(LIMIT))
        lines = [f"{name}: {value}" for name, value in (named(headers, body) or {}).items()]
        one.setopt(pycurl.HTTPHEADER, lines)
        if body is not None:
            one.setopt(pycurl.POSTFIELDS, body)
        one.perform()
        one.close()


class Sdk(Plain):
    """The official SDKs: they speak to `/v1/…` only, and never lie."""

    honest = True

    def send(self, method, url, headers, body):
        del headers
        library = importlib.import_module(self.module)
        client = library.DefaultHttpxClient(verify=_context())
        if self.module == "openai":
            sdk = library.OpenAI(api_key="sk-x", base_url=url, http_client=client, max_retries=0)
            if body is None:
                sdk.models.list()
            else:
                sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
        else:
            sdk = library.Anthropic(api_key="sk-x", base_url=url, http_client=client, max_retries=0)
            if body is None:
                sdk.models.list()
            else:
                sdk.messages.create(model="m", max_tokens=8, messages=[{"role": "user", "content": "hi"}])


class Openai(Sdk):
    module = "openai"


class Anthropic(Sdk):
    module = "anthropic"


CLIENTS = {
    "urllib": (Urllib, None),
    "requests": (Requests, "requests"),
    "cloudscraper": (Cloudscraper, "cloudscraper"),
    "niquests": (Niquests, "niquests"),
    "httpx": (Httpx, "httpx"),
    "aiohttp": (Aiohttp, "aiohttp"),
    "treq": (Treq, "treq"),
    "httplib2": (Httplib2, "httplib2"),
    "tornado": (Tornado, "tornado"),
    "pycurl": (Pycurl, "pycurl"),
    "openai": (Openai, "openai"),
    "anthropic": (Anthropic, "anthropic"),
}


def attempt(client, method, url, headers, body):
    """One request. What goes wrong is said and passed over: the edge records what it saw."""
    try:
        client.send(method, url, headers, body)
    except Exception as e:
        print(f"{url}: {type(e).__name__}: {str(e)[:160]}", file=sys.stderr)


def honest(kind, url):
    """Its own headers: a page, JSON, a message; twice on one connection."""
    client = kind("")
    attempt(client, "GET", f"{url}/plain/page", None, None)
    attempt(client, "GET", f"{url}/plain/json", [("accept", "application/json")], None)
    attempt(client, "POST", f"{url}/plain/json", None, BODY)
    client.close()


def liars(kind, url):
    """The same client with a browser's name, with all of a browser's headers, and with a robot's name."""
    for name, sets in lies().items():
        client = kind("")
        agent = [pair for pair in sets["navigate"] if pair[0] == "user-agent"]
        attempt(client, "GET", f"{url}/agent-{name}/page", agent, None)
        attempt(client, "GET", f"{url}/headers-{name}/page", sets["navigate"], None)
        attempt(client, "POST", f"{url}/headers-{name}/json", sets["fetch"], BODY)
        client.close()
    for at, agent in enumerate(ROBOTS):
        client = kind("")
        attempt(client, "GET", f"{url}/robot-{at}/page", [("user-agent", agent)], None)
        client.close()


def main() -> None:
    name, base = sys.argv[1:3]
    kind, package = CLIENTS[name]
    print(importlib.metadata.version(package) if package else sys.version.split()[0], flush=True)
    url = f"{base}/c/{name}"
    honest(kind, url)
    if not getattr(kind, "honest", False):
        liars(kind, url)


if __name__ == "__main__":
    main()
