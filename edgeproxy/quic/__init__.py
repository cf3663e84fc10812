# QUIC (RFC 9000, 9001, 9002) on the server's side. Nothing here knows HTTP, the gateway or a process.
