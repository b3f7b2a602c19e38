"""Shared by all tests: worlds and benches are importable, and hypothesis never judges by the clock."""

import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "bench"))
settings.register_profile("atoll", deadline=None, print_blob=True)
settings.load_profile("atoll")
