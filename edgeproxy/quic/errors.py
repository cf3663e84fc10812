# Transport error codes (RFC 9000 §20.1), and the one exception that ends a connection because of them.
"""What a peer did wrong, as the wire names it."""

from __future__ import annotations

NO_ERROR = 0x00
INTERNAL_ERROR = 0x01
CONNECTION_REFUSED = 0x02
FLOW_CONTROL_ERROR = 0x03
STREAM_LIMIT_ERROR = 0x04
STREAM_STATE_ERROR = 0x05
FINAL_SIZE_ERROR = 0x06
FRAME_ENCODING_ERROR = 0x07
TRANSPORT_PARAMETER_ERROR = 0x08
CONNECTION_ID_LIMIT_ERROR = 0x09
PROTOCOL_VIOLATION = 0x0A
INVALID_TOKEN = 0x0B
CRYPTO_BUFFER_EXCEEDED = 0x0D
KEY_UPDATE_ERROR = 0x0E
AEAD_LIMIT_REACHED = 0x0F
UNEXPECTED_MESSAGE = 0x010A  # CRYPTO_ERROR with TLS alert 10


class TransportError(Exception):
    """The peer broke a rule of the transport: the connection ends with CONNECTION_CLOSE.

    Attributes:
        code: see above.
        frame: type of the frame that did it, 0 when it is not one frame's fault.
    """

    def __init__(self, code: int, reason: str, frame: int = 0) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.frame = frame
