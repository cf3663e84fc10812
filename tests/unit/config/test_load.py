from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from support.mmdb import database

from edgeproxy.config.load import build, load
from edgeproxy.config.model import Address, Config, Upstream
from edgeproxy.config.problems import ConfigError

from .samples import DAY, NOW, Writer, certificate, key_pem, pem

FULL = """
listen:
  https: ["0.0.0.0:8443", "[::]:8443"]
  public_port: 443
  http: "0.0.0.0:8080"
  admin: "127.0.0.1:9180"
  protocols: [h1, h3]
  alt_svc: false
  alt_svc_max_age: 7d
workers: 2
trusted_proxies: [10.0.0.0/8, "2001:db8::/32"]
access_log: {file: access.jsonl}
tls:
  certificates: [{cert: CERT, key: KEY}]
  min_version: 1.3
hsts: {max_age: 365d, include_subdomains: true, preload: true}
client:
  max_head: 16KiB
  max_body: 1048576
  timeouts: {head: 5s, idle: 1m30s}
  h2: {max_streams: 50, connection_window: 2MiB}
  h3: {max_streams: 5, stream_window: 64KiB, connection_window: 128KiB, retry_at: 0, max_per_source: 9, max_bodies: 1MiB,
       max_datagram: 1200}
drain: 0s
upstreams:
  chat:
    targets: [{url: "http://127.0.0.1:9000"}, {url: "https://API.example.org"}]
    balance: round-robin
    host: upstream
    ca: CERT
    timeouts: {connect: 500ms, total: 10m}
  small: {targets: [{url: "http://127.0.0.1:9001"}], timeouts: {total: off}}
routes:
  - {host: "*.Example.org", path: /v1/, upstream: chat, dialect: openai, max_body: 1MiB, preview: 64KiB,
     models: {gpt-4o: chat, "mini-*": small}, trailers: pass}
  - {upstream: small}
"""


@pytest.fixture
def full(files: Writer) -> str:
    return FULL.replace("CERT", str(files.cert)).replace("KEY", str(files.key))


def test_the_smallest_configuration_has_the_documented_defaults(files: Writer) -> None:
    config = load(files.write(files.text()), now=NOW)
    assert config.listen.https == (Address("127.0.0.1", 8443),)
    assert (config.listen.http, config.listen.admin) == ((), Address("127.0.0.1", 9180))
    assert config.listen.protocols == ("h1", "h2", "h3")
    assert (config.listen.quic, config.listen.alt_svc, config.listen.alt_svc_max_age) == (True, True, 86400)
    assert (config.listen.public_port, config.listen.redirect_port) == (None, 8443)
    assert (config.workers, config.trusted_proxies, config.access_log, config.drain) == (1, (), None, 30.0)
    assert (config.hsts.max_age, config.hsts.include_subdomains, config.hsts.preload) == (63072000, True, False)
    client = config.client
    assert (client.max_head, client.max_headers, client.max_url, client.max_body) == (32768, 100, 16384, 10485760)
    assert (client.timeouts.handshake, client.timeouts.head, client.timeouts.idle) == (10.0, 10.0, 60.0)
    assert (client.h2.max_streams, client.h2.stream_window, client.h2.connection_window) == (100, 65536, 1048576)
    h3 = client.h3
    assert (h3.max_streams, h3.stream_window, h3.connection_window) == (100, 262144, 1048576)
    assert (h3.retry_at, h3.max_per_source, h3.max_bodies, h3.max_datagram) == (100, 200, 67108864, 1350)
    chat = config.upstreams["chat"]
    assert (chat.balance, chat.host, chat.ca, chat.keepalive) == ("least-outstanding", "preserve", "system", 60.0)
    assert (chat.timeouts.connect, chat.timeouts.first_byte, chat.timeouts.idle) == (3.0, 120.0, 60.0)
    assert chat.timeouts.total is None
    (route,) = config.routes
    assert (route.host, route.path, route.upstream, route.dialect) == ("*", "/", "chat", None)
    assert (route.max_body, route.preview, route.models, route.trailers) == (None, 1048576, {}, "drop")


