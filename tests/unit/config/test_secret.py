# A secret is shown by nothing that shows values, and travels only where it is told to.
from __future__ import annotations

import copy
import logging
import pickle
import traceback

import msgspec
import pytest
from pydantic import BaseModel, ValidationError

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
