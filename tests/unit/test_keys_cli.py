# 'edgeproxy keys', as a person uses it: files, modes, what is printed where, and that a key is printed once.
from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from edgeproxy import cli, keys_store, replacing
from edgeproxy.config.keys_file import read_keys
from edgeproxy.keys_store import KeysError, Place, create
from edgeproxy.policy.keys import Key, KeyProblem, KeyRing
from edgeproxy.policy.keytext import wrong

NOW = 1_795_000_000.0


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["keys", *arguments])


def made(*arguments: str) -> str:
    """The key that a command prints."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    (text,) = result.stdout.splitlines()
    assert wrong(text.encode()) is None
    return text


def ring() -> KeyRing:
    loaded = read_keys(Path("keys.yaml"), Path("keys.pepper"))
    assert loaded.book is not None, (loaded.problems, loaded.findings)
    return KeyRing(loaded.book)


def who(text: str, now: float) -> str:
    found = ring().identify([(b"x-api-key", text.encode())], now)
    assert isinstance(found, Key | KeyProblem)
    return found.name if isinstance(found, Key) else found.kind


def listed() -> list[dict[str, object]]:
    return [json.loads(line) for line in run("list", "--json").stdout.splitlines()]


def test_a_keys_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: NOW)
    first = made("create", "--name", "team", "--models", "gpt-*,small", "--models", "large", "--expires", "90d", "--tags", "a,b",
                 "--limits", "per-key", "--networks", "10.0.0.0/8", "--ja4", "t13d1516h2", "--tokens-per-day", "5")  # fmt: skip
    second = made("create", "--name", "other")
    assert [stat.S_IMODE(os.stat(name).st_mode) for name in ("keys.yaml", "keys.pepper")] == [0o600, 0o600]  # noqa: PTH116
    assert (who(first, NOW), who(second, NOW), who(first, NOW + 90 * 86400)) == ("team", "other", "expired")
    key = ring().keys[first[3:11]].model
    assert (key.models, key.tags, key.limits, key.ja4) == (("gpt-*", "small", "large"), ("a", "b"), ("per-key",), ("t13d1516h2",))
    assert (str(key.networks[0]), key.budget.tokens_per_day, key.expires) == ("10.0.0.0/8", 5, NOW + 90 * 86400)

    again = made("rotate", "team", "--keep", "24h")
    assert again[:12] == first[:12] and again != first
    assert (who(first, NOW + 86399), who(first, NOW + 86400), who(again, NOW + 86400)) == ("team", "rotated", "team")
    at_once = made("rotate", f"ep-{second[3:11]}", "--keep", "0s")
    assert (who(second, NOW), who(at_once, NOW)) == ("unknown", "other")

    assert run("revoke", first[3:11]).exit_code == 0
    assert run("revoke", "team").exit_code == 0  # once more is no harm
    assert (who(first, NOW), who(again, NOW), who(at_once, NOW)) == ("revoked", "revoked", "other")
    assert [(each["name"], each["state"]) for each in listed()] == [("team", "revoked"), ("other", "active")]
    assert run("rotate", "team").exit_code == 1
    third = made("create", "--name", "team")  # the name is free again
    assert run("revoke", "team").exit_code == 0
    assert who(third, NOW) == "revoked"


def test_a_leaked_key_is_revoked_by_its_text() -> None:
    text = made("create", "--name", "team")
    result = run("revoke", text)
    assert result.exit_code == 0 and text[12:] not in result.output
    assert who(text, NOW) == "revoked"


def test_nothing_but_the_first_print_shows_a_secret(capfd: pytest.CaptureFixture[str]) -> None:
    first = made("create", "--name", "team")
    second = made("rotate", "team")
    hashes = [part for part in Path("keys.yaml").read_text().replace(",", " ").split() if part.startswith("blake2b:")]
    pepper = Path("keys.pepper").read_text().strip()
    assert len(hashes) == 2
    outputs = [
        run("list").output, run("list", "--json").output, run("create", "--name", "team").output,
        run("revoke", first + "x").output,
        run("rotate", "nobody").output, run("revoke", "ep-00000000" + first[11:]).output, run("create", "--name", first).output,
        run("create", "--name", "x", "--models", f"*{first}").output, run("create", "--name", "x", "--expires", first).output,
        run("create", "--name", "x", "--networks", first).output, run("create", "--name", "x", "--pepper", first).output,
        run("rotate", "team", "--keep", first).output, run("list", "-c", "none.yaml").output, run("--help").output,
    ]  # fmt: skip
    Path("keys.yaml").write_text(Path("keys.yaml").read_text().replace("name: team", f"name: {first}"))
    outputs += [run("list").output, run("create", "--name", "y").output, run("revoke", "team").output]
    outputs += list(capfd.readouterr())
    for secret in (first[12:30], second[12:30], first[-12:], pepper[:12], *(each[8:20] for each in hashes)):
        assert not [output for output in outputs if secret in output]
    assert not [path for path in Path().iterdir() if first[12:30] in path.read_text() and path.name != "keys.yaml"]


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    def fails(*arguments: str) -> str:
        result = run(*arguments)
        assert result.exit_code == 1 and not result.stdout, result.output
        return result.stderr

    assert "there is no file keys.yaml" in fails("list")
    assert "there is no file keys.yaml" in fails("revoke", "a")
    assert "'a b' is not a name" in fails("create", "--name", "a b")
    assert "is over already" in fails("create", "--name", "a", "--expires", "2020-01-01")
    assert "a duration needs its unit" in fails("create", "--name", "a", "--expires", "90")
    assert "'*' is every model" in fails("create", "--name", "a", "--models", "*")
    assert not Path("keys.yaml").exists()
    made("create", "--name", "team")
    assert "there is a key named 'team' already" in fails("create", "--name", "team")
    assert "there is no key 'taem' (did you mean 'team'?)" in fails("revoke", "taem")
    Path("other").write_text("x" * 40)
    before = Path("keys.yaml").read_text()
    assert "made with another pepper" in fails("create", "--name", "b", "--pepper", "other")
    assert "cannot be read" in fails("create", "--name", "b", "--pepper", "none")  # no new pepper for keys that are there
    assert not Path("none").exists() and Path("keys.yaml").read_text() == before
    Path("keys.yaml").write_text(before + "  - {id: 1}\n")
    assert "keys.yaml:" in fails("create", "--name", "b") and "keys.yaml:" in fails("list")
    assert "cannot be used" in fails("create", "--name", "b", "--file", "no/such/keys.yaml")


def test_the_files_of_a_configuration(tmp_path: Path) -> None:
    Path("edge.yaml").write_text("listen: {https: wrong}\nkeys: {file: a.yaml, pepper: a.pepper}\n")
    made("create", "--name", "team", "-c", "edge.yaml")
    assert Path("a.yaml").exists() and Path("a.pepper").exists() and not Path("keys.yaml").exists()
    assert "team" in run("list", "--config", "edge.yaml").stdout
    Path("edge.yaml").write_text("listen: {}\n")
    assert "has no section 'keys'" in run("list", "-c", "edge.yaml").output


def test_hand_made_comments_stay_and_so_do_links_and_modes(tmp_path: Path) -> None:
    made("create", "--name", "team")
    real = tmp_path / "real.yaml"
    Path("keys.yaml").rename(real)
    real.write_text(real.read_text() + "# mine\n")
    real.chmod(0o644)
    Path("keys.yaml").symlink_to(real)
    before = os.umask(0o077)
    try:
        made("create", "--name", "other")
        assert run("revoke", "team").exit_code == 0
    finally:
        os.umask(before)
    assert Path("keys.yaml").is_symlink() and "# mine" in real.read_text()
    assert stat.S_IMODE(real.stat().st_mode) == 0o644  # an edge that runs as somebody else can go on reading
    real.chmod(0o666)
    made("create", "--name", "third")
    assert stat.S_IMODE(real.stat().st_mode) == 0o644


def test_a_crash_leaves_the_old_file(monkeypatch: pytest.MonkeyPatch) -> None:
    made("create", "--name", "team")
    before = Path("keys.yaml").read_text()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(replacing.os, "fsync", full)
    result = run("revoke", "team")
    assert result.exit_code == 1 and "No space left" in result.output
    assert Path("keys.yaml").read_text() == before
    assert sorted(path.name for path in Path().iterdir()) == ["keys.pepper", "keys.yaml"]


def test_many_at_once() -> None:
    where = Place(Path("keys.yaml").absolute(), Path("keys.pepper").absolute())
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda number: create(where, {"name": f"n{number}"}, NOW)[1].text, range(40)))
    assert len(set(texts)) == 40
    assert sorted(who(text, NOW) for text in texts) == sorted(f"n{number}" for number in range(40))


def test_an_id_is_never_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeproxy.policy import keytext

    where = Place(Path("keys.yaml"), Path("keys.pepper"))
    first = create(where, {"name": "a"}, NOW)[1]
    given = iter([keytext.make(first.id), keytext.make(first.id), keytext.make()])
    monkeypatch.setattr(keys_store, "make", lambda: next(given))
    assert create(where, {"name": "b"}, NOW)[1].id != first.id


def test_errors_are_exceptions_for_callers() -> None:
    with pytest.raises(KeysError, match="there is no file"):
        keys_store.revoke(Place(Path("none.yaml"), Path("none")), "a", NOW)


def test_help_has_examples_and_starts_quickly() -> None:
    for command in ("create", "list", "revoke", "rotate"):
        assert "edgeproxy keys " + command in " ".join(run(command, "--help").output.split())
    code = "import sys; from edgeproxy import cli; print(sorted({'pydantic', 'yaml', 'asyncio', 'hashlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pydantic" not in done.stdout and "yaml" not in done.stdout
