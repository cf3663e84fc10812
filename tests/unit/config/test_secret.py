# A secret is shown by nothing that shows values, and travels only where it is told to.
from __future__ import annotations

import copy
import logging
import pickle
import traceback
from pathlib import Path

import msgspec
import pytest
from pydantic import BaseModel, ValidationError
from support.edge import configuration

from edgeproxy.config.load import load
from edgeproxy.config.model import Config
from edgeproxy.config.problems import ConfigError
from edgeproxy.config.secret import HIDDEN, TO_WORKERS, Secret, SecretValue

VALUE = b"sk-own-\xc3\xa9-0123456789"


class Holder(BaseModel):
    inner: SecretValue


class Outer(BaseModel):
    holder: Holder


def test_nothing_shows_it(caplog: pytest.LogCaptureFixture) -> None:
    secret = Secret(VALUE)
    outer = Outer(holder=Holder(inner=secret))
    logging.getLogger("x").error("%s %r %s", secret, outer, {"a": [secret]})
    try:
        raise RuntimeError(secret, outer)
    except RuntimeError as error:
        told = "".join(traceback.format_exception(error))
    shown = [repr(secret), str(secret), f"{secret}", repr(outer), str(outer), caplog.text, told, outer.model_dump_json()]
    shown += [str(outer.model_dump()), str(outer.model_dump(mode="json")), str(vars(outer))]
    assert not [text for text in shown if "sk-own" in text or "0123456789" in text]
    assert HIDDEN in shown[0]
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        msgspec.json.encode(secret)
    with pytest.raises(TypeError):
        hash(secret)


def test_it_travels_only_where_it_is_told_to() -> None:
    outer = Outer(holder=Holder(inner=Secret(VALUE)))
    sent = outer.model_dump_json(context=TO_WORKERS)
    assert Outer.model_validate_json(sent).holder.inner.reveal() == VALUE
    with pytest.raises(ValidationError, match="hidden on its way"):
        Outer.model_validate_json(outer.model_dump_json())


def test_an_error_does_not_show_what_was_given() -> None:
    with pytest.raises(ValidationError) as caught:
        Holder.model_validate({"inner": 123456789})
    assert caught.value.errors()[0]["msg"] == "Value error, expected a secret"


def test_equality_and_copies() -> None:
    secret = Secret(VALUE)
    assert secret == Secret(VALUE) and secret != Secret(b"other") and secret != VALUE
    assert copy.copy(secret) is secret and copy.deepcopy(secret) is secret


URL = "rediss://edge:geheim-0123@redis.example:6380/2"


def test_the_password_in_a_stores_url_is_shown_nowhere_but_to_workers() -> None:
    config = configuration(store=URL)
    shown = (repr(config), str(config), config.model_dump_json(), str(config.model_dump()), str(vars(config)))
    assert not [text for text in shown if "geheim" in text]
    there = Config.model_validate_json(config.model_dump_json(context=TO_WORKERS))
    assert there == config and there.store is not None and there.store.reveal() == URL.encode()
    assert configuration(store=URL + "1") != config
    with pytest.raises(ValidationError, match="hidden on its way"):
        Config.model_validate_json(config.model_dump_json())


@pytest.mark.parametrize(
    "store", ["http://edge:geheim-0123@redis.example", "redis://:geheim-0123@h:port", "[geheim-0123]", "{geheim-0123: 5}", "5"]
)
def test_no_problem_shows_a_stores_url(tmp_path: Path, store: str) -> None:
    (tmp_path / "edge.yaml").write_text(f"store: {store}\n")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "edge.yaml")
    assert "not the URL of a store" in str(caught.value) and "geheim" not in str(caught.value)