def test_every_key_is_read(files: Writer, full: str) -> None:
    config = load(files.write(full), now=NOW)
    assert config.listen.https == (Address("0.0.0.0", 8443), Address("::", 8443))
    assert (config.listen.redirect_port, config.listen.protocols) == (443, ("h1", "h3"))
    assert (config.listen.alt_svc, config.listen.alt_svc_max_age) == (False, 7 * 86400)
    h3 = config.client.h3
    assert (h3.max_streams, h3.stream_window, h3.connection_window) == (5, 65536, 131072)
    assert (h3.retry_at, h3.max_per_source, h3.max_bodies, h3.max_datagram) == (0, 9, 1048576, 1200)
    assert config.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))
    assert config.access_log is not None
    assert config.access_log.file == "access.jsonl"
    assert (config.tls.min_version, config.tls.certificates[0].cert) == ("1.3", files.cert)
    assert (config.hsts.max_age, config.drain, config.workers) == (365 * 86400, 0.0, 2)
    assert (config.client.max_head, config.client.max_body) == (16384, 1048576)
    assert (config.client.timeouts.head, config.client.timeouts.idle, config.client.timeouts.body) == (5.0, 90.0, 60.0)
    chat = config.upstreams["chat"]
    assert [(target.tls, target.host, target.port) for target in chat.targets] == [
        (False, "127.0.0.1", 9000),
        (True, "api.example.org", 443),
    ]
    assert (chat.timeouts.connect, chat.timeouts.total) == (0.5, 600.0)
    assert config.upstreams["small"].timeouts.total is None
    assert config.routes[0].host == "*.example.org"
    assert config.routes[0].models == {"gpt-4o": "chat", "mini-*": "small"}


def test_a_configuration_survives_json(files: Writer, full: str) -> None:
    """The supervisor hands it to running workers that way."""
    for text in (full, files.text(), files.text(listen='{https: "unix:/x", admin: null}')):
        config = load(files.write(text), now=NOW)
        assert Config.model_validate_json(config.model_dump_json()) == config


def test_a_configuration_does_not_change(files: Writer) -> None:
    config = load(files.write(files.text()), now=NOW)
    with pytest.raises(ValidationError):
        config.workers = 2


def test_every_problem_comes_at_once_in_file_order_with_its_place(files: Writer) -> None:
    text = (
        "listen:\n"
        '  https: "0.0.0.0:8443"\n'
        "  adnim: 127.0.0.1:9180\n"
        "  protocols: [h1, h4]\n"
        "drain: 30\n"
        "tls:\n"
        "  certificates: [{cert: no.pem, key: no-key.pem}]\n"
        "upstreams:\n"
        "  chat:\n"
        "    targets:\n"
        '      - {url: "http://169.254.169.254"}\n'
        '      - {ulr: "http://127.0.0.1"}\n'
        "    timeouts: {conect: 3s}\n"
        "    timeouts: {}\n"
        "routes:\n"
        "  - {path: /v1/, upstream: caht}\n"
        "  - {path: /, upstream: chat, max_body: 10M,\n"
        "     models: {x: chta}}\n"
    )
    found = [(problem.line, problem.column, problem.message, problem.hint) for problem in files.problems(text)]
    assert [place[:2] for place in found] == [
        (3, 3), (4, 19), (5, 8), (7, 25), (7, 38), (11, 15), (12, 10), (13, 16), (14, 5), (16, 28), (17, 41), (18, 18),
    ]  # fmt: skip
    assert found[0][2:] == ("unknown key 'adnim'", "did you mean 'admin'?")
    assert "must be 'h1', 'h2' or 'h3', not the text 'h4'" in found[1][2]
    assert found[2][3] == "write '30s' or '30ms'"
    assert "no.pem does not exist" in found[3][2]
    assert "is link-local" in found[5][2]
    assert found[6][2:] == ("unknown key 'ulr'", "did you mean 'url'?")
    assert found[7][2:] == ("unknown key 'conect'", "did you mean 'connect'?")
    assert found[8][2:] == ("key 'timeouts' is given twice", "first on line 13")
    assert found[9][2:] == ("unknown upstream 'caht'", "did you mean 'chat'?")
    assert "'10MiB'" in found[10][3]
    assert found[11][2:] == ("unknown upstream 'chta'", "did you mean 'chat'?")


