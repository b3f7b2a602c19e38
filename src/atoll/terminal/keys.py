"""Keys, one by one and without Enter, where there is a keyboard."""

import os
import select
import sys
import time
from typing import Any


class Keys:
    """As a context manager it gives the terminal back as it was."""

    def __init__(self) -> None:
        self.there = sys.stdin.isatty()
        self._before: list[Any] = []

    def __enter__(self) -> "Keys":
        if self.there:
            import termios
            import tty

            self._before = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before:
            import termios

            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)

    def pressed(self, seconds: float = 0.0) -> str:
        """The key that was pressed since the last call, the first of several; "" for none.

        Waits so long for one, and as long where there is no keyboard.
        """
        if not self.there:
            time.sleep(seconds)
            return ""
        if not select.select([sys.stdin], [], [], seconds)[0]:
            return ""
        return os.read(sys.stdin.fileno(), 64).decode(errors="ignore")[:1]
