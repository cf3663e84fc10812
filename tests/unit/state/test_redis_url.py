# What a store's URL may say, and that nothing repeats its password.
from __future__ import annotations

import pytest

from edgeproxy.state.redis_url import Login, Place, label, parse


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://cache", Place("single", (("cache", 6379),))),
        ("redis://cache:7000/3", Place("single", (("cache", 7000),), db=3)),
        ("rediss://[::1]:7000/", Place("single", (("::1", 7000),), tls=True)),
        ("redis://edge:p%40ss%2Fword@cache", Place("single", (("cache", 6379),), Login("edge", "p@ss/word"))),
        ("redis://:only@cache", Place("single", (("cache", 6379),), Login("", "only"))),
        ("redis://edge:p@ss/word@cache", Place("single", (("cache", 6379),), Login("edge", "p@ss/word"))),
        ("unix:///run/redis.sock?db=2", Place("single", (("/run/redis.sock", 0),), db=2)),
        ("unix://edge:pw@/run/redis.sock", Place("single", (("/run/redis.sock", 0),), Login("edge", "pw"))),
        (
            "redis+sentinel://u:p@a,b:5000/mymaster/1?sentinel_user=s&sentinel_password=t",
            Place("sentinel", (("a", 26379), ("b", 5000)), Login("u", "p"), Login("s", "t"), "mymaster", 1),
        ),
        ("redis+cluster://a:7000,b:7001", Place("cluster", (("a", 7000), ("b", 7001)))),
        (
            "rediss+cluster://a?ca=/etc/ca.pem&cert=/etc/c.pem&key=/etc/k.pem",
            Place("cluster", (("a", 6379),), tls=True, files=("/etc/ca.pem", "/etc/c.pem", "/etc/k.pem")),
        ),
    ],
)
def test_what_is_understood(url: str, place: Place) -> None:
    assert parse(url) == place


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://cache", "begins with"),
        ("redis:cache", "begins with"),
        ("redisstuff://cache", "begins with"),
        ("redis://", "no host"),
        ("redis://a,b", "several"),
        ("redis://cache:seven", "port"),
        ("redis://cache:70000", "65535"),
        ("redis://cache/three", "database"),
        ("redis://cache/1/2", "not understood"),
        ("redis://cache?timeout=3", "'timeout'"),
        ("unix://relative.sock", "path"),
        ("redis+sentinel://a,b", "NAME"),
        ("redis+cluster://a/1", "only database 0"),
        ("redis://[::1", "brackets"),
        ("redis://[::1]7000", "brackets"),
    ],
)
def test_what_is_refused(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse(url.replace("://", "://someone:hunter2@", 1) if url == "redis://cache:seven" else url)


@pytest.mark.parametrize("url", ["redis://u:hunter2@cache", "redis+sentinel://a/m?sentinel_password=hunter2"])
def test_a_password_is_not_shown(url: str) -> None:
    place = parse(url)
    assert "hunter2" not in f"{place!r} {place} {place.login!r} {place.sentinel_login}"


@pytest.mark.parametrize("url", ["redis://u:hunter2@cache:port", "redis://u:hunter2@cache/x", "redi://u:hunter2@cache"])
def test_no_error_quotes_the_url(url: str) -> None:
    with pytest.raises(ValueError, match=r"store|port|database") as error:
        parse(url)
    assert "hunter2" not in str(error.value)


def test_addresses_as_people_write_them() -> None:
    assert [label(a) for a in (("h", 1), ("::1", 2), ("/run/s", 0))] == ["h:1", "[::1]:2", "/run/s"]


def test_a_file_for_tls_that_is_not_there() -> None:
    with pytest.raises(OSError, match="No such file"):
        parse("rediss://a?ca=/nowhere/ca.pem").context()
    assert parse("redis://a").context() is None
