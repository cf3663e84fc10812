# What people, browsers, SDKs and monitors ask every day, and what they write into deep links: no shipped rule may mind.
"""rules/*.yaml against requests that look odd and are fine."""

from __future__ import annotations

from urllib.parse import quote, quote_plus

import pytest

from edgeproxy.policy.normalise import path_problem
from edgeproxy.rules.files import read_rules
from edgeproxy.rules.golden import CaseRequest, facts_of
from edgeproxy.rules.ruleset import Ruleset, judge

PROMPTS = (
    "how does union select work", "5 and 3 = 8?", "1 or 2", "'tis the season and 'twas = 'nice", "what is ../../../lib in node",
    "explain ${HOME} and ${X:-y}",
    "<script>alert(1)</script>",
    "SELECT * FROM users WHERE id=1 OR 1=1", "' OR 1=1 -- is what?",
    "rm -rf / && curl http://169.254.169.254/latest", "{{7*7}} in jinja", "() { :;}; explain",
    "C:\\a\\..\\..\\..\\x why",
    "1 and 2; drop table of contents", "-- and sleep (8h) is good?", "2 and sleep(8) hours",
    '"><b>bold</b>', 'a"> <img onerror= how',
    "café ☕ 日本", "100%", "1' or 2' tall = 3'?", "%00 null byte meaning", "class.module", "s=think about display", "..",
    "a;b;c",
    "file:///etc/passwd meaning", "/etc/passwd", "x'y\"z", "1) union select null?", "a\r\nSet-Cookie: b", "phpmyadmin vs adminer",
)  # fmt: skip
PATHS = (
    "/_next/static/chunks/app/page-3f2a.js", "/_next/image?url=%2Fa.png&w=64&q=75", "/c/1?_rsc=1a2b",
    "/api/auth/callback/google?state=x&code=4%2F0AeanS&scope=email%20https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fuserinfo.email",
    "/login?redirect_uri=https%3A%2F%2Fa.example%2Fcb&next=/", "/graphql?query=%7Buser(id:1)%7Bname%7D%7D",
    "/health", "/metrics",
    "/items?filter=%7B%22a%22%3A%7B%22%24gt%22%3A1%7D%7D&page[size]=10", "/v1/models/meta-llama/Llama-3.1-8B-Instruct",
    "/v1/files/file-abc/content", "/favicon.ico", "/robots.txt", "/.well-known/security.txt", "/.well-known/openid-configuration",
    "/assets/index-D3k.css", "/sandbox/data.sql", "/download/my-backup.zip", "/docs/.vitepress/x", "/admin", "/wp",
    "/owa", "/vpn",
    "/git/x.git", "/sw.js", "/@vite/client", "/node_modules/.vite/deps/react.js", "/.auth/login/aad", "/cdn-cgi/trace",
    "/socket.io/?EIO=4&transport=websocket", "/autodiscover/autodiscover.xml", "/config.json", "/index.php", "/a/config.php",
    "/actuator/health/liveness", "/actuator/info", "/actuator/prometheus", "/?gclid=abc&utm_source=x%20y", "/user/o'brien",
    "/search?q=site:a.example+%2Bfoo+-bar", "/x?token=eyJhbGciOi.J9.sig%3D%3D",
    "/x?sig=a%2Fb%2Bc%3D&se=2026-01-01T00%3A00%3A00Z",
    "/x?X-Amz-Credential=AKIA%2F2026%2Fus-east-1", "/maps/@52.5,13.4,12z", "/tags/c++", "/tags/c%23", "/{id}", "/$batch",
    "/odata/Users('x')?$filter=Name%20eq%20'a'&$top=5", "/odata/Users(1)?$filter=id%20eq%201%20or%20id%20eq%202",
    "/?id=1%20or%202",
    # Pages about products, downloads, code hosting, and applications that are here after all.
    "/appsettings.json", "/appsettings.Production.json", "/blog/vpns/", "/docs/ssl-vpn/", "/docs/sslvpn/intro",
    "/guides/global-protect/setup", "/docs/solr/administration", "/r/phpmyadmin", "/blog/how-to-use-phpmyadmin",
    "/hub/library/adminer", "/docs/jolokia", "/docs/wp-admin-guide", "/team/administers", "/u/alice/adminer-notes",
    "/x/manager/html-editor", "/manager/html5", "/actuator/environment", "/actuator/health;a=b", "/invoker/readonly-docs",
    "/org/repo/-/blob/main/.terraform.lock.hcl", "/org/repo/-/raw/main/.htaccess", "/org/repo/blob/main/.npmrc",
    "/org/repo/blob/main/.env.example", "/org/repo/blob/main/.idea/x.xml", "/org/repo/blob/main/wp-content/x.php",
    "/repo.git/info/refs?service=git-upload-pack", "/repo/.git/info/refs?service=git-upload-pack", "/repo/.git/git-upload-pack",
    "/downloads/backup.zip", "/downloads/db.zip", "/releases/database.tar.gz", "/static/db.gz", "/index.json.gz",
    "/api/jsonws/invoke", "/server-status-page", "/a;v=1/b", "/files/$%7Bid%7D", "/odata/%7B(x)%7D",
    "/_next/static/chunks/app/%5B...slug%5D/page.js", "/announce?info_hash=%00%12%aa&peer_id=x",
    "/x?path=../../../shared/x.js", "/x?import=../../../lib/util", "/x?s=i-think/display", "/x?class=module&class.module=x",
    "/x?" + "&".join(f"id={number}" for number in range(300)),
    "/x?" + "&".join(f"columns[{n}][{key}]=x" for n in range(43) for key in (
        "data", "name", "searchable", "orderable", "search][value", "search][regex")),
)  # fmt: skip
AGENTS = (
    "curl/8.5.0", "python-requests/2.32", "python-httpx/0.28", "Python/3.11 aiohttp/3.14", "Go-http-client/2.0", "axios/1.7",
    "node",
    "undici", "okhttp/4.12", "Java/21", "Apache-HttpClient/5.3", "PostmanRuntime/7.4", "insomnia/10", "Wget/1.21", "Ruby",
    "PHP/8",
    "OpenAI/JS 5.1", "Anthropic/Python 0.6", "LangChain/0.3", "litellm/1.7", "GPTBot/1.2", "ClaudeBot/1.0", "Googlebot/2.1",
    "UptimeRobot/2.0", "kube-probe/1.31", "ELB-HealthChecker/2.0", "Prometheus/2.5", "Blackbox Exporter/0.25", "Slackbot 1.0",
    "HeadlessChrome/141", "Dart/3.5", "libwww-perl/6", "GuzzleHttp/7", "Cursor/1.0", "Zapier", "n8n", "k6/0.5", "ApacheBench/2.3",
)  # fmt: skip


