# How a client comes to be installed and what is run for it: folders, environments and argv. Nothing is decided about data here.
"""`prepare`: a client's own environment in the cache. `commands`: what to run against one edge."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tools.bots.clients import Client
from tools.bots.drivers.lies import ROBOTS, lies

HERE = Path(__file__).parent
INSTALLING = 300.0  # seconds that an installation may take
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
_BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]})


class Missing(Exception):
    """This machine cannot have the client; says why."""


class Command(NamedTuple):
    """Attributes: argv, working folder, environment beside ours, seconds, path whose request means that it is done."""

    argv: list[str]
    folder: Path
    environment: dict[str, str]
    seconds: float
    done: str = ""


def prepare(client: Client, cache: Path) -> Path:
    """The folder of a client; made and filled at the first call.

    Raises: Missing.
    """
    folder = cache / client.name
    if (folder / ".ready").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    if client.way in {"python", "impersonator", "playwright", "selenium"}:
        _run([sys.executable, "-m", "venv", str(folder)])
        if client.start:
            _run([str(folder / "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", *client.start])
    elif client.way == "node":
        if shutil.which("node") is None:
            raise Missing("no node here")
        if client.start:
            (folder / "package.json").write_text("{}")
            _run(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), *client.start])
    elif client.way in {"plan", "command"} and shutil.which(client.start[0]) is None:
        raise Missing(f"no {client.start[0]} here")
    (folder / ".ready").touch()
    return folder


def _run(argv: list[str]) -> None:
    try:
        subprocess.run(argv, check=True, timeout=INSTALLING, capture_output=True)
    except (OSError, subprocess.SubprocessError) as e:
        raise Missing(f"{argv[0]}: {str(getattr(e, 'stderr', b'') or e)[-300:]}") from e


def commands(client: Client, folder: Path, highest: str, port: int, ca: Path) -> Iterator[Command]:
    """What to run, one after the other, so that the edge at `port` sees everything the client does.

    Raises: Missing.
    """
    base = f"https://localhost:{port}"
    given = {
        "EDGE_CA": str(ca), "EDGE_HTTP": highest, "EDGE_PORT": str(port), "SSL_CERT_FILE": str(ca), "REQUESTS_CA_BUNDLE": str(ca),
        "CURL_CA_BUNDLE": str(ca), "NODE_EXTRA_CA_CERTS": str(ca), "NODE_TLS_REJECT_UNAUTHORIZED": "0", "NODE_NO_WARNINGS": "1",
        "PYTHONDONTWRITEBYTECODE": "1", "GOCACHE": str(folder / "go"), "HTTP_PROXY": "", "HTTPS_PROXY": "",
        "http_proxy": "", "https_proxy": "",
    }  # fmt: skip
    python = str(folder / "bin/python")
    if client.way in {"python", "impersonator"}:
        driver = "py_clients.py" if client.way == "python" else "py_impersonators.py"
        yield Command([python, str(HERE / "drivers" / driver), client.name, base], folder, given, 240.0)
    elif client.way in {"playwright", "selenium"}:
        argv = [python, str(HERE / "drivers/py_automation.py"), client.name, base, chromium()]
        yield Command(headed(argv), folder, given, 150.0)
    elif client.way == "node":
        plan = folder / "plan.json"
        plan.write_text(json.dumps(steps()))
        yield Command(["node", str(HERE / "drivers/node_clients.mjs"), client.name, base, str(plan)], folder, given, 240.0)
    elif client.way == "plan":
        plan = folder / "plan.tsv"
        plan.write_text("".join(_tabs(step) for step in steps() if step["variant"] != "fetching"))
        argv = [str(HERE / word) if word.startswith("drivers/") else word for word in client.start]
        yield Command([*argv, base, str(plan)], folder, given, 240.0)
    elif client.way == "command":
        for step in steps():
            if step["method"] == "GET" and step["variant"] != "fetching":
                yield Command(
                    _options(client, f"{base}/c/{client.name}/{step['variant']}/{step['path']}", highest, step),
                    folder,
                    given,
                    15.0,
                )
    else:
        yield from _browser(client, folder, highest, port, ca, given)


def steps() -> list[dict[str, Any]]:
    """What every client without a driver of its own is asked to do: its own headers, a browser's name, a browser's headers,
    robots."""
    made: list[dict[str, Any]] = [
        {"variant": "plain", "method": "GET", "path": "page", "headers": None, "body": None},
        {"variant": "plain", "method": "GET", "path": "json", "headers": [("accept", "application/json")], "body": None},
        {"variant": "plain", "method": "POST", "path": "json", "headers": [("content-type", "application/json")], "body": _BODY},
    ]
    for name, sets in lies().items():
        agent = [pair for pair in sets["navigate"] if pair[0] == "user-agent"]
        sent = [*sets["fetch"], ("content-type", "application/json")]
        made += [
            {"variant": f"agent-{name}", "method": "GET", "path": "page", "headers": agent, "body": None},
            {"variant": f"headers-{name}", "method": "GET", "path": "page", "headers": sets["navigate"], "body": None},
            {"variant": f"headers-{name}", "method": "POST", "path": "json", "headers": sent, "body": _BODY},
        ]
    for at, agent_ in enumerate(ROBOTS):
        headers = [("user-agent", agent_)]
        made.append({"variant": f"robot-{at}", "method": "GET", "path": "page", "headers": headers, "body": None})
    fetching = [(n, v) for n, v in lies()["chrome-156"]["fetch"] if n.startswith("sec-fetch") or n in {"accept", "referer"}]
    made.append({"variant": "fetching", "method": "POST", "path": "json", "headers": fetching, "body": _BODY})
    return made


def _tabs(step: dict[str, Any]) -> str:
    words = [step["variant"], step["method"], step["path"], step["body"] or ""]
    words += [word for pair in step["headers"] or () for word in pair]
    return "\t".join(words) + "\n"


def _options(client: Client, url: str, highest: str, step: dict[str, Any]) -> list[str]:
    argv = [word.replace("{url}", url).replace("{tmp}", tempfile.gettempdir()) for word in client.start]
    flag = {"curl": "-H", "wget": "--header", "aria2": "--header", "nghttp": "-H", "h2load": "-H"}.get(client.name)
    lines = [f"{name}: {value}" for name, value in step["headers"] or ()]
    if client.name in {"lynx", "w3m"}:
        argv[1:1] = [
            f"-useragent={value}" for name, value in step["headers"] or () if name == "user-agent" and client.name == "lynx"
        ]
    elif flag is not None:
        argv[1:1] = (
            [f"--header={line}" for line in lines] if flag == "--header" else [word for line in lines for word in (flag, line)]
        )
    if client.name == "curl":
        argv[1:1] = ["--http2" if highest != "1" else "--http1.1"]
    return argv


# -- browsers ---------------------------------------------------------------------------------------------------------


def chromium() -> str:
    for name in _CHROMIUM:
        if (found := shutil.which(name)) is not None:
            return found
    raise Missing("no Chromium here")


def headed(argv: list[str]) -> list[str]:
    """With a screen of its own."""
    if shutil.which("xvfb-run") is None:
        raise Missing("no xvfb here")
    return ["xvfb-run", "-a", "-s", "-screen 0 1280x900x24", *argv]


def _browser(client: Client, folder: Path, highest: str, port: int, ca: Path, given: dict[str, str]) -> Iterator[Command]:
    for variant in client.start:
        done = f"/c/{client.name}/{variant}/done"
        url = f"https://localhost:{port}/c/{client.name}/{variant}/page"
        profile = Path(tempfile.mkdtemp(prefix="profile-", dir=folder))
        if client.group == "chromium":
            argv = _chromium_argv(variant, profile, highest, port, url, _key(ca.parent / "edge.pem"))
        else:
            argv = _firefox_argv(profile, highest, port, ca, url, variant)
        home = {**given, "HOME": str(profile)}
        yield Command(argv if "headless" in client.name else headed(argv), folder, home, 60.0, done)


def _key(certificate: Path) -> str:
    """What Chromium trusts in QUIC too: SHA-256 of the public key."""
    public = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    return base64.b64encode(
        hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    ).decode()


def _chromium_argv(variant: str, profile: Path, highest: str, port: int, url: str, key: str) -> list[str]:
    argv = [
        chromium(), "--no-sandbox", "--no-first-run", "--disable-background-networking", "--disable-component-update",
        f"--ignore-certificate-errors-spki-list={key}", f"--user-data-dir={profile}",
    ]  # fmt: skip
    if highest == "3":
        # Of two addresses QUIC tries one.
        argv += [f"--origin-to-force-quic-on=localhost:{port}", "--enable-quic", "--host-resolver-rules=MAP localhost 127.0.0.1"]
    if variant != "headed":
        argv.append("--headless=new")
    if variant == "disguised":
        argv.append(
            "--user-agent=Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"
        )
    return [*argv, url]


def _firefox_argv(profile: Path, highest: str, port: int, ca: Path, url: str, variant: str) -> list[str]:
    found = shutil.which("firefox-esr") or shutil.which("firefox")
    if found is None or shutil.which("certutil") is None:
        raise Missing("no Firefox, or no certutil, here")
    _run(["certutil", "-N", "--empty-password", "-d", f"sql:{profile}"])
    _run(["certutil", "-A", "-n", "edge", "-t", "C,,", "-i", str(ca), "-d", f"sql:{profile}"])
    settings: dict[str, str] = {
        "browser.shell.checkDefaultBrowser": "false",
        "datareporting.policy.dataSubmissionEnabled": "false",
        "browser.aboutwelcome.enabled": "false",
        "network.dns.disableIPv6": "true",
    }
    if highest == "3":
        settings["network.http.http3.alt-svc-mapping-for-testing"] = f'"localhost;h3=:{port}"'
        settings["network.http.http3.enable"] = "true"
        settings["network.http.http3.disable_when_third_party_roots_found"] = "false"
    (profile / "user.js").write_text("".join(f'user_pref("{name}", {value});\n' for name, value in settings.items()))
    head = ["--headless"] if variant == "headless" else []
    return [found, *head, "--no-remote", "--profile", str(profile), url]


def environment(more: dict[str, str]) -> dict[str, str]:
    """Ours with what a client needs."""
    return {**os.environ, **more}
