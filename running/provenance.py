"""The fingerprint of the code that decides a result."""

import ast
import hashlib
import sys
import sysconfig
import uuid
from collections.abc import Callable
from functools import cache, partial
from importlib.machinery import PathFinder
from pathlib import Path
from types import FunctionType
from typing import Any

from running.released import known_as
from running.streams import print_message

TOP = Path(__file__).resolve().parents[1]

UNRELATED = (TOP / "reporting", TOP / "pictures.py", TOP / "running" / "released.py")
"""Imported code that decides no result: reports, what writes a FILE.npz, and the list of fingerprints."""

PLAIN = (bool, int, float, str, tuple, list)

LIBRARIES = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib"))
"""Where installed code lies; its versions are in the environment of a session."""


def code_of(network: Callable | None = None) -> str:
    """What files record for the code that decides a result.

    `results N`, or a fingerprint if the code is not released.

    Args:
        network: makes the model; None for the program's own.
    """
    return known_as(code_fingerprint(network))


def warn_of_other_code(path: Path, made_by: str, code: str) -> None:
    """Warn if a file was made by other code."""
    if made_by != code:
        print_message(
            f"{path} was made by other code ({made_by}, this is {code}): the result may match neither version"
        )


def code_fingerprint(network: Callable | None = None) -> str:
    """Hash of the files that training reaches by imports.

    It has 12 hexadecimal digits. Comments, docstrings, annotations and layout do not count, nor does the
    version of Python. Imports are read from the source, those inside functions included, so that the result
    depends on no option.

    Args:
        network: makes the model. Its file, what that imports, and what it is bound to are included; without a
            file, the fingerprint differs each time.
    """
    parts = {file.relative_to(TOP).as_posix(): _hash_of(file) for file in _reached(TOP / "main.py", TOP)}
    bound = []
    for each in _bound(network):
        if not callable(each):
            bound.append(repr(each))
            continue
        name, file = getattr(each, "__qualname__", type(each).__qualname__), _file_of(each)
        bound.append(name)
        if file is None:
            bound.append(uuid.uuid4().hex)
        elif file.is_relative_to(TOP) and file.relative_to(TOP).as_posix() in parts:
            continue
        else:
            parts |= {path.name: _hash_of(path) for path in _reached(file, file.parent)}
    return hashlib.sha256(repr((sorted(parts.items()), bound)).encode()).hexdigest()[:12]


def _bound(network: object) -> list[object]:
    """Functions and classes that a callable consists of.

    The values that they are bound to are included.
    """
    found: list[Any] = []
    left: list[Any] = [] if network is None else [network]
    while left:
        each = left.pop(0)
        if any(each is other for other in found):
            continue
        if isinstance(each, partial):
            left += [each.func, *each.args, *each.keywords.values()]
            each = sorted(each.keywords)
        found.append(each)
        for function in [each, *getattr(each, "__dict__", {}).values()]:
            if isinstance(function, FunctionType):
                left += [cell.cell_contents for cell in function.__closure__ or ()]
                used = {name: function.__globals__.get(name) for name in function.__code__.co_names}
                found.append({name: value for name, value in used.items() if isinstance(value, PLAIN)})
    return found


def _file_of(network: Any) -> Path | None:
    """File of a function or class, or of an object's class."""
    named = network if hasattr(network, "__qualname__") else type(network)
    path = getattr(sys.modules.get(named.__module__), "__file__", None)
    return Path(path).resolve() if path and path.endswith(".py") and Path(path).is_file() else None


@cache
def _hash_of(path: Path) -> str:
    return _parsed(path).digest


@cache
def _parsed(path: Path) -> "_Executed":
    return _Executed(path.read_bytes())


@cache
def _reached(first: Path, folder: Path) -> list[Path]:
    """A file with all that it imports, directly or not, except installed packages.

    Args:
        first: the file.
        folder: where the files find modules before those of the program.
    """
    reached: dict[Path, None] = {}
    left = [first]
    while left:
        file = left.pop()
        if file in reached or any(file.is_relative_to(each) for each in UNRELATED):
            continue
        reached[file] = None
        for name in _imported(file):
            left += _found(name, folder)
    return list(reached)


@cache
def _imported(path: Path) -> tuple[str, ...]:
    """Names of the modules that a file may import.

    `from a import b` may mean a.b.
    """
    names: list[str] = []
    for node in _parsed(path).imports:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        else:
            package = path.parent.name if node.level else ""
            module = ".".join(filter(None, [package, node.module]))
            names += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return tuple(dict.fromkeys(names))


@cache
def _found(name: str, folder: Path) -> list[Path]:
    """Files of a module and of the packages around it.

    An installed module has none.
    """
    top, *rest = name.split(".")
    for place in dict.fromkeys([folder, TOP]):
        if (place / f"{top}.py").is_file() or (place / top).is_dir():
            break
    else:
        spec = PathFinder.find_spec(top)
        if spec is None or not spec.origin or not spec.origin.endswith(".py"):
            return []
        origin = Path(spec.origin).resolve()
        if any(origin.is_relative_to(library) for library in LIBRARIES):
            return []
        place = origin.parents[1] if spec.submodule_search_locations else origin.parent
    files: list[Path] = []
    for count in range(len(rest) + 1):
        path = place.joinpath(top, *rest[:count])
        files += [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]
    return files


def fingerprint(source: str) -> str:
    """Hash of what a piece of Python code does."""
    return _Executed(source).digest


class _Executed(ast.NodeTransformer):
    """Source code without what only readers and type checkers use.

    Fields of a class stay, with those parts of an annotation that decide their kind.

    Attributes:
        imports: import statements that are left.
        digest: hash of the syntax tree.
    """

    _in_class = False

    def __init__(self, source: str | bytes) -> None:
        self.imports: list[ast.Import | ast.ImportFrom] = []
        tree = self.visit(ast.parse(source))
        self.digest = hashlib.sha256(repr(_outline(tree)).encode()).hexdigest()

    def generic_visit(self, node: ast.AST) -> ast.AST:
        outer, self._in_class = self._in_class, isinstance(node, ast.ClassDef)
        node = super().generic_visit(node)
        self._in_class = outer
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if self._in_class:
            kinds = [name for name in ("ClassVar", "InitVar", "KW_ONLY") if name in ast.dump(node.annotation)]
            node.annotation = ast.Constant(" ".join(kinds))
            return self.generic_visit(node)
        if node.value is None:
            return None
        return self.generic_visit(ast.Assign(targets=[node.target], value=node.value))

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.AST]:
        if isinstance(node.test, ast.Name | ast.Attribute) and "TYPE_CHECKING" in ast.dump(node.test):
            return [each for each in map(self.visit, node.orelse) if each is not None]
        return self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> ast.AST:
        self.imports.append(node)
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        if node.module == "__future__":
            return None
        self.imports.append(node)
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if text else self.generic_visit(node)  # docstrings, and notes to values


def _outline(node: object) -> object:
    """A syntax tree as nested lists without empty fields.

    The number of empty fields depends on the version of Python.
    """
    if isinstance(node, list):
        return [_outline(each) for each in node]
    if not isinstance(node, ast.AST):
        return node if node is None else repr(node)
    fields = ((name, getattr(node, name, None)) for name in node._fields if name != "ctx")
    return [
        type(node).__name__,
        *((name, _outline(value)) for name, value in fields if value not in (None, [])),
    ]
