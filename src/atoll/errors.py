"""The exception for whatever a user can put right; the command line prints it and exits with status 2."""


class UserError(Exception):
    """One sentence: what is wrong, where, and what to do. It is shown without a traceback."""
