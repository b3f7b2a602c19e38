"""What was made from what, as text."""

from atoll.post.pipeline.product import Product
from atoll.recipe.pipeline import Pipeline


def picture(pipeline: Pipeline, products: dict[str, Product]) -> str:
    """A line a step: its number, its name, the numbers of the steps it was made from, and what it found."""
    rows = rows_of(pipeline, products)
    widths = [max(len(row[column]) for row in [("", "step", "from", ""), *rows]) for column in range(3)]
    head = f"{'':>{widths[0]}}  {'step':{widths[1]}}  {'from':{widths[2]}}"
    lines = [
        f"{number:>{widths[0]}}  {name:{widths[1]}}  {origin:{widths[2]}}  {figures}".rstrip()
        for number, name, origin, figures in rows
    ]
    return "\n".join([head.rstrip(), *lines]) + "\n"


def rows_of(pipeline: Pipeline, products: dict[str, Product]) -> list[tuple[str, str, str, str]]:
    """(number, name, numbers of the steps that it was made from, figures) of each step."""
    numbers = {step.name: number for number, step in enumerate(pipeline.step, start=1)}
    return [
        (
            f"{numbers[step.name]}",
            step.name,
            " + ".join(str(numbers[name]) for name in products[step.name].made_from) or "-",
            _figures(products[step.name]),
        )
        for step in pipeline.step
    ]


def _figures(product: Product) -> str:
    """Those of a step's figures that are one number or a word, and how long it took."""
    shown = [
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in product.found.items()
        if isinstance(value, float | str) and value != ""
    ]
    nested = [
        f"{name} {key} {value:.4g}"
        for name, table in product.found.items()
        if isinstance(table, dict)
        for key, value in table.items()
        if isinstance(value, float)
    ]
    return ", ".join([*shown, *nested, f"{product.seconds:,.0f} s"])
