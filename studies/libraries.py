"""Slow imports, done once for all runs of a study.

The fork server of a study imports this module.
"""

from contextlib import suppress
from importlib import import_module

for name in ("torch", "torch._dynamo", "torchvision.datasets"):  # PyTorch's optimizers import the second
    with suppress(Exception):  # a run that needs it reports the error
        import_module(name)
