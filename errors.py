"""Errors that a user can put right."""

import re
from errno import ENOMEM

OUT_OF_MEMORY = re.compile("(out of|allocate|not enough) memory|_ALLOC_FAILED|failed to map segment")
"""Texts of libraries' errors when memory runs out."""


class UserError(Exception):
    """Error that the user can put right.

    Its text says in one line what is wrong and what to do.
    """


class CommandError(UserError):
    """Invalid command line."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out.

    It may come from Python, the system or a library.
    """
    if isinstance(error, RuntimeError | OSError | ImportError):
        return getattr(error, "errno", None) == ENOMEM or OUT_OF_MEMORY.search(str(error)) is not None
    return isinstance(error, MemoryError)
