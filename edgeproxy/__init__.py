"""edgeproxy: an edge for chat. TLS, HTTP/2 and HTTP/1.1 in, HTTP/1.1 to the backends, streams all the way."""

__version__ = "0.1.0"
