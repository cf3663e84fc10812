# What files of places know, which file is asked, and that no file makes a look-up fail.
"""geo.py on files of the tests' own."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import maxminddb
import pytest
from support.mmdb import database

from edgeproxy import geo
from edgeproxy.geo import Geo, check

MUNICH = {
    "city": {"names": {"de": "München", "en": "Munich"}}, "continent": {"code": "EU", "names": {"en": "Europe"}},
    "country": {"iso_code": "DE", "is_in_european_union": True, "names": {"en": "Germany"}},
    "subdivisions": [{"iso_code": "BY", "names": {"en": "Bavaria"}}, {"iso_code": "X"}],
    "location": {"latitude": 48.1, "longitude": 11.5, "time_zone": "Europe/Berlin"}, "postal": {"code": "80331"},
}  # fmt: skip
BERN = {"country": {"iso_code": "CH"}, "city": {"names": {"fr": "Berne"}}, "subdivisions": []}
CITIES = {"203.0.113.0/24": MUNICH, "203.0.113.128/25": BERN, "2001:db8::/32": MUNICH}
NETS = {"203.0.113.0/24": {"autonomous_system_number": 64500, "country": {"iso_code": "XX"}},
    "198.51.100.0/24": {"traits": {"autonomous_system_number": 64501}, "country": {"iso_code": "NL"}}}  # fmt: skip


def written(tmp_path: Path, *files: dict[str, Any], **options: Any) -> list[Path]:
    paths = []
    for index, records in enumerate(files):
        paths.append(tmp_path / f"{index}.mmdb")
        paths[-1].write_bytes(database(records, **options))
    return paths


def known(files: list[Path], address: str) -> dict[str, Any]:
    place = Geo(files).place(address)
    return {name: found for name in (
        "country", "continent", "city", "region", "region_code", "asnum", "is_in_european_union", "position", "postal_code",
        "metro_code",
        "timezone",
    ) if (found := getattr(place, name)()) is not None}  # fmt: skip


@pytest.fixture(params=[True, False], ids=["C", "Python"])
def _both_readers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader in C, and the one of platforms without it."""
    assert maxminddb._extension, "the wheel for this platform has it"
    if not request.param:
        monkeypatch.setattr(maxminddb, "_extension", None)


pytestmark = pytest.mark.usefixtures("_both_readers")


@pytest.mark.parametrize("address", ["203.0.113.7", "2001:db8::1"])
def test_everything_about_an_address(tmp_path: Path, address: str) -> None:
    assert known(written(tmp_path, CITIES), address) == {
        "country": "DE", "continent": "EU", "city": "Munich", "region": "Bavaria", "region_code": "BY",
        "is_in_european_union": True, "position": (48.1, 11.5), "postal_code": "80331", "timezone": "Europe/Berlin",
    }  # fmt: skip
    place = Geo(written(tmp_path, CITIES)).place(address)
    assert [place.subdivision(level) for level in range(3)] == ["DE-BY", "DE-X", None]


def test_what_a_record_lacks(tmp_path: Path) -> None:
    files = written(tmp_path, CITIES)
    assert known(files, "203.0.113.200") == {"country": "CH", "is_in_european_union": False}
    assert known(files, "192.0.2.1") == known(files, "::1") == {}


def test_the_first_file_that_has_a_value(tmp_path: Path) -> None:
    cities, nets = written(tmp_path, CITIES, NETS)
    assert known([cities, nets], "203.0.113.7")["country"] == "DE"
    assert known([cities, nets], "203.0.113.7")["asnum"] == 64500
    assert known([nets, cities], "203.0.113.7")["country"] == "XX"
    assert known([cities, nets], "198.51.100.1") == {"country": "NL", "asnum": 64501, "is_in_european_union": False}
    assert known([], "203.0.113.7") == {}


