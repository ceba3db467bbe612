"""Errors that a user can put right."""

import re
from errno import ENOMEM

OUT_OF_MEMORY = re.compile("(out of|allocate|not enough) memory|_ALLOC_FAILED|failed to map segment")
"""What errors of libraries say if memory did not suffice."""


class UserError(Exception):
    """Something that the user can put right. Its text says what is wrong and what to do, in one line."""


class CommandError(UserError):
    """Invalid command line."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, the system or a library says that memory did not suffice."""
    if isinstance(error, RuntimeError | OSError | ImportError):
        return getattr(error, "errno", None) == ENOMEM or OUT_OF_MEMORY.search(str(error)) is not None
    return isinstance(error, MemoryError)
