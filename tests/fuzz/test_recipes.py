"""Recipes and overrides of any kind: read or refused; and small corpora from raw text to shards, whole."""

import json
import tempfile
from itertools import pairwise
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll import cli, recipe
from atoll.data.manifest import Manifest
from atoll.data.prepare import check, prepare
from atoll.data.tokenizer import Tokenizer
from atoll.data.tokens import TokenStream
from atoll.errors import UserError
from atoll.recipe import Recipe

TEXT = (recipe.BUILT_IN_DIR / "demo.toml").read_text("utf-8")
LINES = TEXT.splitlines()
PARTS = [
    "[",
    "]",
    "{",
    "}",
    "=",
    '"',
    "'",
    ".",
    ",",
    "\n",
    "nan",
    "-1",
    "1e999",
    "é",
    "\0",
    "\ufeff",
    "#",
    "9" * 5000,
]
KEYS = [
    "stage.0.until",
    "sources.books.text",
    "objective.outer_lr",
    "tokenizer.file",
    "model",
    "island.threads",
    "x",
    ".",
    "=",
    "",
]
VALUES = [
    "1",
    "-1",
    "nan",
    "~",
    "~nobody/x",
    "/",
    "",
    "[]",
    "{",
    "caf\udce9",
    "\0",
    "é",
    '"a"',
    "true",
    "1979-05-27",
]
OVERRIDES = st.lists(
    st.builds("{}={}".format, st.sampled_from(KEYS), st.sampled_from(VALUES)) | st.text(), max_size=3
)
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1"])


def load(path: Path, overrides: list[str]) -> Recipe | None:
    try:
        return recipe.load(path, overrides)
    except UserError as error:
        assert str(error)
        return None


@given(
    lines=st.lists(st.sampled_from([*LINES, *PARTS]), max_size=6),
    at=st.integers(0, len(LINES)),
    encoding=ENCODINGS,
    overrides=OVERRIDES,
)
def test_any_recipe_is_read_or_refused(lines, at, encoding, overrides):
    text = "\n".join([*LINES[:at], *lines, *LINES[at:]])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.toml"
        path.write_bytes(text.encode(encoding, "replace"))
        loaded = load(path, overrides)
        if not lines and not overrides:
            assert (loaded is not None) == (not encoding.startswith("utf-16") and encoding != "utf-32")
        if loaded is not None:
            (Path(folder) / "recipe.json").write_text(json.dumps(loaded.shared()), "utf-8")
            again = load(Path(folder) / "recipe.json", [])
            assert again is not None
            assert again.digest() == loaded.digest()


@given(content=st.binary(max_size=200), overrides=OVERRIDES)
def test_any_bytes_as_a_recipe_are_read_or_refused(content, overrides):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "r.toml").write_bytes(content)
        load(Path(folder) / "r.toml", overrides)


TOKENIZER = Tokenizer.train([f"once upon a time there were {number} whales" for number in range(99)], 280)
DOCUMENTS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=80).filter(lambda text: text.strip()),
    min_size=1,
    max_size=12,
)


def tree(folder: str, fraction: float) -> dict[str, object]:
    return {
        "name": "test",
        "model": {"preset": "demo"},
        "tokenizer": {"file": f"{folder}/tokenizer"},
        "sources": {"s": {"jsonl": f"{folder}/a.jsonl"}},
        "stage": [{"until": 4, "mixture": {"s": 1}}],
        "inner": {"context_length": 2, "tokens_per_step": 2},
        "outer": {"inner_steps": 2},
        "heldout_fraction": fraction,
    }


@settings(max_examples=400)
@given(documents=DOCUMENTS, fraction=st.floats(1e-6, 0.9))
def test_no_text_is_lost_between_a_source_and_its_shards(documents, fraction):
    with tempfile.TemporaryDirectory() as folder:
        TOKENIZER.save(Path(folder) / "tokenizer")
        (Path(folder) / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in documents))
        loaded = recipe.parse(tree(folder, fraction), "test")
        try:
            source = prepare(loaded, Path(folder) / "data").sources["s"]
        except UserError as error:
            assert "tokens to train on" in str(error) or "every document was held out" in str(error)
            return
        check(loaded, Path(folder) / "data")
        found = [
            document for split in ("train", "heldout") for document in decoded(Path(folder) / "data", split)
        ]
    if source.is_end_heldout:
        # Only white space may be missing: a cut may leave a part that is blank, which is no document.
        assert "".join("".join(found).split()) == "".join("".join(documents).split())
    else:
        assert sorted(found) == sorted(documents)


def decoded(data_dir: Path, split: str) -> list[str]:
    stream = TokenStream(data_dir, Manifest.load(data_dir), "s", split)
    if not stream.num_tokens:
        return []
    tokens, begins = stream.read(0, stream.num_tokens)
    edges = [*begins.nonzero()[0].tolist(), len(tokens)]
    return [
        TOKENIZER.decode(tokens[low:high], skip_special_tokens=False)[17:] for low, high in pairwise(edges)
    ]


@settings(max_examples=100)
@given(overrides=OVERRIDES, documents=DOCUMENTS)
def test_prepare_ends_with_a_status_and_never_a_traceback(overrides, documents):
    with tempfile.TemporaryDirectory() as folder:
        TOKENIZER.save(Path(folder) / "tokenizer")
        (Path(folder) / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in documents))
        small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 512}
        plain = tree(folder, 0.1)
        plain["model"] = {"preset": "demo", **small}
        (Path(folder) / "r.json").write_text(json.dumps(plain))
        given_overrides = [text for text in overrides if not text.startswith("-") and "=" in text]
        arguments = ["prepare", f"{folder}/r.json", *given_overrides, "--dir", f"{folder}/run"]
        assert cli.main(arguments) in (0, 2)