def test_a_file_is_asked_once_and_only_when_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    look_up = geo._look_up

    def counted(reader: Any, address: str) -> Any:
        asked.append(reader.metadata().database_type)
        return look_up(reader, address)

    monkeypatch.setattr(geo, "_look_up", counted)
    cities, nets = written(tmp_path, CITIES, NETS)
    nets.write_bytes(database(NETS, kind="ASN"))
    place = Geo([cities, nets]).place("203.0.113.7")
    assert asked == []
    assert (place.country(), place.city(), asked) == ("DE", "Munich", ["Test-City"])
    assert (place.asnum(), place.asnum(), asked) == (64500, 64500, ["Test-City", "ASN"])


@pytest.mark.parametrize("address", ["", "/run/x", "203.0.113", "fe80::1%eth0", "\0", "2001:db8::1"])
def test_what_is_no_address_for_a_file_is_nowhere(tmp_path: Path, address: str) -> None:
    assert known(written(tmp_path, {"203.0.113.0/24": MUNICH}, version=4), address) == {}


@pytest.mark.parametrize("record", [
    "DE", 5, [MUNICH], {"country": "DE", "city": {"names": "x"}, "subdivisions": {"0": 1}, "continent": []},
    {"country": {"iso_code": 5}, "autonomous_system_number": "AS5", "subdivisions": ["BY"]},
    {"country": {"iso_code": ""}, "autonomous_system_number": True},
    {"location": {"latitude": 48, "longitude": "11", "metro_code": True, "time_zone": 5}, "postal": "80331"},
    {"location": {"latitude": 90.5, "longitude": 1.0}}, {"location": {"latitude": float("nan"), "longitude": 1.0}},
    {"location": []},
])  # fmt: skip
def test_records_of_other_shapes(tmp_path: Path, record: Any) -> None:
    assert known(written(tmp_path, {"203.0.113.0/24": record}), "203.0.113.7") == {}


def test_damaged_files_know_less_but_do_not_fail(tmp_path: Path) -> None:
    whole = database(CITIES)
    start = whole.index(b"\xab\xcd\xefMaxMind.com")
    path, seen = tmp_path / "a.mmdb", set()
    chance = random.Random(4)
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[chance.randrange(start)] = chance.randrange(256)
        path.write_bytes(damaged)
        place = Geo([path]).place("203.0.113.7")
        seen.add(place.country())
        place.asnum(), place.region(), place.is_in_european_union(), place.subdivision(0), place.position()
    assert {"DE", None} <= seen


# -- files that cannot be used ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [
    b"", b"x" * 1000, b"\x1f\x8b\x08", b"\xab\xcd\xefMaxMind.com", b"\xab\xcd\xefMaxMind.com\xe1\xff",
    database({"::/1": {}}, node_count=1 << 30),
])  # fmt: skip
def test_what_is_no_database(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.mmdb"
    path.write_bytes(content)
    assert check(path) == (f"geo file {path} is not a MaxMind database",
        "MaxMind's format has the ending .mmdb; archives (.tar.gz) must be unpacked first")  # fmt: skip
    with pytest.raises(ValueError, match="is not a MaxMind database"):
        Geo([path])


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert check(tmp_path / "none.mmdb") == (f"geo file {tmp_path}/none.mmdb does not exist",
        "a relative path starts at the working directory")  # fmt: skip
    found = check(tmp_path)
    assert found is not None and "is a directory" in found[0]
    (good,) = written(tmp_path, CITIES)
    assert check(good) is None


def test_the_writer_of_these_files_writes_what_the_library_reads(tmp_path: Path) -> None:
    (path,) = written(tmp_path, CITIES)
    with maxminddb.open_database(str(path)) as reader:
        assert reader.get_with_prefix_len("203.0.113.7") == (MUNICH, 25)
        assert reader.get("203.0.113.129") == BERN
        assert reader.metadata().node_count > 96


def test_files_are_mapped_and_not_held(tmp_path: Path) -> None:
    (path,) = written(tmp_path, CITIES)
    found = Geo([path])
    assert str(path) in Path("/proc/self/maps").read_text("utf-8")
    del found
    assert str(path) not in Path("/proc/self/maps").read_text("utf-8"), "closed with the last reference"
