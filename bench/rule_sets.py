# The rules of the case `rules`: made of lists of words and forms, the same in every run, none of them twice.
"""`rules(count)` and `REQUESTS`: rules of mixed kinds as operators write them, and two requests that none of them matches.

The mix is meant to be neither kind nor unkind to one engine: a fifth of the rules cannot be decided by a word (addresses,
lengths, numbers, `not`, `xor`, `all`), many begin with a part that holds for the requests (the method, the host, a prefix
of the path, a browser), some look for words that are in the requests and fail elsewhere, and no two look for the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import count as counter

from edgeproxy.message import Headers, Peer, Request

_AGENTS = """sqlmap nikto nessus openvas acunetix netsparker w3af dirbuster gobuster feroxbuster wfuzz ffuf masscan zgrab nmap
    nuclei wpscan joomscan droopescan havij pangolin jaeles arachni skipfish vega whatweb httprobe zmeu morfeus jorgee
    muieblackcat libwww-perl python-urllib go-http-client okhttp scrapy mechanize phantomjs headlesschrome puppeteer playwright
    selenium webdriver ahrefsbot semrushbot mj12bot dotbot blexbot petalbot bytespider megaindex seznambot yandexbot baiduspider
    sogou exabot linkdexbot rogerbot gigabot netcraft censysinspect expanse shodan binaryedge internetmeasurement leakix paloalto
    l9explore l9tcpid fuzz-faster dirsearch cariddi hakrawler gospider katana interactsh commix xsser brutespray hydra medusa
    patator crowbar ncrack metasploit cobaltstrike empire sliver merlin covenant mythic havoc poshc2 pupy koadic"""
_PLUGINS = """akismet jetpack elementor woocommerce contact-form-7 wordfence yoast rank-math litespeed autoptimize duplicator
    updraftplus all-in-one-seo wpforms ninja-forms gravityforms revslider layerslider slider-revolution visual-composer
    formidable mailpoet mailchimp newsletter bbpress buddypress learnpress tutor memberpress ultimate-member wp-file-manager
    file-manager-advanced filester wp-fastest-cache wp-super-cache w3-total-cache hello-dolly classic-editor redirection
    really-simple-ssl loginizer limit-login two-factor user-role-editor advanced-custom-fields custom-post-type pods toolset
    nextgen-gallery envira modula smush imagify ewww shortpixel tablepress ninja-tables wpdatatables give charitable
    easy-digital-downloads stripe paypal mollie klarna polylang wpml translatepress loco-translate gtranslate weglot
    monsterinsights matomo site-kit pixelyoursite cookie-notice complianz gdpr iubenda termly"""
_FILES = """.env .env.local .env.production .git/config .git/HEAD .svn/entries .hg/hgrc .DS_Store .aws/credentials .ssh/id_rsa
    .npmrc .pypirc .dockerenv .htpasswd .htaccess .vscode/sftp.json .idea/workspace.xml web.config composer.json composer.lock
    package-lock.json yarn.lock Gemfile.lock Pipfile.lock Dockerfile docker-compose.yml Makefile phpinfo.php info.php test.php
    shell.php cmd.php c99.php r57.php wso.php alfa.php adminer.php pma.php dump.sql backup.sql backup.zip backup.tar.gz db.sqlite
    database.yml secrets.yml settings.py local_settings.py config.php wp-config.php.bak configuration.php~ server-status
    server-info actuator/env actuator/heapdump actuator/gateway jolokia console/login manager/html host-manager solr/admin
    struts2-showcase cgi-bin/luci cgi-bin/test-cgi HNAP1 boaform/admin GponForm setup.cgi goform/webLogin owa/auth ecp/Current
    autodiscover/autodiscover.json remote/fgt_lang vpn/index.html dana-na/auth webvpn.html +CSCOE+ mgmt/tm/util tmui/login
    xmlrpc.php wp-login.php wp-cron.php eval-stdin.php vendor/phpunit telescope/requests _ignition/execute-solution
    debug/default/view elfinder/connector ckfinder/core fckeditor/editor kcfinder/browse uploadify.php timthumb.php"""
_PARAMS = """cmd exec ping_host dl_file page_path include_file template_dir redirect_to return_url next_hop callback_uri goto_link
    debug_mode trace_level admin_view sudo_user impersonate run_as sql_query order_clause where_part union_hint xml_doc xslt_ref
    svg_src image_url fetch_uri proxy_target webhook_to host_override lang_pack theme_dir skin_path layout_file module_load
    class_name method_call func_ref eval_text expr_lang ognl_part spel_part velocity_tpl twig_part jinja_part"""
_ATTACKS = """union+select information_schema sleep(5) benchmark( waitfor+delay xp_cmdshell load_file( into+outfile
    extractvalue( updatexml( pg_sleep dbms_pipe utl_http concat_ws group_concat <script onerror= onload= javascript: vbscript:
    document.cookie alert( String.fromCharCode ../../ ..%2f ..%252f %00 /etc/passwd /etc/shadow /proc/self boot.ini win.ini
    php://input php://filter data:text expect:// phar:// zip:// gopher:// dict:// file:// ldap:// jndi: ${env: ${lower: {{7*7}}
    #{7*7} <%= %0d%0a Set-Cookie: ;cat+ |id `whoami` $(id) &&wget curl+http base64_decode eval( assert( system( passthru(
    shell_exec( popen( proc_open( __proto__ constructor[ $where $regex $ne[ <!ENTITY <!DOCTYPE xinclude XInclude"""
_HEADERS = """x-original-url x-rewrite-url x-forwarded-scheme x-http-method-override x-method-override x-wap-profile
    x-debug-token x-internal-auth x-admin-key x-backend-server x-cluster-client-ip true-client-ip x-client-ip x-remote-addr
    x-originating-ip x-host x-forwarded-server x-forwarded-prefix x-arbitrary x-scanner x-bug-bounty x-probe-id x-test-run
    x-legacy-client x-partner-id x-campaign x-affiliate x-mobile-build x-kiosk x-batch-job x-loadtest x-canary x-shadow
    x-replay x-chaos x-feature-flag x-tenant-override x-region-pin x-shard x-trace-all"""
_COOKIES = """phpsessid jsessionid aspsessionid laravel_session wordpress_logged_in joomla_user drupal_uid magento_admin
    prestashop_id opencart_sid bitrix_sm typo3_be concrete5 django_admin rails_session symfony_dev xdebug_session debug_bar
    impersonator old_login beta_wave kiosk_mode ab_holdout partner_ref"""
_COUNTRIES = "KP IR SY CU SD BY MM VE ZW AF LY YE SO CD CF ER SS NI"
_TAILS = r"\d{2,4} [a-z]{3} v\d+\.\d+ [^/]+/x (?:old|bak|tmp) [A-Z]\w+ \w+\.(?:txt|log) -\d+"

BROWSER: Headers = [
    (b"content-length", b"188"), (b"sec-ch-ua-platform", b'"Windows"'),
    (b"user-agent", b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
     b"Chrome/142.0.0.0 Safari/537.36"),
    (b"sec-ch-ua", b'"Chromium";v="142", "Google Chrome";v="142", "Not_A Brand";v="99"'), (b"content-type", b"application/json"),
    (b"sec-ch-ua-mobile", b"?0"), (b"accept", b"text/event-stream"), (b"origin", b"https://chat.example.org"),
    (b"sec-fetch-site", b"same-origin"), (b"sec-fetch-mode", b"cors"), (b"sec-fetch-dest", b"empty"),
    (b"referer", b"https://chat.example.org/c/6f1d2a90-51c3-4e0e"), (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"accept-language", b"en-GB,en;q=0.9,de;q=0.8"),
    (b"cookie", b"session=9f86d081884c7d659a2feaa0c55ad015; theme=dark; sidebar=open; _ga=GA1.1.123456789.1700000000"),
]  # fmt: skip
SDK: Headers = [
    (b"accept", b"application/json"), (b"content-type", b"application/json"), (b"user-agent", b"AsyncOpenAI/Python 2.12.0"),
    (b"x-stainless-lang", b"python"), (b"x-stainless-package-version", b"2.12.0"), (b"x-stainless-os", b"Linux"),
    (b"x-stainless-arch", b"x64"), (b"x-stainless-runtime", b"CPython"), (b"x-stainless-runtime-version", b"3.12.4"),
    (b"authorization", b"Bearer sk-proj-0123456789abcdefghijklmnopqrstuvwxyz"), (b"x-stainless-async", b"async:asyncio"),
    (b"x-stainless-retry-count", b"0"), (b"x-stainless-read-timeout", b"600"), (b"content-length", b"188"),
    (b"accept-encoding", b"gzip, deflate"),
]  # fmt: skip


def _request(target: bytes, headers: Headers, client: str) -> Request:
    return Request(b"POST", b"chat.example.org", target, headers, 188, 1, Peer(client, trusted=False, secure=True))


REQUESTS = {
    "browser": _request(b"/api/conversation/6f1d2a90/messages?stream=true&model=small", BROWSER, "203.0.113.7"),
    "SDK": _request(b"/v1/chat/completions", SDK, "2001:db8:7::19"),
}
# Requests that some of the rules do match: all engines have to find the same ones.
MATCHING = {
    "scanner": _request(
        b"/wp-content/plugins/akismet/readme.txt?cmd=dict://x&page_path=1234&" + "&".join(_ATTACKS.split()).encode(),
        [(b"user-agent", " ".join(_AGENTS.split()[::2]).encode()), (b"x-original-url", b"jndi:x"), (b"cookie", b"phpsessid=1")],
        "198.18.1.17",
    ),
    "probe": _request(
        b"/api/a/" + "/".join(_FILES.split()).encode() + b"?debug_mode=abc",
        [(b"user-agent", b"Mozilla/5.0 zgrab/0.x nuclei"), (b"referer", _PLUGINS.encode()), (b"x-probe-id", b"1")],
        "2001:db8:f004::1",
    ),
}


class _Words:
    """Each word of a list once, then with a number: no rule gets the word of another."""

    def __init__(self, draw: random.Random, text: str) -> None:
        words = text.split()
        self._words = draw.sample(words, len(words))
        self._at = 0

    def __call__(self) -> str:
        round_, index = divmod(self._at, len(self._words))
        self._at += 1
        word = self._words[index]
        return word if not round_ else f"{word}{round_ + 1}"


def _forms(draw: random.Random) -> Iterator[Callable[[], str]]:
    """One form after the other, so that the first hundred rules are as mixed as the thousand."""
    agent, plugin, file, param = (_Words(draw, text) for text in (_AGENTS, _PLUGINS, _FILES, _PARAMS))
    attack, header, cookie = (_Words(draw, text) for text in (_ATTACKS, _HEADERS, _COOKIES))
    country, number = _Words(draw, _COUNTRIES), counter(1)

    def net() -> str:
        n = next(number)
        return f"198.{18 + n % 2}.{n % 251}.{n % 16 * 16}/28" if n % 3 else f"2001:db8:f{n % 4096:03x}::/48"

    def tail() -> str:
        return draw.choice(_TAILS.split())

    forms: list[Callable[[], str]] = [
        # words in a field
        lambda: f'http.user_agent contains "{agent()}"',
        lambda: f'lower(http.user_agent) contains "{agent()}" and http.request.method eq "POST"',
        lambda: f'http.request.uri.path contains "/{file()}"',
        lambda: f'http.request.uri.query contains "{attack()}" or http.request.uri.query contains "{attack()}"',
        lambda: f'http.user_agent contains "Mozilla" and http.referer contains "{plugin()}"',
        lambda: f'http.cookie contains "{cookie()}" and not http.user_agent contains "Mozilla"',
        # one value, or a set of them
        lambda: f'http.request.uri.path eq "/{file()}"',
        lambda: f'http.request.uri.path in {{"/{file()}" "/{plugin()}/{file()}" "/old/{file()}"}}',
        lambda: f'http.host eq "{plugin()}.example.org"',
        lambda: f'http.host in {{"{plugin()}.example.org" "{agent()}.example.net"}} and ssl',
        lambda: f'http.request.method eq "POST" and http.request.uri.path eq "/wp-content/plugins/{plugin()}/readme.txt"',
        lambda: f'ip.src.country in {{"{country()}" "{country()}"}} and http.request.method eq "POST"',
        # patterns
        lambda: f'http.request.uri.path matches "^/(?:wp|cms|blog)/{plugin()}/{tail()}$"'.replace("\\", "\\\\"),
        lambda: f'http.user_agent matches "(?i){agent()}[/ ]{tail()}"'.replace("\\", "\\\\"),
        lambda: f'http.user_agent ~ "{agent()}|{agent()}|{agent()}"',
        lambda: f'http.request.uri.path matches "^/[a-z]{{{next(number)}}}/{tail()}$"'.replace("\\", "\\\\"),
        lambda: f'http.request.uri matches "[?&]{param()}=[^&]*{tail()}"'.replace("\\", "\\\\"),
        lambda: f'http.request.uri.path wildcard "/*/{plugin()}/*.php"',
        lambda: f'http.request.uri.path strict wildcard "/api/*/{file()}"',
        lambda: f'starts_with(http.request.uri.path, "/{plugin()}/")',
        lambda: f'starts_with(http.request.uri.path, "/api/") and ends_with(http.request.uri.path, "/{param()}")',
        # headers, arguments, cookies
        lambda: f'any(http.request.headers["{header()}"][*] contains "{attack()}")',
        lambda: f'http.request.headers["{header()}"][0] eq "{next(number)}"',
        lambda: f'any(http.request.uri.args["{param()}"][*] contains "{attack()}")',
        lambda: f'any(http.request.uri.args.names[*] eq "{param()}")',
        lambda: f'any(lower(http.request.uri.args.values[*])[*] contains "{attack().lower()}")',
        lambda: f'any(http.request.cookies["{cookie()}"][*] eq "{next(number)}")',
        lambda: f'any(http.request.headers.values[*] contains "{attack()}")',
        # addresses, numbers, and what no word decides
        lambda: f"ip.src in {{{net()} {net()} {net()}}}",
        lambda: f'ip.src in {{{net()} {net()}}} and not http.user_agent contains "{agent()}"',
        lambda: f"len(http.request.uri.path) gt {200 + next(number)} or len(http.user_agent) gt {300 + next(number)}",
        lambda: f'not http.request.version in {{"HTTP/1.1" "HTTP/2" "HTTP/3"}} or len(http.host) gt {100 + next(number)}',
        lambda: f'not ssl and not http.host eq "{plugin()}.example.org"',
        lambda: f'len(http.request.uri.query) gt {500 + next(number)} and http.request.uri.path contains "/"',
        lambda: f'(ssl xor http.request.method eq "POST") and not http.request.uri.path eq "/{file()}"',
        lambda: f'not any(http.request.headers["content-type"][*] contains "json") and len(http.cookie) gt {next(number)}',
        lambda: f'ssl and http.request.uri.path contains "/v1/" and len(http.referer) gt {next(number)}',
        lambda: f'cf.threat_score gt {next(number)} or ip.src in {{{net()}}}',
    ]  # fmt: skip
    while True:
        yield from draw.sample(forms, len(forms))


def rules(count: int) -> list[str]:
    """The first `count` expressions, as they stand in a rule file."""
    made: dict[str, None] = {}
    for form in _forms(random.Random(4)):
        made[form()] = None
        if len(made) == count:
            break
    return list(made)
