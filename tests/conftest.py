"""Shared by all tests: worlds, benches and the makers of docs are importable, and hypothesis never judges by
the clock.
"""

import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))
sys.path += [str(Path(__file__).parents[1] / place) for place in ("bench", "docs")]
settings.register_profile("atoll", deadline=None, print_blob=True)
settings.load_profile("atoll")
