"""Which exceptions a user can mend, and how they are told: in one line, without a traceback."""

from __future__ import annotations

from slowfast.config.redaction import redact
from slowfast.config.shown import one_line

USER_ERRORS = (ValueError, FloatingPointError, OSError)
"""Wrong values and files, a diverged loss, a full or forbidden disk. Anything else is a defect of the program."""


def describe_error(error: BaseException) -> str:
    """Say what went wrong, in one line; of an operating-system error the file comes first."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return one_line(f"{error.filename}: {error.strerror}")
    return one_line(str(error))


def error_line(error: BaseException) -> str:
    """What a program says on stderr before it ends, without secrets."""
    return redact(f"error: {describe_error(error)}")
