import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from atoll.island.heap import keep_heap

def touch() -> None:
    torch.zeros(1 << 24)  # 64 MiB

if sys.argv[1] == "keep":
    keep_heap()
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    return int(subprocess.check_output([sys.executable, "-c", FAULTS, mode]))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's heap is kept")
def test_a_buffer_that_is_asked_for_again_touches_no_fresh_pages() -> None:
    pages = (64 << 20) // 4096
    assert faults("keep") < pages / 100 < pages <= faults("leave")
