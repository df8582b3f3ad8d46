"""The errors gibench raises on purpose: each message is one line that says what was wrong and how to mend it."""


class GibenchError(Exception):
    """Something went wrong that its message explains in full; the CLI prints it without a traceback."""


class UsageError(GibenchError):
    """The request itself is wrong (unknown name, value out of range, ...); the CLI exits with code 2."""


class PluginError(UsageError, TypeError):
    """A plugin does not keep its contract; the message says which one and what is due."""


class StoreError(GibenchError):
    """A tracking store failed while it was in use; what is finished is in the results folder all the same."""


class AttackError(GibenchError):
    """An attack could not run or returned something that is no reconstruction; its cell is `failed`."""


class NotApplicableError(GibenchError):
    """A defense can never apply to such a model or batch; its cell is `skipped`."""


class DataWarning(UserWarning):
    """Some of a user's data was left out or converted; the CLI prints it as one line."""
