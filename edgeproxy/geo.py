# Where an IP address is, as files in MaxMind's format say it. What a file does not say, or says wrongly, is not known.
"""`Geo`: the files of a snapshot, opened once; `Place`: one address, looked up in a file only when that file is asked.

Several files may each know something: a value comes from the first that has one. The files are mapped into memory, so that
all workers share one copy: whoever brings a new one must put it in place by renaming, never by writing over the old one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from maxminddb.reader import Reader

_T = TypeVar("_T")
_LANGUAGE: Final = "en"  # of names, as at Cloudflare


class Unusable(Exception):
    """A file cannot be used. `message`: why; `hint`: what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def _open(path: Path) -> Reader:
    """Raises Unusable."""
    import maxminddb  # here: who has no such files does not load it

    try:
        path.open("rb").close()  # the C reader has one answer for whatever is wrong
        # Mapped, by the reader in C; where a platform has no wheel, by the same in Python.
        return maxminddb.open_database(str(path), maxminddb.MODE_AUTO)
    except FileNotFoundError as error:
        raise Unusable(f"geo file {path} does not exist", "a relative path starts at the working directory") from error
    except IsADirectoryError as error:
        raise Unusable(f"geo file {path} is a directory", "name its files, like geo/GeoLite2-City.mmdb") from error
    except OSError as error:
        raise Unusable(f"geo file {path} cannot be read: {error.strerror or error}", "is it readable for this user?") from error
    except Exception as error:  # whatever a damaged file makes of the reader (InvalidDatabaseError, KeyError, UnicodeDecodeError)
        hint = "MaxMind's format has the ending .mmdb; archives (.tar.gz) must be unpacked first"
        raise Unusable(f"geo file {path} is not a MaxMind database", hint) from error


def check(path: Path) -> tuple[str, str] | None:
    """Message and hint for a file that cannot be used, None when it can."""
    try:
        _open(path).close()
    except Unusable as error:
        return error.message, error.hint
    return None


class Geo:
    """Open files, in the order in which they are asked. They are closed when nothing refers to this any more."""

    __slots__ = ("_readers",)

    def __init__(self, files: Sequence[Path]) -> None:
        """Opens. Raises ValueError when a file cannot be used."""
        try:
            self._readers = tuple(_open(path) for path in files)
        except Unusable as error:
            raise ValueError(error.message) from error

    def place(self, address: str) -> Place:
        """Where an address is. Nothing is looked up yet."""
        return Place(self._readers, address)


class Place:
    """What the files know of one address. Its methods give None for what nobody knows, and never raise."""

    __slots__ = ("_address", "_readers", "_records")

    def __init__(self, readers: tuple[Reader, ...], address: str) -> None:
        self._readers = readers
        self._address = address
        self._records: list[Any] = []

    def country(self) -> str | None:
        """ISO 3166-1 code: `DE`."""
        return self._first(lambda record: _text(record, "country", "iso_code"))

    def continent(self) -> str | None:
        """One of AF AN AS EU NA OC SA."""
        return self._first(lambda record: _text(record, "continent", "code"))

    def city(self) -> str | None:
        """In English."""
        return self._first(lambda record: _text(record, "city", "names", _LANGUAGE))

    def region(self) -> str | None:
        """The largest part of the country, in English: a state, a province."""
        return self._first(lambda record: _text(record, "subdivisions", 0, "names", _LANGUAGE))

    def region_code(self) -> str | None:
        """Its code in ISO 3166-2, without the country's: `BY`."""
        return self._first(lambda record: _text(record, "subdivisions", 0, "iso_code"))

    def subdivision(self, level: int) -> str | None:
        """ISO 3166-2 code of the part of the country at a level (0: the largest): `DE-BY`."""
        return self._first(lambda record: _subdivision(record, level))

    def position(self) -> tuple[float, float] | None:
        """Latitude and longitude in degrees."""
        return self._first(_position)

    def postal_code(self) -> str | None:
        """As it is written there."""
        return self._first(lambda record: _text(record, "postal", "code"))

    def metro_code(self) -> int | None:
        """Of the designated market area; in the United States only."""
        return self._first(lambda record: _number(record, "location", "metro_code"))

    def timezone(self) -> str | None:
        """Its name in the tz database: `Europe/Berlin`."""
        return self._first(lambda record: _text(record, "location", "time_zone"))

    def asnum(self) -> int | None:
        """Number of the autonomous system."""
        return self._first(_asnum)

    def is_in_european_union(self) -> bool | None:
        """Of the country: files say it only where it is so."""
        return self._first(_in_union)

    def _first(self, pick: Callable[[Any], _T | None]) -> _T | None:
        return next((found for record in self._all() if (found := pick(record)) is not None), None)

    def _all(self) -> Iterator[Any]:
        """The records of the address, None where a file has none. Each is read once, when it is needed."""
        for index, reader in enumerate(self._readers):
            if index == len(self._records):
                self._records.append(_look_up(reader, self._address))
            yield self._records[index]


def _look_up(reader: Reader, address: str) -> Any:
    try:
        return reader.get(address)
    except Exception:  # an IPv6 address in a file for IPv4, no address, a damaged record: all of that is "not known"
        return None


def _at(record: Any, *path: str | int) -> Any:
    """A value inside a record, None when it is not there or not so."""
    for key in path:
        if isinstance(key, str):
            record = record.get(key) if isinstance(record, dict) else None
        else:
            record = record[key] if isinstance(record, list) and key < len(record) else None
    return record


def _text(record: Any, *path: str | int) -> str | None:
    found = _at(record, *path)
    return found if isinstance(found, str) and found else None


def _number(record: Any, *path: str | int) -> int | None:
    found = _at(record, *path)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _asnum(record: Any) -> int | None:
    number = _number(record, "autonomous_system_number")
    return number if number is not None else _number(record, "traits", "autonomous_system_number")


def _subdivision(record: Any, level: int) -> str | None:
    country, code = _text(record, "country", "iso_code"), _text(record, "subdivisions", level, "iso_code")
    return f"{country}-{code}" if country is not None and code is not None else None


def _position(record: Any) -> tuple[float, float] | None:
    latitude, longitude = _at(record, "location", "latitude"), _at(record, "location", "longitude")
    if not isinstance(latitude, float) or not isinstance(longitude, float):
        return None
    return (latitude, longitude) if abs(latitude) <= 90 and abs(longitude) <= 180 else None


def _in_union(record: Any) -> bool | None:
    if _text(record, "country", "iso_code") is None:
        return None
    return _at(record, "country", "is_in_european_union") is True
