"""Write CIFAR-100 as two unlike tasks on the same images, into a FILE.npz.

python studies/make_unlike.py DATA_PATH FILE.npz [--overwrite]

The tasks are its 100 classes and its 20 superclasses. DATA_PATH is the directory of the data sets; CIFAR-100
is downloaded into it if missing.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from errors import UserError
from main import REQUIRED, check_packages, outside_cause
from running.streams import flush_streams, in_one_line, open_streams, print_result
from storage.files import replacing
from tasks import CIFAR100_SUPERCLASSES

TOP = Path(__file__).resolve().parents[1]


def write(data_path: Path, path: Path, overwrite: bool) -> None:
    """Write the file.

    Args:
        data_path: directory of the data sets.
        path: the file.
        overwrite: whether to replace an existing file.

    Raises:
        UserError: the file exists or cannot be written, or CIFAR-100 cannot be loaded.
    """
    if path.suffix.lower() != ".npz":
        raise UserError(f"{path} does not end in .npz: give the file a name that does")
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists: give another file, or --overwrite to replace it")
    if not path.parent.is_dir():
        raise UserError(f"there is no directory {path.parent}: make it, or give another file")
    check_packages(REQUIRED)
    import numpy as np  # after the checks, like torch

    from data import cifar100

    superclasses = np.empty(100, dtype=np.int64)
    for number, classes in enumerate(CIFAR100_SUPERCLASSES.values()):
        superclasses[list(classes)] = number
    arrays = {"task_names": np.array(["class", "superclass"])}
    for name, (images, labels) in zip(("train", "test"), cifar100(data_path), strict=True):
        arrays[f"{name}_images"] = images.permute(0, 2, 3, 1).numpy()
        arrays[f"{name}_labels"] = np.stack([labels.numpy(), superclasses[labels.numpy()]], axis=1)
    with replacing(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description="Write CIFAR-100 as two tasks on the same images: its classes and its superclasses."
    )
    parser.add_argument("data_path", metavar="DATA_PATH", type=Path, help="directory of the data sets")
    parser.add_argument("path", metavar="FILE.npz", type=Path, help="the file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    args = parser.parse_args(argv)
    try:
        write(args.data_path, args.path, args.overwrite)
        words = ["python", str(TOP / "main.py"), "--train", "--setting", "5", "--data", str(args.path)]
        print_result(f"wrote {args.path}; train on it with\n{shlex.join(words)}")
    except Exception as error:
        cause = str(error) if isinstance(error, UserError) else outside_cause(error)
        if cause is None:
            raise
        print(f"make_unlike.py: error: {in_one_line(cause)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    open_streams()
    code = main()
    flush_streams()
    sys.exit(code)
