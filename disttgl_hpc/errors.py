"""Errors a user can act on: each message states the rule, the value found and the remedy."""


class DisttglError(Exception):
    """Base of every error that is shown without a traceback."""


class ConfigError(DisttglError):
    """A setting is out of range, unknown or contradicts another one."""


class InputError(DisttglError):
    """Raw input that cannot become an event store; names file, line or row, rule and remedy."""


class StoreError(DisttglError):
    """A file of ours that is missing, truncated, foreign or of another schema version."""


class GridError(DisttglError):
    """Ranks, nodes and the i×j×k grid do not fit together."""


class ProtocolError(DisttglError):
    """A request to the memory daemon that the schedule does not have at this point."""


class DeadlineError(DisttglError):
    """A named wait that lasted longer than its deadline."""


class PeerError(DisttglError):
    """Another rank failed; carries that rank and its message."""


class TrainingError(DisttglError):
    """The training itself went wrong, such as a loss that is no number."""
