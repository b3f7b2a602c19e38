"""What tests let a child of bench/harness/children.py do. Imports nothing heavy, as each child imports it."""

from atoll.errors import UserError


def give(number: int) -> dict[str, int]:
    return {"number": number}


def run_out_of_memory() -> None:
    raise type("OutOfMemoryError", (RuntimeError,), {})("tried to allocate 80 GiB")


def lack_something() -> None:
    raise UserError("island.float8 needs torchao")


def break_something() -> None:
    raise ValueError("no such shape\nand more")
