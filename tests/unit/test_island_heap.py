import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from atoll.island.heap import keep_heap

def touch() -> None:
    torch.zeros(1 << 24)  # 64 MiB

keep_heap()
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's heap is kept")
def test_a_buffer_that_is_asked_for_again_touches_no_fresh_pages() -> None:
    pages = (64 << 20) // 4096  # else; fewer where the kernel gives huge ones by itself
    assert int(subprocess.check_output([sys.executable, "-c", FAULTS])) < pages / 100
