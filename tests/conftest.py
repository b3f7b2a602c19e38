"""Shared by all tests: worlds are importable, and hypothesis never judges by the clock."""

import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))
settings.register_profile("atoll", deadline=None, print_blob=True)
settings.load_profile("atoll")