def test_a_problem_is_shown_with_a_caret(files: Writer) -> None:
    shown = files.only(routes="[{upstream: chat, dialcet: openai}]").render().splitlines()
    assert shown[0].endswith("unknown key 'dialcet' (did you mean 'dialect'?)")
    assert shown[2].index("^") == shown[1].index("dialcet")


def test_the_cache_of_a_route_is_refused_with_its_reason(files: Writer) -> None:
    problem = files.only(routes="[{path: /, upstream: chat}, {path: /x, upstream: chat, cache: true}]")
    assert problem.message == "'cache' (caching) is not built yet: remove it"
    assert "silently ignored" in problem.hint


@pytest.mark.parametrize(
    ("sections", "message", "hint"),
    [
        ({"listen": ""}, "the configuration needs the key 'listen'", 'https: "0.0.0.0:8443"'),
        ({"listen": "{}"}, "'listen' needs the key 'https'", 'https: "0.0.0.0:8443"'),
        ({"listen": "{https: []}"}, "'listen.https' is empty", "at least one"),
        ({"listen": "{https: 8443}"}, "8443 is not an address", '":8443"'),
        ({"listen": '{https: ["a:1", "a:1"]}'}, "'a:1' is listed twice", ""),
        ({"listen": '{https: ":1", protocols: [h2, h2]}'}, "'h2' is listed twice", ""),
        ({"listen": '{https: ":1", protocols: []}'}, "'listen.protocols' is empty", "at least one"),
        ({"listen": '{https: ":1", protocols: [http2]}'}, "must be 'h1', 'h2' or 'h3', not the text 'http2'", ""),
        ({"listen": '{https: ":1", protocols: [h3]}'}, "'h3' needs 'h1' or 'h2' beside it", "[h1, h2, h3]"),
        ({"listen": '{https: "unix:/x", protocols: [h1, h3]}'}, "'h3' has no port to listen on", "like 0.0.0.0:8443"),
        ({"listen": '{https: ["unix:/x", ":1"], protocols: [h1, h3]}'}, "", ""),
        ({"listen": '{https: "unix:/x"}'}, "", ""),
        ({"listen": '{https: ":1", alt_svc: 24h}'}, "'listen.alt_svc' must be true or false, not the text '24h'", ""),
        ({"listen": '{https: ":1", alt_svc_max_age: 1500ms}'}, "not a whole number of seconds", ""),
        ({"listen": '{https: ":1", public_port: 0}'}, "'listen.public_port' must be at least 1", ""),
        ({"listen": '{https: ":1", public_port: "443"}'}, "must be a whole number", "without quotes: 443"),
        ({"listen": '{https: ":9180"}'}, "admin and https overlap: '127.0.0.1:9180' and ':9180'", "another port"),
        ({"listen": '{https: ":1", http: [":2", "127.0.0.1:1"]}'}, "http and https overlap", "another port"),
        ({"listen": '{https: "unix:/x", http: ":80"}'}, "redirects have no port to name", "public_port"),
        ({"workers": "257"}, "h3 has room for 256 workers, not 257", "protocols: [h1, h2]"),
        ({"workers": "257", "listen": '{https: ":1", protocols: [h1, h2]}'}, "", ""),
        ({"workers": "1025"}, "'workers' must be at most 1024", ""),
        ({"workers": "0"}, "'workers' must be at least 1", ""),
        ({"workers": "all"}, "expected a number or 'auto', not the text 'all'", ""),
        ({"workers": "1.5"}, "'workers' must be a whole number", ""),
        ({"workers": "true"}, "'workers' must be a whole number, not true", ""),
        ({"workers": "08"}, "'workers' must be a whole number", "write 8"),
        ({"workers": "1_000"}, "'workers' must be a whole number", "write 1000"),
        ({"trusted_proxies": "[10.0.0.1/8]"}, "has bits set", "'10.0.0.0/8'"),
        ({"access_log": "access.jsonl"}, "'access_log' must be a mapping", "{file: 'access.jsonl'}"),
        ({"access_log": "{file: 5}"}, "'access_log.file' must be text, not the number 5", '"5"'),
        ({"tls": ""}, "the configuration needs the key 'tls'", "certs/edge.pem"),
        ({"tls": "{certificates: []}"}, "'tls.certificates' is empty", "at least one"),
        ({"tls": "{certificates: {}}"}, "'tls.certificates' must be a list", "- "),
        ({"hsts": "false"}, "'hsts' must be a mapping, not false", "{enabled: false}"),
        ({"hsts": ""}, "", ""),
        ({"hsts": "{preload: on}"}, "must be true or false, not the text 'on'", "write true"),
        ({"hsts": "{preload: true, max_age: 10d}"}, "a max_age of at least a year", "31536000"),
        ({"hsts": "{preload: true, include_subdomains: false}"}, "preload needs include_subdomains", ""),
        ({"hsts": "{max_age: -1}"}, "-1 is not an age in seconds", ""),
        ({"hsts": "{max_age: 500ms}"}, "not a whole number of seconds", ""),
        ({"hsts": "~"}, "'hsts' is empty", "give it a value"),
        ({"client": "{max_head: 10B}"}, "'client.max_head' must be at least 1KiB", ""),
        ({"client": "{max_head: 10}"}, "'client.max_head' must be at least 1KiB", ""),
        ({"client": "{timeouts: {head: 0s}}"}, "'client.timeouts.head' must be more than 0s", ""),
        ({"client": "{timeouts: {head: [1s]}}"}, "expected a duration, not a list", "500ms"),
        ({"client": "{max_body: 1.5}"}, "expected a size, not the number 1.5", "10MiB"),
        ({"client": "{h2: {connection_window: 1KiB}}"}, "must be at least 65535B", ""),
        ({"client": "{h3: {max_datagram: 1500}}"}, "'client.h3.max_datagram' must be at most 1452B", ""),
        ({"client": "{h3: {max_datagram: 1199B}}"}, "'client.h3.max_datagram' must be at least 1200B", ""),
        ({"client": "{h3: {retry_at: -1}}"}, "'client.h3.retry_at' must be at least 0", ""),
        ({"client": "{h3: {max_bodies: 1KiB}}"}, "'client.h3.max_bodies' must be at least 1MiB", ""),
        ({"client": "{h3: {max_stream: 5}}"}, "unknown key 'max_stream'", "did you mean 'max_streams'?"),
        ({"timeout": "3s"}, "unknown key 'timeout'", "'timeouts' belongs below 'client' or 'upstreams.<name>'"),
        ({"max_body": "1MiB"}, "unknown key 'max_body'", "belongs below 'client' or 'routes[]'"),
        ({"zzz": "1"}, "unknown key 'zzz'", "known here: listen, workers"),
        ({"routes": "[]"}, "'routes' is empty", "at least one"),
        ({"routes": "[chat]"}, "'routes[0]' must be a mapping, not the text 'chat'", "its keys are: host, path"),
        ({"routes": "[{}]"}, "'routes[0]' needs the key 'upstream'", ""),
        ({"routes": "[{upstream: xyz}]"}, "unknown upstream 'xyz'", "upstreams are: chat"),
        ({"routes": "[{upstream: chat, models: {a*b: chat}}]"}, "'a*b' has a '*' inside", "'gpt-*'"),
        ({"routes": "[{upstream: chat, models: {m: chat}, preview: 0}]"}, "preview is 0", "1MiB"),
        ({"routes": "[{upstream: chat, max_body: 1KiB, preview: 2KiB}]"}, "preview (2KiB) is more than max_body", ""),
        ({"client": "{previews: 1MiB}", "routes": "[{upstream: chat, preview: 2MiB}]"},
         "preview (2MiB) is more than client.previews (1MiB)", "raise it"),
        ({"routes": "[{upstream: chat}, {host: '*', upstream: chat}]"}, "routes[1] can never match", "remove one"),
        ({"routes": "[{upstream: chat, path: /a/}, {upstream: chat, path: /a}]"}, "routes[1] can never match", "'/a'"),
        ({"routes": "[{upstream: chat, host: A}, {upstream: chat, host: a}]"}, "routes[1] can never match", "'a'"),
        ({"upstreams": '{chat: {targets: ["http://a"]}}'}, "must be a mapping", "{url: 'http://a'}"),
        ({"upstreams": '{chat: {targets: [{url: "http://a"}], ca: no.pem}}'}, "no.pem does not exist", "relative"),
        ({"upstreams": '{chat: {targets: [{url: "http://a"}], host: keep}}'}, "must be 'preserve' or 'upstream'", ""),
        (
            {"upstreams": '{chat: {targets: [{url: "http://a"}]}, a b: {targets: [{url: "http://a"}]}}'},
            "'a b' is not a name",
            "letters",
        ),
    ],
)
def test_one_mistake_is_one_problem(files: Writer, sections: dict[str, str], message: str, hint: str) -> None:
    if not message:
        assert files.problems(files.text(**sections)) == []
        return
    problem = files.only(**sections)
    assert message in problem.message
    assert hint in problem.hint


