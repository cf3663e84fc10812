# The first code that runs. OpenSSL reads its configuration once, when it is first loaded; so the variable that names
# the file is set here, before anything can have imported ssl or hashlib.
"""``python -m edgeproxy`` and the ``edgeproxy`` command."""

import gc
import os
import sys
from pathlib import Path


def main() -> None:
    """Runs the command line; ends the process with its exit code."""
    before = {"ssl", "hashlib", "_ssl", "_hashlib"} & sys.modules.keys()
    if "OPENSSL_CONF" not in os.environ and not before:
        # Found by path: importlib.resources would cost 20 ms and import hashlib.
        os.environ["OPENSSL_CONF"] = str(Path(__file__).resolve().parent / "listen" / "openssl.cnf")
    # Looking for pydantic plugins reads the metadata of every installed package: 30 ms.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # Imports make only what lives on: the collector would walk over it again and again. A server turns it on again.
    gc.disable()
    from edgeproxy.cli import app

    app()


if __name__ == "__main__":
    main()
