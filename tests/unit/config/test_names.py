from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.config import names
from edgeproxy.config.names import Address
from edgeproxy.config.problems import Invalid


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:8443", Address("0.0.0.0", 8443)),
        ("[::1]:8443", Address("::1", 8443)),
        ("[0:0:0:0:0:0:0:1]:8443", Address("::1", 8443)),
        ("LocalHost:0", Address("localhost", 0)),
        (":8443", Address(None, 8443)),
        ("unix:/run/edge.sock", Address(None, None, "/run/edge.sock")),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert names.address(text) == address
    assert names.address(str(address)) == address
    assert names.address(address) is address


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (8443, 'write ":8443" for all interfaces'),
        ("8443", 'write ":8443" for all interfaces'),
        ("8:30", 'all interfaces are written ":30"'),
        (":8000-8010", "each address on its own"),
        ("127.0.0.1:8000 - 8010", "each address on its own"),
        ("localhost", 'the port is missing: "localhost:8443"'),
        ("::1", 'written "[::1]:8443"'),
        ("fe80::1:2:8443", 'written "[fe80::1:2:8443]:8443"'),
        ("1:2:8443", 'brackets: "[1:2]:8443"'),
        ("[::1:8443", "brackets"),
        ("*:8443", 'written ":8443"'),
        ("https://a:8443", "without a scheme"),
        ("127.1:80", "no IPv4 address"),
        ("300.0.0.1:80", "no IPv4 address"),
        ("[zz]:80", "no IPv6 address"),
        ("a b:80", "neither an IP address nor a host name"),
        ("a:99999", "at most 65535"),
        ("/run/x", "unix:/run/x"),
        ("unix:run/x", "absolute"),
        ("unix:/" + "x" * 200, "at most 107 bytes"),
        ("", "0.0.0.0:8443"),
        (None, "0.0.0.0:8443"),
        (True, "0.0.0.0:8443"),
        (["a:1"], "0.0.0.0:8443"),
    ],
)
def test_a_wrong_address_says_what_is_right(value: object, hint: str) -> None:
    with pytest.raises(Invalid) as caught:
        names.address(value)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        (":80", "127.0.0.1:80", True),
        ("0.0.0.0:80", "127.0.0.1:80", True),
        ("[::]:80", "[::1]:80", True),
        ("[::]:80", "127.0.0.1:80", False),
        ("127.0.0.1:80", "127.0.0.2:80", False),
        (":80", ":81", False),
        (":0", ":0", False),
        ("unix:/a", "unix:/a", True),
        ("unix:/a", ":80", False),
    ],
)
def test_overlaps(one: str, other: str, overlap: bool) -> None:
    assert names.address(one).overlaps(names.address(other)) is overlap
    assert names.address(other).overlaps(names.address(one)) is overlap