def test_a_key_of_a_mapping_of_names_is_pointed_at(files: Writer) -> None:
    problem = files.only(upstreams='{chat: {targets: [{url: "http://a"}]}, "b c": {targets: [{url: "http://a"}]}}')
    assert problem.source[problem.column - 1 :].startswith('"b c"')


def test_upstream_names_are_not_checked_against_what_is_no_mapping(files: Writer) -> None:
    assert "must be a mapping" in files.only(upstreams="[chat]").message


def test_certificates_are_judged_by_the_time_that_is_passed_in(files: Writer) -> None:
    path = files.write(files.text())
    load(path, now=NOW)
    with pytest.raises(ConfigError) as caught:
        load(path, now=NOW + 2 * DAY)
    (problem,) = caught.value.problems
    assert problem.message.startswith(f"certificate {files.cert} expired")
    assert problem.line == 2


def test_the_clock_judges_when_no_time_is_passed(files: Writer) -> None:
    with pytest.raises(ConfigError, match="expired"):
        load(files.write(files.text()))


def test_a_broken_key_is_pointed_at(files: Writer) -> None:
    files.key.write_bytes(b"")
    problem = files.only()
    assert problem.source[problem.column - 1 :].startswith(f'"{files.key}"')


def _sign_with(files: Writer, curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve)
    files.cert.write_bytes(pem(certificate(key)))
    files.key.write_bytes(key_pem(key))


