# llama.cpp's own server as a program: options in, a loopback port out. It is run by the demo alone.
"""`python -m edgeproxy.demo.llm_server --model FILE --port N`: xllamacpp's server until SIGTERM."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

CONTEXT = 8192  # tokens; what SmolLM2 was trained with
SLOTS = 2  # answers at a time


def main(arguments: Sequence[str]) -> int:
    """Serves OpenAI's, Anthropic's and the Responses dialect on 127.0.0.1."""
    parser = argparse.ArgumentParser(prog="edgeproxy.demo.llm_server")
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--alias", required=True)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    import xllamacpp  # type: ignore[import-not-found,unused-ignore]  # optional: the extra `llm`

    wanted = xllamacpp.CommonParams()
    wanted.model.path = options.model
    wanted.model_alias = {options.alias}
    wanted.hostnames = ["127.0.0.1"]
    wanted.port = options.port
    wanted.ui = False
    wanted.n_parallel = SLOTS
    wanted.n_ctx = CONTEXT * SLOTS
    wanted.cpuparams.n_threads = options.threads
    server = xllamacpp.Server(wanted)  # it serves from threads of its own for as long as it is referred to
    signal.pause()
    del server
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
