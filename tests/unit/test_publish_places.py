"""Places are found by their names, offline; the map shows those that were found."""

from pathlib import Path

import pytest
from matplotlib.image import imread

from atoll.publish.facts import Loss, Place
from atoll.publish.pictures import draw_losses, draw_map
from atoll.publish.places import located


@pytest.mark.parametrize(
    ("name", "latitude", "longitude"),
    [
        ("London", 51.5, -0.1),
        ("london, CA", 43.0, -81.2),
        ("Paris, Texas, US", 33.7, -95.6),
        ("Paris,TX", 33.7, -95.6),
        ("Kyoto, Japan", 35.0, 135.8),
        ("München", 48.1, 11.6),
        ("東京", 35.7, 139.7),
        ("Cambridge, uk", 52.2, 0.1),
        ("Cambridge, Massachusetts, USA", 42.4, -71.1),
    ],
)
def test_a_city_is_found_by_its_names_and_regions(name: str, latitude: float, longitude: float) -> None:
    found = located(name)
    assert found is not None
    assert found == pytest.approx((latitude, longitude), abs=0.2)


@pytest.mark.parametrize(
    "name", ["Nowhere Town", "Kyoto, Brazil", "London, Xanadu", "", ",", "203.0.113.5", "<b>London</b>"]
)
def test_what_names_no_known_city_is_nowhere(name: str) -> None:
    assert located(name) is None


def test_the_map_has_a_dot_where_a_place_is_and_nowhere_else(tmp_path: Path) -> None:
    for number, places in enumerate(
        ([], [Place("", (0.0, 90.0))], [Place("", (0.0, 90.0)), Place("", None)])
    ):
        draw_map(tmp_path / f"{number}.png", places)
    empty, one, with_lost = (imread(tmp_path / f"{number}.png") for number in range(3))
    rows, columns = (abs(one - empty).sum(-1) > 0.1).nonzero()
    height, width = empty.shape[:2]
    assert columns.mean() / width == pytest.approx(270 / 360, abs=0.01)
    assert rows.mean() / height == pytest.approx(85 / 145, abs=0.01)
    assert columns.max() - columns.min() < 30
    assert (with_lost == one).all()


def test_the_curve_of_losses_is_a_picture(tmp_path: Path) -> None:
    for number, losses in enumerate(([4.0, 3.0], [4.0, 3.5])):
        draw_losses(tmp_path / f"{number}.png", [Loss(n * 100, loss) for n, loss in enumerate(losses)])
    one, other = (imread(tmp_path / f"{number}.png") for number in range(2))
    assert one.shape == other.shape
    assert (one != other).any()