@pytest.mark.parametrize("text", ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"])
def test_networks(text: str) -> None:
    assert str(names.network(text)) == text
    assert str(names.network("192.0.2.1")) == "192.0.2.1/32"


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("10.1.2.3/8", "'10.0.0.0/8' is the network, '10.1.2.3' the address"),
        ("ten", "like"),
        ("10.0.0.0/33", "like"),
        (10, "like"),
    ],
)
def test_a_wrong_network_says_what_is_right(value: object, hint: str) -> None:
    with pytest.raises(Invalid) as caught:
        names.network(value)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("https://API.example.org/", "https://api.example.org"),
        ("HTTPS://a", "https://a"),
        ("http://[::1]:80", "http://[::1]:80"),
        ("http://10.0.0.1", "http://10.0.0.1"),
    ],
)
def test_target_urls(url: str, kept: str) -> None:
    assert names.target_url(url) == kept


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("127.0.0.1:9000", "is not the URL"),
        ("ftp://a", "is not the URL"),
        ("http:a", "is not the URL"),
        ("http://", "has no host"),
        ("http://a/v1", "has a path"),
        ("http://a?x", "has a path or a query"),
        ("http://a#", "has a path or a query"),
        ("http://user:pw@a", "no user name or password"),
        ("http://a:0", "no usable port"),
        ("http://a:", "no usable port"),
        ("http://a:99999", "is not a URL"),
        ("http://a b", "is not a URL"),
        ("http://a_b!", "no valid host"),
        ("http://[::1", "is not a URL"),
        ("http://169.254.169.254", "is link-local"),
        ("http://[fe80::1]", "is link-local"),
        ("http://[fe80::1%25eth0]", "is link-local"),
        ("http://[::ffff:169.254.169.254]", "is link-local"),
        ("http://2852039166", "no valid IP address"),
        ("http://0xa9fea9fe", "no valid IP address"),
        ("http://169.254.43518", "no valid IP address"),
        ("http://0251.254.169.254", "no valid IP address"),
        ("http://1.2.3.4.", "no valid host"),
        ("http://0.0.0.0:80", "cannot be connected to"),
        ("http://224.0.0.1", "cannot be connected to"),
        ("http://a\n", "is not a URL"),
        ("http://a\tb", "is not a URL"),
        ("http://bücher", "is not a URL"),
    ],
)
def test_refused_targets(url: str, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        names.target_url(url)
    assert message in caught.value.message
    assert "pw" not in str(caught.value.message) + caught.value.hint


def test_a_numeric_host_says_which_address_it_is() -> None:
    with pytest.raises(Invalid) as caught:
        names.target_url("http://2130706433:80")
    assert "write it as 127.0.0.1" in caught.value.hint


@pytest.mark.parametrize("host", ["*", "a.example.org", "*.example.org", "127.0.0.1", "::1", "localhost"])
def test_route_hosts(host: str) -> None:
    assert names.route_host(host) == host
    assert names.route_host(host.upper()) == host


def test_an_ipv6_host_is_compared_compressed_and_without_brackets() -> None:
    assert names.route_host("[2001:DB8:0::1]") == names.route_host("2001:db8::1") == "2001:db8::1"


@pytest.mark.parametrize(
    ("host", "hint"),
    [
        ("a.example.org:443", "without the port: 'a.example.org'"),
        ("::g", "'[::1]'"),
        ("[::g]", "no IPv6 address"),
        ("https://a", "only the host"),
        ("a/b", "only the host"),
        ("a.*.org", "'*.example.org'"),
        ("*a", "'*.example.org'"),
        ("a.", "without the final dot: 'a'"),
        ("bücher.example", "xn--"),
        ("", "like"),
        ("a b", "like"),
        ("*.", "like"),
        ("a.b.", "final dot: 'a.b'"),
    ],
)
def test_a_wrong_host_says_what_is_right(host: str, hint: str) -> None:
    with pytest.raises(Invalid) as caught:
        names.route_host(host)
    assert hint in caught.value.hint


@pytest.mark.parametrize("path", ["/", "/v1/", "/v1", "/a%2Fb", "/a:b@c"])
def test_route_paths(path: str) -> None:
    assert names.route_path(path) == path


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("", "starts with '/'"),
        ("v1", "'/v1'"),
        ("/v1/*", "a path is a prefix already: '/v1/'"),
        ("/v1?x=1", "the path alone"),
        ("/a b", "percent-encode"),
        ("/ü", "percent-encode"),
        ("/%zz", "percent-encode"),
        ("/a//b", "normalised"),
        ("/a/../b", "normalised"),
        ("/a/.", "normalised"),
    ],
)
def test_a_wrong_path_says_what_is_right(path: str, hint: str) -> None:
    with pytest.raises(Invalid) as caught:
        names.route_path(path)
    assert hint in caught.value.hint


def test_model_patterns() -> None:
    assert names.model_pattern("gpt-*") == "gpt-*"
    for wrong in ("", "*", "a*b", "**"):
        with pytest.raises(Invalid):
            names.model_pattern(wrong)


def test_upstream_names() -> None:
    assert names.upstream_name("chat-1.eu_west") == "chat-1.eu_west"
    for wrong in ("", "-a", "a b", "a{b}", "a" * 65, "ä"):
        with pytest.raises(Invalid):
            names.upstream_name(wrong)


_SHAPES = st.one_of(
    st.text(max_size=60),
    st.from_regex(r"(https?://)?[\[\]0-9a-fx.:%@*-]{0,30}(:[0-9]{0,6})?[/?#]?", fullmatch=True),
)


@given(_SHAPES)
def test_nothing_but_invalid_is_raised(text: str) -> None:
    notations = (
        names.address, names.network, names.target_url, names.route_host,
        names.route_path, names.model_pattern, names.upstream_name,
    )  # fmt: skip
    for notation in notations:
        try:
            notation(text)
        except Invalid:
            pass


@given(_SHAPES)
def test_what_was_normalised_stays_as_it_is(text: str) -> None:
    for notation in (names.target_url, names.route_host, names.route_path):
        try:
            once = notation(text)
        except Invalid:
            continue
        assert notation(once) == once
