# The command line: it reads arguments, calls one function and turns the result into an exit code. It decides nothing,
# and every import that a command needs is inside it, so that --help and the start are quick.
"""``edgeproxy serve | check | explain | demo | certs | rules | keys | bots | block | limits``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeproxy import admin_cli, bots_cli, keys_cli

if TYPE_CHECKING:
    from edgeproxy.config.model import Config

app = typer.Typer(
    name="edgeproxy",
    help="An edge for chat: HTTP/3, HTTP/2 and HTTP/1.1 in front of chat backends.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
certs_app = typer.Typer(help="Certificates for development.", no_args_is_help=True)
app.add_typer(certs_app, name="certs")
rules_app = typer.Typer(help="Rule files.", no_args_is_help=True)
app.add_typer(rules_app, name="rules")
app.add_typer(keys_cli.app, name="keys")
app.add_typer(bots_cli.app, name="bots")
app.add_typer(admin_cli.block_app, name="block")
app.add_typer(admin_cli.limits_app, name="limits")

ConfigFile = Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The configuration, YAML.")]


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        from edgeproxy import __version__

        typer.echo(f"edgeproxy {__version__}")
        raise typer.Exit


@app.command()
def serve(
    config: ConfigFile,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, max=1024, metavar="N", help="Instead of 'workers' in the file.")
    ] = None,
) -> None:
    """Runs the edge until SIGTERM (drains; twice: stops at once). SIGHUP reads the file again.

    Example: edgeproxy serve -c edge.yaml --workers 4
    """
    from edgeproxy.supervisor import serve as run

    raise typer.Exit(run(config, workers=workers))


@app.command()
def check(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", metavar="FILE", help="The configuration, YAML.")
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of the configuration.")] = False,
) -> None:
    """Prints every problem of a configuration with file, line and column; exit code 1 if there is one.

    Examples: edgeproxy check -c edge.yaml; edgeproxy check --schema > edge.schema.json
    """
    if schema:
        from edgeproxy.config.schema import schema as json_schema

        typer.echo(json.dumps(json_schema(), indent=2))
        return
    if config is None:
        raise typer.BadParameter("give a file with -c FILE (or --schema)")
    found = _problems(config)
    if found is not None:
        typer.echo(found, err=True)
        raise typer.Exit(1)
    typer.echo(f"{config}: no problems")


@app.command()
def explain(
    config: ConfigFile,
    request: Annotated[
        list[str] | None, typer.Argument(metavar="[REQUEST]", help="A URL, or a curl command in quotes or behind '--'.")
    ] = None,
    method: Annotated[str | None, typer.Option("--request", "-X", metavar="METHOD", help="GET, or POST with --data.")] = None,
    header: Annotated[list[str] | None, typer.Option("--header", "-H", metavar="'NAME: VALUE'", help="Any number.")] = None,
    data: Annotated[str | None, typer.Option("--data", "-d", metavar="TEXT", help="The body, or @file.")] = None,
    http: Annotated[str | None, typer.Option("--http", metavar="VERSION", help="1.1, 2 or 3; else as clients do.")] = None,
    client: Annotated[str | None, typer.Option("--client", metavar="IP", help="Where the connection comes from.")] = None,
    ja4: Annotated[str | None, typer.Option("--ja4", metavar="JA4", help="The client's fingerprint.")] = None,
    har: Annotated[Path | None, typer.Option("--har", metavar="FILE", help="Requests that a browser saved.")] = None,
    entry: Annotated[int | None, typer.Option("--entry", min=1, metavar="N", help="One of them; else a line for each.")] = None,
    status: Annotated[int | None, typer.Option("--status", help="Of the reply, for rules of the response phase.")] = None,
    reply_header: Annotated[
        list[str] | None, typer.Option("--response-header", metavar="'NAME: VALUE'", help="Of the reply.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
    brief: Annotated[bool, typer.Option("--brief", help="No expressions of rules that do not match.")] = False,
    show_secrets: Annotated[bool, typer.Option("--show-secrets", help="Cookies, keys and tokens, too.")] = False,
) -> None:
    """Shows what each stage does with a request, each rule with the value of each part, and which decides.

    Examples:

    edgeproxy explain -c edge.yaml https://chat.example/v1/models -H 'User-Agent: x' --client 203.0.113.7

    edgeproxy explain -c edge.yaml "curl 'https://chat.example/v1/chat/completions' --json '{}'"

    edgeproxy explain -c edge.yaml -- curl https://chat.example/v1/models -A sqlmap

    edgeproxy explain -c edge.yaml --har saved.har --entry 3
    """
    from edgeproxy.config.load import load
    from edgeproxy.config.problems import ConfigError
    from edgeproxy.explaining.command import Asked, Style, run
    from edgeproxy.explaining.question import Unclear
    from edgeproxy.reload import NoKeys, with_keys

    asked = Asked(request or [], method, header or [], data, http, har, entry, client, status, reply_header or [], ja4)
    colour = not as_json and sys.stdout.isatty() and "NO_COLOR" not in os.environ
    try:
        text = run(with_keys(load(config)), asked, Style(as_json, brief, colour, show_secrets))
    except (ConfigError, NoKeys, Unclear) as e:
        typer.echo(str(e), err=True)
        raise typer.Exit(1) from None
    typer.echo(text, nl=False)


@app.command()
def demo(
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Where the edge listens on loopback.")] = 8443,
    llm: Annotated[bool, typer.Option("--llm", help="A real small model (needs the extra: edgeproxy[llm]).")] = False,
) -> None:
    """Runs an edge with a development certificate and a chat backend of its own, and prints what to try.

    Example: edgeproxy demo --port 9443
    """
    from edgeproxy.demo.run import demo as run

    raise typer.Exit(run(port=port, llm=llm) or 0)


@certs_app.command("dev")
def certs_dev(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where the files are made.")] = Path("certs"),
) -> None:
    """Makes a development CA and a certificate for localhost, or keeps those that are still valid.

    Example: edgeproxy certs dev ./certs
    """
    from edgeproxy.certs import make_development

    made = make_development(directory)
    for path in (made.ca, made.ca_key, made.cert, made.key):
        typer.echo(str(path))


@rules_app.command("test")
def rules_test(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="[PATH]…", help="Rule files, their .cases.yaml, or directories.")
    ] = None,
) -> None:
    """Runs the golden cases of rule files; exit code 1 if one fails.

    Example: edgeproxy rules test rules/
    """
    from edgeproxy.rules.golden import case_files, run

    files = case_files(paths or [Path("rules")])
    if not files:
        typer.echo("no file with golden cases (X.cases.yaml beside X.yaml)", err=True)
        raise typer.Exit(1)
    failed = total = 0
    for file in files:
        outcome = run(file)
        total += outcome.cases
        failed += len(outcome.problems)
        for problem in outcome.problems:
            typer.echo(problem.render(), err=True)
    typer.echo(f"{total} cases in {len(files)} files, {failed} problems")
    if failed:
        raise typer.Exit(1)


@rules_app.command("convert")
def rules_convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON of Cloudflare's Rulesets API; '-' for standard input.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="OUT", help="The rule file; absent: standard output.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 if anything was left out.")] = False,
) -> None:
    """Makes a rule file of a Cloudflare ruleset export, and lists what could not be carried and why.

    Example: edgeproxy rules convert rulesets.json -o rules/cloudflare.yaml
    """
    from edgeproxy.rules.convert import Unfit, convert
    from edgeproxy.rules.converted import summary, text

    try:
        raw = typer.get_text_stream("stdin").read() if str(file) == "-" else file.read_text("utf-8")
        made = convert(json.loads(raw))
    except (OSError, ValueError, RecursionError, Unfit) as e:
        typer.echo(f"{file}: {getattr(e, 'strerror', None) or e}", err=True)
        raise typer.Exit(1) from None
    written = text(file.name, made.rules, summary(made))
    if output is None:
        typer.echo(written, nl=False)
    else:
        output.write_text(written, "utf-8")
    typer.echo("\n".join(summary(made)), err=True)
    if strict and made.left:
        raise typer.Exit(1)


@rules_app.command("schema")
def rules_schema() -> None:
    """Prints the JSON Schema of rule files, for editors.

    Example: edgeproxy rules schema > rules.schema.json
    """
    from edgeproxy.config.schema import text
    from edgeproxy.rules.model import RuleFile

    typer.echo(text(RuleFile), nl=False)


def _problems(path: Path) -> str | None:
    """Everything that would keep ``serve`` from starting, as text; None if nothing."""
    from edgeproxy.config.load import load
    from edgeproxy.config.problems import ConfigError

    try:
        config = load(path)
        _compile(config)
    except ConfigError as e:
        return str(e)
    except (OSError, ValueError) as e:  # what only compiling finds: a certificate that OpenSSL refuses, say
        return f"{path}: {e}"
    return None


def _compile(config: Config) -> None:
    from edgeproxy.dataplane import DataPlane
    from edgeproxy.ipc import TICKET_KEYS

    DataPlane.prepare(config, os.urandom(TICKET_KEYS))
