# Keys of the edge in Redis: one hash with one document, read and replaced as a whole. What it says is config/'s matter.
"""`Shelf`: `read` and `write`. By redis-py, which blocks: for the command line and for a process of its own, never for a worker.

HGETALL edge:keys   version: random, another one with each change;   keys: JSON of what a file of keys says (docs/keys.md)
"""

from __future__ import annotations

import secrets
from typing import Any, Final, NamedTuple

from redis import Redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import RedisClusterException, RedisError
from redis.exceptions import TimeoutError as TooLate
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from edgeproxy.config.document import MAX_BYTES
from edgeproxy.state.redis_url import Place, parse

NAME: Final = b"edge:keys"
TIMEOUT: Final = 1.0  # seconds for a connection, and for an answer
_MAX_VERSION: Final = 64
_SAID: Final = 200  # characters of a library's or server's words that are passed on
# A cluster of which no node can be reached is none of redis-py's RedisErrors; a name that cannot be one is no OSError.
_ERRORS: Final = (RedisError, RedisClusterException, OSError, UnicodeError)

# Whoever was quicker wins, and is not overwritten.
_WRITE: Final = """
local held = redis.call('HGET', KEYS[1], 'version')
if (held or '') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'keys', ARGV[3])
return 1
"""


class Unreachable(Exception):
    """Redis cannot be asked, or does not do what it is asked for; the text says why, and holds no secret."""


class Held(NamedTuple):
    """What is there; both empty where nothing is."""

    version: bytes
    text: bytes


class Shelf:
    """The place of the keys. Connects when it is asked for something.

    Attributes:
        name: for people; without the URL, in which there may be a password.
    """

    __slots__ = ("_client", "_place", "_primary", "_sentinel", "name")

    def __init__(self, url: str) -> None:
        """Raises: ValueError (the URL)."""
        self._place = parse(url)
        self._client: Any = None  # Redis or RedisCluster
        self._sentinel: Any = None
        self._primary: tuple[str, int] | None = None
        self.name = "Redis"

    def read(self, known: bytes = b"") -> Held | None:
        """What is there now.

        Args:
            known: a version; None is returned if it is still that one.

        Raises: Unreachable.
        """
        try:
            client = self._connected()
            version = client.hget(NAME, b"version") or b""
            if known and version == known:
                return None
            if int(client.hstrlen(NAME, b"keys")) > MAX_BYTES:
                raise Unreachable(f"the keys in {self.name} are larger than {MAX_BYTES >> 20} MiB")
            version, text = (each or b"" for each in client.hmget(NAME, [b"version", b"keys"]))  # as of one moment
        except _ERRORS as error:
            raise self._lost(error) from error
        if len(version) > _MAX_VERSION or bool(version) != bool(text):
            raise Unreachable(f"what {self.name} has under {NAME.decode()} was not written by 'edgeproxy keys'")
        return Held(version, text)

    def write(self, text: bytes, before: bytes) -> bool:
        """Put a document in the place of another.

        Args:
            before: version of what it was made of; b"" where there was nothing.

        Returns: False if that is not what is there any more; then nothing has changed. Raises: Unreachable.
        """
        if len(text) > MAX_BYTES:
            raise Unreachable(f"there is no room for another key: all of them together have at most {MAX_BYTES >> 20} MiB")
        version = secrets.token_hex(8).encode("ascii")
        try:
            client = self._connected()
            if client.eval(_WRITE, 1, NAME, before, version, text):
                return True
            # It may have been done, and the answer lost, and then asked for once more.
            return bool(client.hget(NAME, b"version") == version)
        except _ERRORS as error:
            raise self._lost(error) from error

    def close(self) -> None:
        """The connections; it can be asked again."""
        client, self._client, self._primary = self._client, None, None
        if client is not None:
            client.close()

    def _connected(self) -> Any:
        place = self._place
        if place.kind == "cluster":
            if self._client is None:
                nodes = [ClusterNode(host, port) for host, port in place.addresses]  # type: ignore[no-untyped-call]  # redis-py's
                # Asking again after moving is the client's business, waiting is not.
                self._client = RedisCluster(startup_nodes=nodes, retry=Retry(NoBackoff(), 3), **_options(place))
        elif place.kind == "sentinel":
            if self._sentinel is None:
                # redis-py would try each three times, and wait up to ten seconds in between.
                keeper = {**_options(place), **_login(place.sentinel_login), "retry": Retry(NoBackoff(), 0)}
                asked = list(place.addresses)
                self._sentinel = Sentinel(asked, sentinel_kwargs=keeper)  # type: ignore[no-untyped-call]  # redis-py's
            # Each time: one that was the primary and does not know yet that it is none has old keys.
            primary = self._sentinel.discover_master(place.name)
            if primary != self._primary:
                self.close()
                self._client, self._primary = _single(place, primary), primary
        elif self._client is None:
            self._client = _single(place, place.addresses[0])
        return self._client

    def _lost(self, error: Exception) -> Unreachable:
        self.close()
        if isinstance(error, TooLate):
            return Unreachable(f"{self.name} does not answer within {TIMEOUT:g} s")
        if isinstance(error, MasterNotFoundError):  # it shows all of its connections' settings
            return Unreachable(f"{self.name} cannot be reached: no sentinel answers and knows a primary '{self._place.name}'")
        there = isinstance(error, RedisError) and not isinstance(error, NotConnected)
        return Unreachable(f"{self.name} {'refuses' if there else 'cannot be reached'}: {str(error)[:_SAID]}")


def _single(place: Place, address: tuple[str, int]) -> Redis:
    host, port = address
    where: dict[str, Any] = {"host": host, "port": port} if port else {"unix_socket_path": host}
    # Once more on a new connection: one that was kept may have died meanwhile.
    return Redis(db=place.db, retry=Retry(NoBackoff(), 1), **where, **_options(place))


def _login(login: Any) -> dict[str, Any]:
    return {"username": login.user or None, "password": login.password or None}


def _options(place: Place) -> dict[str, Any]:
    """What all connections have. No names of libraries: a user needs no right to CLIENT. RESP3, because its HELLO, which needs
    no right, reads what TLS 1.3 says after the handshake; redis-py takes that for an answer nobody asked for, and hangs up."""
    ca, cert, key = place.files
    secure = {"ssl": True, "ssl_ca_certs": ca or None, "ssl_certfile": cert or None, "ssl_keyfile": key or None}
    return {
        "socket_timeout": TIMEOUT,
        "socket_connect_timeout": TIMEOUT,
        "protocol": 3,
        "driver_info": None,
        **_login(place.login),
        **(secure if place.tls else {}),
    }
