"""The exception for whatever a user can put right; the command line prints it and exits with status 2."""


class UserError(Exception):
    """One sentence: what is wrong, where, and what to do. It is shown without a traceback."""


class DiskError(UserError):
    """What was to be written cannot be: the disk is full, or the place may not be written.

    Unlike other failures of a step it will not pass by itself, so whoever meets it stops where it is.
    """
