"""The errors Trellis raises on purpose, each with a message that says how to go on.

A command line prints the message without a traceback; a library caller catches the class, or the
built-in exception that it also is.
"""


class TrellisError(Exception):
    """Base of every error whose message is written for the person at the keyboard."""


class DataError(TrellisError, ValueError):
    """Data that cannot be used: missing, truncated, corrupt, or of the wrong kind."""


class ConfigError(TrellisError, ValueError):
    """A configuration that cannot be run: an unknown name, a value out of range."""


class RunError(TrellisError, RuntimeError):
    """A run directory that cannot be used: locked, unwritable, or of another version."""
