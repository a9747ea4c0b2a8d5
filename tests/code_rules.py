"""Rules for what is inside one file: statements, names, classes and sizes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from architecture import PACKAGE, File, dotted

VAGUE = {"util", "utils", "helper", "helpers", "manager", "managers", "misc", "common"}
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
PRIVATE_PATH = re.compile(r"(?<![\w/.])/(?:root|work)(?:/|\b(?!\w))")
BASES = {"Exception", "BaseException", "Protocol", "Generic", "NamedTuple", "TypedDict", "Enum", "IntEnum", "StrEnum"}
LOOPS = (ast.For, ast.comprehension, ast.Starred)
NEURAL = {"Module", "Function"}  # torch.nn.Module, torch.autograd.Function


def check_statements(file: File, tree: ast.Module) -> Iterator[str]:
    """No global, bare or silent except, print, mutable default, star import, swallowed keywords or vague name."""
    for node in ast.walk(tree):
        where = f"{file.path}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Global):
            yield f"{where}: global"
        if isinstance(node, ast.ExceptHandler):
            if node.type is None:
                yield f"{where}: bare except"
            if all(isinstance(part, ast.Pass) or is_ellipsis(part) for part in node.body):
                yield f"{where}: except that does nothing; use contextlib.suppress and say why, or handle it"
        if isinstance(node, ast.Call) and dotted(node.func) == "print" and file.inside:
            yield f"{where}: print"
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            yield f"{where}: star import"
        if isinstance(node, ast.Name) and node.id == "NotImplementedError":
            yield f"{where}: NotImplementedError"
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from (f"{where}: {text}" for text in check_signature(node))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and VAGUE & words(node.name):
            yield f"{where}: {node.name} is a vague name"


def is_ellipsis(node: ast.stmt) -> bool:
    """Tell whether a statement is `...`."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and node.value.value is ...


def words(name: str) -> set[str]:
    """Return the words of a name in snake_case or CamelCase, in lower case."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}


def check_signature(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> Iterator[str]:
    """At most 7 arguments, no mutable default, and keyword arguments only if they are handed on."""
    arguments = node.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    count = len(names) - (names[:1] in (["self"], ["cls"]))
    if count > 7:
        yield f"{count} arguments; 7 are allowed, then a frozen dataclass"
    for default in (*arguments.defaults, *arguments.kw_defaults):
        made = isinstance(default, ast.Call) and ast.unparse(default.func) in ("list", "dict", "set")
        if made or isinstance(default, (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)):
            yield f"mutable default {ast.unparse(default)}"
    keywords = arguments.kwarg.arg if arguments.kwarg else ""
    if keywords and not any(is_whole(part, keywords) for part in ast.walk(node)):
        yield f"**{keywords} swallows what callers say"


def is_whole(node: ast.AST, name: str) -> bool:
    """Tell whether a node uses a variable as a whole: as an argument, spread, or looped over; not by single keys."""
    if isinstance(node, ast.Call):
        used = [*node.args, *(word.value for word in node.keywords), node.func]
    else:
        used = [getattr(node, field, None) for field in ("iter", "value") if isinstance(node, LOOPS)]
    plain = (name, f"*{name}", f"{name}.items", f"{name}.items()")
    return any(part is not None and ast.unparse(part) in plain for part in used)


def check_classes(file: File, tree: ast.Module) -> Iterator[str]:
    """Public values are frozen; only exceptions, protocols and torch modules have bases."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        for decorator in map(ast.unparse, node.decorator_list):
            loose = re.match(r"(dataclasses\.)?dataclass\b", decorator) and "frozen=True" not in decorator
            if loose and not node.name.startswith("_"):
                yield f"{file.path}:{node.lineno}: dataclass {node.name} is not frozen"
        bases = [ast.unparse(base) for base in node.bases]
        for base in [] if "Protocol" in bases else bases:
            name = base.partition("[")[0].rpartition(".")[2]
            raised = name.endswith(("Error", "Exception", "Warning")) or is_exception(name, tree)
            if name not in BASES | NEURAL and not raised:
                yield f"{file.path}:{node.lineno}: {node.name} inherits the implementation of {base}"


def is_exception(name: str, tree: ast.Module) -> bool:
    """Tell whether a class of this file ends in Exception, following its first bases."""
    classes = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    while name in classes and classes[name].bases:
        name = ast.unparse(classes[name].bases[0])
    return name.endswith(("Error", "Exception"))


def check_sizes(file: File, tree: ast.Module) -> Iterator[str]:
    """Files, functions and the host contract stay small enough to read at once."""
    limits = {f"{PACKAGE}/hosts/api.py": 150}
    lines = len(file.text.splitlines())
    limit = 40 if file.path.startswith("scripts/") else limits.get(file.path, 300)
    if lines > limit:
        yield f"{file.path}: {lines} lines; {limit} are allowed"
    allowed = 150 if file.path == f"{PACKAGE}/train/loop.py" else 80
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > allowed:
                yield f"{file.path}:{node.lineno}: {node.name} has {length} lines; {allowed} are allowed"


def check_text(file: File, tree: ast.Module) -> Iterator[str]:
    """No notes of unfinished work, no path of somebody's machine, no vague file name."""
    for number, line in enumerate(file.text.splitlines(), 1):
        if UNFINISHED.search(line):
            yield f"{file.path}:{number}: unfinished: {line.strip()}"
        if PRIVATE_PATH.search(line):
            yield f"{file.path}:{number}: a path of one machine: {line.strip()}"
    for part in PurePosixPath(file.path).with_suffix("").parts:
        if VAGUE & words(part):
            yield f"{file.path}: {part} is a vague name"
