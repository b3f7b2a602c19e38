"""The recipe: the TOML file that describes a run, as frozen structs whose types say what is allowed.

Everything but `[island]` belongs to the run: its digest is checked when an island joins. `[island]` belongs
to each machine.

The tables are in `model.py`, `data.py`, `objective.py`, `inner.py`, `outer.py`, `about.py` and `island.py`,
and the whole in `recipe.py`: a new table is a struct in a file of its own, and a field there. `bounds.py` has
the bounds that values share, `rules.py` what must agree with what, `read.py` how a recipe is read.
"""

from atoll.recipe.about import About
from atoll.recipe.chat import Chat
from atoll.recipe.data import Columns, Range, Source, Stage, Tokenizer
from atoll.recipe.inner import AdamW, Inner, Muon, Schedule
from atoll.recipe.island import Island
from atoll.recipe.lora import Lora
from atoll.recipe.model import Model
from atoll.recipe.objective import AnyObjective, Distill, Dpo, Ipo, Pretrain, Sft, SimPo
from atoll.recipe.outer import Outer
from atoll.recipe.read import BUILT_IN_DIR, find, load, own_island, parse, variants, with_island
from atoll.recipe.recipe import Recipe, differing_keys

__all__ = [
    "BUILT_IN_DIR",
    "About",
    "AdamW",
    "AnyObjective",
    "Chat",
    "Columns",
    "Distill",
    "Dpo",
    "Inner",
    "Ipo",
    "Island",
    "Lora",
    "Model",
    "Muon",
    "Outer",
    "Pretrain",
    "Range",
    "Recipe",
    "Schedule",
    "Sft",
    "SimPo",
    "Source",
    "Stage",
    "Tokenizer",
    "differing_keys",
    "find",
    "load",
    "own_island",
    "parse",
    "variants",
    "with_island",
]
