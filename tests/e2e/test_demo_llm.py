# `edgeproxy demo --llm`: a real model behind the edge, asked by curl and by the official SDK. Needs the extra `llm` and the
# package of the model; without them the tests are skipped and say so.
from __future__ import annotations

import json
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import openai
import pytest
from running import Process, free_ports, until

from edgeproxy.demo import llm


def missing() -> str:
    try:
        llm.find()
    except llm.LlmMissing as e:
        return str(e)
    return ""


pytestmark = pytest.mark.skipif(bool(missing()), reason=missing().partition("\n")[0])
QUESTION = [{"role": "user", "content": "Say hello in one short sentence."}]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The demo's address and its CA."""
    folder = tmp_path_factory.mktemp("demo")
    (port,) = free_ports(1)
    process = Process([sys.executable, "-m", "edgeproxy", "demo", "--llm", "--port", str(port)], folder / "said", folder)
    try:
        until(lambda: process.popen.poll() is not None or "Ctrl-C ends everything." in process.said(), 60)
        assert process.popen.poll() is None, process.said()
        yield f"https://localhost:{port}", folder / "certs" / "ca.pem"
    finally:
        process.stop()
        sys.stderr.write(process.said())


def test_curl(demo: tuple[str, Path]) -> None:
    base, ca = demo
    body = json.dumps({"model": llm.NAME, "messages": QUESTION, "stream": True, "max_tokens": 24})
    command = ["curl", "-sSN", "--noproxy", "*", "--http2", "--cacert", str(ca), f"{base}/v1/chat/completions"]
    command += ["-H", "content-type: application/json", "-d", body]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    events = re.findall(rb"^data: (.*)$", done.stdout, re.MULTILINE)
    assert len(events) > 4, done.stdout
    assert events[-1] == b"[DONE]"


def test_the_official_sdk(demo: tuple[str, Path]) -> None:
    base, ca = demo
    context = ssl.create_default_context(cafile=str(ca))
    with httpx2.Client(verify=context, trust_env=False) as http, openai.OpenAI(
        base_url=f"{base}/v1", api_key="none", http_client=http
    ) as client:
        whole = client.chat.completions.create(model=llm.NAME, messages=QUESTION, max_tokens=24)  # type: ignore[arg-type]
        assert whole.choices[0].message.content
        stream = client.chat.completions.create(model=llm.NAME, messages=QUESTION, max_tokens=24, stream=True)  # type: ignore[call-overload]
        parts = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
        assert len(parts) > 2 and "".join(parts).strip()
