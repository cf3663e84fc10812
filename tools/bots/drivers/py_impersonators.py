# Clients that impersonate browsers, one process each, in their own virtual environments.
"""`python py_impersonators.py CLIENT BASE`: every target of the client against `BASE/c/CLIENT/TARGET/…`."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from py_clients import BODY, CA, HTTP, LIMIT, Plain, attempt, named

TARGETS = int(os.environ.get("EDGE_TARGETS", "60"))  # of a client; spread over all it has


class CurlCffi(Plain):
    def __init__(self, target):
        from curl_cffi import CurlHttpVersion, requests

        version = {"1": CurlHttpVersion.V1_1, "2": CurlHttpVersion.V2TLS, "3": CurlHttpVersion.V3ONLY}[HTTP]
        self.session = requests.Session(impersonate=target, verify=CA, http_version=version)

    def send(self, method, url, headers, body):
        self.session.request(method, url, headers=named(headers, body), data=body, timeout=LIMIT)

    def close(self):
        self.session.close()

    @staticmethod
    def list():
        from curl_cffi.requests import BrowserType

        return [one.value for one in BrowserType]


class Primp(Plain):
    def __init__(self, target):
        import primp

        name, _, system = target.partition("@")
        self.client = primp.Client(impersonate=name, impersonate_os=system, verify=False, timeout=LIMIT)

    def send(self, method, url, headers, body):
        self.client.request(method, url, headers=named(headers, body), content=body)

    @staticmethod
    def list():
        import primp

        # The names stand in its binary only; what it does not know it refuses.
        data = next(Path(primp.__file__).parent.glob("*.so")).read_bytes()
        known = [f"edge_{n}" for n in range(130, 160) if f"edge_{n}".encode() in data]
        tried = [f"chrome_{n}" for n in range(120, 160)] + known + [f"firefox_{n}" for n in range(130, 156)]
        tried += [f"safari_{n}" for n in ("17.0", "18", "18.5", "26", "26.1", "26.2", "26.3", "26.4")]
        tried += [f"opera_{n}" for n in range(116, 136)]
        systems = ("windows", "macos", "linux")
        return [f"{name}@{systems[at % 3] if 'safari' not in name else 'macos'}" for at, name in enumerate(tried)]


class Rust(Plain):
    """rnet and wreq: one library under two names and ages; they emulate by constants of a class."""

    module, enum, word, check = "", "", "", ""

    def __init__(self, target):
        library = importlib.import_module(self.module)
        chosen = getattr(self.kind(), target)
        more = {"http1_only": True} if HTTP == "1" else {}
        client = getattr(library, "BlockingClient", None) or importlib.import_module(f"{self.module}.blocking").Client
        self.client = client(**{self.word: chosen, self.check: False}, **more)

    @classmethod
    def kind(cls):
        library = importlib.import_module(cls.module)
        return getattr(library, cls.enum, None) or getattr(importlib.import_module(f"{cls.module}.emulation"), cls.enum)

    def send(self, method, url, headers, body):
        call = getattr(self.client, method.lower())
        call(url, headers=named(headers, body), **({"body": body} if body is not None else {}))

    @classmethod
    def list(cls):
        return [name for name in dir(cls.kind()) if name[0].isupper()]


class Rnet(Rust):
    module, enum, word, check = "rnet", "Impersonate", "impersonate", "verify"


class Wreq(Rust):
    module, enum, word, check = "wreq", "Emulation", "emulation", "tls_verify"


class TlsClient(Plain):
    def __init__(self, target):
        import tls_client

        self.session = tls_client.Session(client_identifier=target, random_tls_extension_order=target.startswith("chrome"))
        self.target = target

    def send(self, method, url, headers, body):
        made = named(headers, body)
        call = self.session.execute_request
        call(method, url, headers=made, data=body, insecure_skip_verify=True, timeout_seconds=int(LIMIT))

    @staticmethod
    def list():
        return [
            "chrome_103", "chrome_110", "chrome_112", "chrome_117", "chrome_120", "chrome_124", "chrome_131", "chrome_133",
            "firefox_102", "firefox_110", "firefox_117", "firefox_120", "firefox_133", "opera_90", "safari_15_6_1",
            "safari_16_0", "safari_ios_16_0", "safari_ios_17_0", "safari_ios_18_0", "okhttp4_android_13",
        ]  # fmt: skip


class Impit(Plain):
    def __init__(self, target):
        import impit

        self.client = impit.Client(browser=target, verify=False, http3=HTTP == "3", timeout=LIMIT)

    def send(self, method, url, headers, body):
        more = {"force_http3": True} if HTTP == "3" else {}
        self.client.request(method, url, headers=named(headers, body), content=body, **more)

    @staticmethod
    def list():
        import typing

        import impit

        return list(typing.get_args(impit.Browser))


class Gakido(Plain):
    def __init__(self, target):
        import gakido

        self.client = gakido.Client(impersonate=target, verify=False, force_http1=HTTP == "1")

    def send(self, method, url, headers, body):
        self.client.request(method, url, headers=named(headers, body), data=body)

    @staticmethod
    def list():
        from gakido.impersonation.profiles import PROFILES

        return list(PROFILES)


class Curlpro(Plain):
    def __init__(self, target):
        import curlpro

        self.session = curlpro.Session(target, verify=False, timeout=LIMIT, force_http1=HTTP == "1", http3=HTTP == "3")

    def send(self, method, url, headers, body):
        self.session.request(method, url, headers=named(headers, body), data=body)

    @staticmethod
    def list():
        import curlpro

        curlpro.ensure_loaded()
        return curlpro.list_profiles()


class Geektls(Plain):
    def __init__(self, target):
        import geektls

        self.session = geektls.Session(impersonate=target, verify=False, timeout=LIMIT)

    def send(self, method, url, headers, body):
        self.session.request(method, url, headers=named(headers, body), data=body)

    @staticmethod
    def list():
        import geektls

        data = (Path(geektls.__file__).parent / "libgeektls.so").read_bytes()
        found = re.findall(rb"(?<![a-z0-9_])(?:chrome|firefox|safari|edge)_[0-9]{2,3}_(?:windows|macos|android|ios|linux)", data)
        return sorted({name.decode() for name in found})


class Cycletls(Plain):
    def __init__(self, target):
        import cycletls

        self.client = cycletls.CycleTLS()
        self.target = target

    def send(self, method, url, headers, body):
        more = {"data": body.decode()} if body is not None else {}
        self.client.request(
            method, url, headers=named(headers, body), fingerprint=self.target, insecure_skip_verify=True,
            force_http1=HTTP == "1", **more,
        )  # fmt: skip

    def close(self):
        self.client.close()

    @staticmethod
    def list():
        from cycletls.fingerprints import FingerprintRegistry

        return FingerprintRegistry.list()


CLIENTS = {
    "curl_cffi": (CurlCffi, "curl-cffi"),
    "primp": (Primp, "primp"),
    "rnet": (Rnet, "rnet"),
    "wreq": (Wreq, "wreq"),
    "tls-client": (TlsClient, "tls-client"),
    "impit": (Impit, "impit"),
    "gakido": (Gakido, "gakido"),
    "curlpro": (Curlpro, "curlpro"),
    "geektls": (Geektls, "geektls"),
    "cycletls": (Cycletls, "cycletls"),
}


def impersonator(kind, url):
    """Every target: a page, JSON, a message, the same message with a fetch's headers."""
    fetch = {
        "accept": "*/*", "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty",
        "referer": "https://edge.test/", "origin": "https://edge.test",
    }  # fmt: skip
    names = kind.list()
    step = max(1, -(-len(names) // TARGETS))
    for target in names[::step]:
        try:
            client = kind(target)
        except Exception as e:
            print(f"{target}: {type(e).__name__}: {str(e)[:160]}", file=sys.stderr)
            continue
        attempt(client, "GET", f"{url}/{target}/page", None, None)
        attempt(client, "GET", f"{url}/{target}/json", [("accept", "application/json")], None)
        attempt(client, "POST", f"{url}/{target}/json", None, BODY)
        attempt(client, "POST", f"{url}/{target}/json", list(fetch.items()), BODY)
        client.close()


def main() -> None:
    name, base = sys.argv[1:3]
    kind, package = CLIENTS[name]
    print(importlib.metadata.version(package), flush=True)
    impersonator(kind, f"{base}/c/{name}")
    sys.stdout.flush()
    os._exit(0)  # some of them leave threads of another language behind


if __name__ == "__main__":
    main()