def test_a_key_that_h3_cannot_use_is_pointed_at(files: Writer) -> None:
    _sign_with(files, ec.SECP521R1())
    problem = files.only()
    assert problem.source[problem.column - 1 :].startswith(f'"{files.key}"')
    assert problem.message == f"key {files.key} is ECDSA on secp521r1, which cannot be used for h3"
    assert "protocols: [h1, h2]" in problem.hint
    for without in ('{https: "127.0.0.1:8443", protocols: [h1, h2]}', '{https: "unix:/x"}'):
        assert files.problems(files.text(listen=without)) == []
    _sign_with(files, ec.SECP384R1())
    assert files.problems(files.text()) == []


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "no.yaml")
    assert str(caught.value) == f"{tmp_path / 'no.yaml'}: file not found"


def test_a_directory_and_a_name_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a directory"):
        load(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load("a\0b")


def test_workers_auto_is_the_cores_of_this_process(files: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2})
    assert load(files.write(files.text(workers="auto")), now=NOW).workers == 3


@pytest.mark.parametrize(
    ("listen", "quic"),
    [
        ('{https: ":1"}', True),
        ('{https: ["unix:/x", ":1"]}', True),
        ('{https: "unix:/x"}', False),
        ('{https: ":1", protocols: [h1, h2]}', False),
    ],
)
def test_h3_needs_a_port_and_not_a_word(files: Writer, listen: str, quic: bool) -> None:
    assert load(files.write(files.text(listen=listen)), now=NOW).listen.quic is quic


def test_admin_can_be_off(files: Writer) -> None:
    assert load(files.write(files.text(listen='{https: ":9180", admin: null}')), now=NOW).listen.admin is None