@pytest.fixture(scope="module")
def rules() -> Ruleset:
    return Ruleset(read_rules((), wanted={}).book)


def hits(rules: Ruleset, given: CaseRequest) -> list[str]:
    facts = facts_of(given)
    assert not isinstance(facts, str) and path_problem(facts.request.target) is None
    broken: list[str] = []
    decision = judge(rules, facts, lambda rule, error: broken.append(f"{rule.id}: {error!r}"))
    assert not broken
    return [rule.id for rule in decision.hits]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompts_in_deep_links(rules: Ruleset, prompt: str) -> None:
    for query in (quote_plus(prompt), quote(prompt), f"x&model=large&prompt={quote(prompt)}&hints=search"):
        assert hits(rules, CaseRequest(url=f"https://chat.example/?q={query}")) == []


@pytest.mark.parametrize("path", PATHS)
def test_paths(rules: Ruleset, path: str) -> None:
    assert hits(rules, CaseRequest(url=f"https://chat.example{path}")) == []


@pytest.mark.parametrize("agent", AGENTS)
def test_clients(rules: Ruleset, agent: str) -> None:
    headers = {"user-agent": (agent,), "authorization": ("Bearer sk-x",)}
    url = "https://chat.example/v1/chat/completions"
    given = CaseRequest(url=url, method="POST", headers=headers, dialect="openai", length=9)
    assert hits(rules, given) == []
