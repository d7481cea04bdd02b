"""Errors a user can act on: each message states the rule, the value found and the remedy."""

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
EXIT_BY_SIGNAL = 128
"""Plus the signal's number: the exit status of a killed process in a shell."""


class DisttglError(Exception):
    """Base class of all errors that are shown without a traceback."""


class ConfigError(DisttglError):
    """A setting is out of range, unknown or contradicts another one."""


class InputError(DisttglError):
    """Raw input that cannot be prepared; names file, line or row, rule and remedy."""


class StoreError(DisttglError):
    """A store, checkpoint or run file that is missing, truncated, foreign or of another schema version."""


class GridError(DisttglError):
    """Ranks, nodes and the i×j×k grid do not fit together."""


class ProtocolError(DisttglError):
    """A request to the memory daemon that is out of the schedule's order."""


class DeadlineError(DisttglError):
    """A named wait that lasted longer than its deadline."""


class PeerError(DisttglError):
    """Another rank failed; carries that rank and its message."""


class TrainingError(DisttglError):
    """Training failed, for example by a NaN or infinite loss."""
