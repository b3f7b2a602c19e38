"""UserError: a mistake that its maker can mend. The command line prints it in one sentence and exits with
status 2.
"""


class UserError(Exception):
    """What is wrong, where, and what to do: one sentence, no traceback."""
