"""Set-up of a session: device and data."""

import ctypes
import os
from contextlib import suppress
from dataclasses import replace

import torch

from data import DataSet, load
from errors import UserError
from options import Run
from running.machine import core_quota, num_cores
from running.printing import print_if_synthetic
from running.streams import print_message
from settings import SETTINGS


def load_data(run: Run, trained_validation: float = 0.0) -> DataSet:
    """Load the data set of a run onto its device, and describe both.

    Args:
        run: options of the run.
        trained_validation: share of the training images that the training of an evaluated model held out.

    Raises:
        UserError: the device or the data cannot be used.
    """
    spec = replace(run.spec, validation=run.spec.validation or trained_validation)
    on_test = not run.spec.validation
    data = load(spec, run.data_path, run.image_size, pick_device(run.device), run.task, on_test)
    keep_freed_memory()
    setting = SETTINGS[run.setting]
    print_if_synthetic(run.spec.title, run.synthetic)
    print_message(
        f"{run.spec.title}, {len(data.train)} training and {len(data.test)} {run.spec.scored_on} images "
        f"of {run.image_size} x {run.image_size} pixels, on {data.device} in {run.precision}; "
        f"{setting.name}: {setting.words}"
    )
    return data


def pick_device(name: str) -> torch.device:
    """The device that --device asks for, set up to compute reproducibly.

    Raises:
        UserError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise UserError(f"there is no device {name} here; use --device cpu")
    if core_quota() < torch.get_num_threads() and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(num_cores())  # more threads than a container grants would wait for each other
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:  # from its driver, or from a PyTorch built without it
        reason = str(error).splitlines()[0]
        raise UserError(f"the device {name} cannot be used ({reason}); use --device cpu") from error
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False  # fp32 is fp32, in convolutions as elsewhere
    return torch.device(name)


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next step.

    By default glibc returns large blocks to the system, which then clears the same pages for every step. With
    other C libraries this does nothing.
    """
    max_mappings, trim_threshold = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of mallopt
    with suppress(OSError, TypeError, AttributeError):
        c_library = ctypes.CDLL(None)
        c_library.mallopt(max_mappings, 0)
        c_library.mallopt(trim_threshold, 2**31 - 1)