def _data(files: Writer) -> dict[str, object]:
    return {
        "listen": {"https": ("127.0.0.1:0",)},
        "tls": {"certificates": [{"cert": files.cert, "key": files.key}]},
        "upstreams": {"chat": {"targets": [{"url": "http://127.0.0.1:9000"}], "timeouts": {"connect": 0.05}}},
        "routes": [{"upstream": "chat"}],
    }


def test_build_takes_seconds_and_paths_from_python(files: Writer) -> None:
    config = build(_data(files), now=NOW)
    assert config.upstreams["chat"].timeouts.connect == 0.05
    assert config.tls.certificates[0].cert == files.cert


def test_build_checks_what_load_checks_and_names_the_key(files: Writer) -> None:
    data = _data(files) | {"routes": [{"upstream": "chta"}], "drain": float("nan")}
    with pytest.raises(ConfigError) as caught:
        build(data, now=NOW)
    assert sorted(str(caught.value).splitlines()) == [
        "<configuration>: drain: nan seconds is not a duration between 0 and ten years",
        "<configuration>: routes[0].upstream: unknown upstream 'chta' (did you mean 'chat'?)",
    ]


def test_the_model_takes_seconds_without_a_file() -> None:
    upstream = Upstream.model_validate({"targets": [{"url": "http://a"}], "keepalive": 0})
    assert upstream.keepalive == 0
    with pytest.raises(ValidationError):
        Config.model_validate({})


def test_many_problems_are_bounded(files: Writer) -> None:
    problems = files.problems("".join(f"key{n}: 1\n" for n in range(2000)))
    assert len(problems) <= 510
    assert any("more problems, not listed" in problem.message for problem in problems)


_RELAXED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@_RELAXED
@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_but_config_error(files: Writer, raw: bytes) -> None:
    assert files.problems(raw)  # no bytes of that length are a whole configuration
    str(ConfigError(files.problems(raw))).encode()


@_RELAXED
@given(st.text(alphabet=" \n\t-:?[]{},#&*!|>'\"%@`<=~\\aU0x9.é\u2028\x85\ufeff", max_size=120))
def test_arbitrary_yaml_signs_raise_nothing_but_config_error(files: Writer, text: str) -> None:
    str(ConfigError(files.problems(text))).encode()


_SCALARS = st.sampled_from(
    [
        "~",
        "on",
        "true",
        "8:30",
        "-1",
        "0",
        "1.5",
        "1e999",
        '"\\ud800"',
        '"\\0"',
        "*x",
        "&x",
        "!!int x",
        "<<",
        ":1",
        "3s",
        "[]",
        "{}",
    ]
)


@_RELAXED
@given(st.data())
def test_a_configuration_with_anything_in_its_places_raises_nothing_else(files: Writer, data: st.DataObject) -> None:
    """Real keys with wrong values reach the validators and the cross checks, which arbitrary bytes never do."""
    text = FULL.replace("CERT", str(files.cert)).replace("KEY", str(files.key))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        end = min(len(text), at + data.draw(st.integers(0, 12)))
        text = text[:at] + data.draw(_SCALARS) + text[end:]
    for problem in files.problems(text):
        assert problem.message
        assert problem.render().encode()


def test_a_certificate_without_its_key_in_the_file(files: Writer) -> None:
    files.key.write_bytes(pem())
    assert "holds no PEM private key" in files.only().message


def test_geo_files(files: Writer) -> None:
    good = files.directory / "a.mmdb"
    good.write_bytes(database({"192.0.2.0/24": {}}))
    config = load(files.write(files.text(geo=f'{{files: ["{good}"]}}')), now=NOW)
    assert Config.model_validate_json(config.model_dump_json()).geo.files == (good,)
    problem = files.only(geo=f'{{files: ["{good}", no.mmdb]}}')
    assert (problem.line, problem.message) == (5, "geo file no.mmdb does not exist") and "working directory" in problem.hint
    problem = files.only(geo=f'{{files: ["{files.cert}"]}}')
    assert "is not a MaxMind database" in problem.message and ".mmdb" in problem.hint
    assert "the path of a file is empty" in files.only(geo='{files: [""]}').message
    assert "must be a list" in files.only(geo=f'{{files: "{good}"}}').message
