"""edgeproxy beside its peers in one run; see bench/README.md. Not part of the installed package."""
