"""Small errors that somebody might make, found in the source of a module one by one.

Only what is inside functions is changed, because that is what can be exchanged in a running process.  Words
for people are left alone: text in f-strings, docstrings, and constants with several words.
"""

from __future__ import annotations

import ast
from types import CodeType
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple, Type

OPERATORS: Dict[Type[ast.AST], Type[ast.AST]] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt},
    **{ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In},
    **{ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult},
    **{ast.Break: ast.Continue, ast.Continue: ast.Break},
}
Path = Tuple[str, ...]  # of a function: its class, if it has one, and its name
Change = Callable[[ast.AST], Optional[ast.AST]]


class Mutant(NamedTuple):
    """One error: a part of a module's tree, and what it is replaced with.

    ``module``, ``path``: in which function.
    """

    module: str
    path: Path
    tree: ast.Module
    filename: str
    holder: ast.AST
    field: str
    index: Optional[int]
    other: ast.AST

    def _put(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.holder, self.field, node)
        else:
            getattr(self.holder, self.field)[self.index] = node

    @property
    def _node(self) -> ast.AST:
        value = getattr(self.holder, self.field)
        node: ast.AST = value if self.index is None else value[self.index]
        return node

    @property
    def line(self) -> int:
        line: int = getattr(self._node, "lineno", getattr(self.holder, "lineno", 0))
        return line

    def code(self) -> CodeType:
        """What replaces the code of the function."""
        right = self._node
        self._put(self.other)
        code = compile(ast.fix_missing_locations(self.tree), self.filename, "exec", dont_inherit=True)
        self._put(right)
        for name in self.path:
            code = next(one for one in code.co_consts if isinstance(one, CodeType) and one.co_name == name)
        return code

    def change(self) -> Tuple[str, str]:
        """The source before and after it."""
        right = self._node
        whole = isinstance(right, tuple(OPERATORS))
        before = _short(self.holder if whole else right)
        self._put(self.other)
        after = _short(self.holder if whole else self.other)
        self._put(right)
        return before, after


def _operator(node: ast.AST) -> Optional[ast.AST]:
    other = OPERATORS.get(type(node))
    return other() if other is not None else None


def _constant(node: ast.AST) -> Optional[ast.AST]:
    if not isinstance(node, ast.Constant) or node.value is None or node.value is Ellipsis:
        return None
    value = node.value
    if isinstance(value, bool):
        return ast.Constant(not value)
    if isinstance(value, (int, float)):
        return ast.Constant(value + 1)
    if " " in value.strip() if isinstance(value, str) else b" " in value.strip():
        return None
    return ast.Constant(value + ("x" if isinstance(value, str) else b"x"))


def _left_out(node: ast.AST) -> Optional[ast.AST]:
    """A call, an assignment to what exists already, or a deletion that somebody forgot."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return None  # a docstring
    return ast.Pass() if isinstance(node, (ast.Expr, ast.AugAssign, ast.Delete)) else None


def _condition(node: ast.AST) -> Optional[ast.AST]:
    """A branch that is always taken."""
    if not isinstance(node, (ast.If, ast.IfExp)) or isinstance(node.test, ast.Constant):
        return None
    return _with(node, "test", ast.Constant(True))


def _never(node: ast.AST) -> Optional[ast.AST]:
    """A branch that is never taken."""
    return _with(node, "test", ast.Constant(False)) if _condition(node) is not None else None


def _negation(node: ast.AST) -> Optional[ast.AST]:
    return node.operand if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not) else None


def _returned(node: ast.AST) -> Optional[ast.AST]:
    if not isinstance(node, ast.Return) or node.value is None or isinstance(node.value, ast.Constant):
        return None
    return ast.Return(ast.Constant(None))


def _keyword(node: ast.AST) -> Optional[ast.AST]:
    """A keyword argument that is left out."""
    named = isinstance(node, ast.Call) and node.keywords and node.keywords[-1].arg is not None
    return _with(node, "keywords", node.keywords[:-1]) if named else None  # type: ignore[attr-defined]


def _with(node: ast.AST, field: str, value: object) -> ast.AST:
    return type(node)(**{**dict(ast.iter_fields(node)), field: value})


CHANGES: List[Change] = [
    *(_operator, _constant, _left_out, _condition, _never, _negation, _returned, _keyword)
]


def _places(body: List[ast.stmt]) -> Iterator[Tuple[ast.AST, str, Optional[int]]]:
    """(node, field, index) for every child below some statements, but not inside f-strings."""
    waiting: List[ast.AST] = [ast.Module(body, [])]
    while waiting:
        node = waiting.pop()
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list"):
                continue
            for index, child in enumerate(value if isinstance(value, list) else [value]):
                if isinstance(child, ast.AST):
                    yield node, field, index if isinstance(value, list) else None
                    if not isinstance(child, ast.JoinedStr):
                        waiting.append(child)


def functions(tree: ast.Module) -> Iterator[Tuple[Path, ast.FunctionDef]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield (node.name,), node
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef):
                    yield (node.name, inner.name), inner


def mutants(module: str, source: str, filename: str) -> Iterator[Mutant]:
    """All errors in a module."""
    tree = ast.parse(source)
    for path, function in functions(tree):
        for holder, field, index in _places(function.body):
            value = getattr(holder, field)
            for change in CHANGES:
                other = change(value if index is None else value[index])
                if other is not None:
                    yield Mutant(module, path, tree, filename, holder, field, index, other)


def _short(node: ast.AST) -> str:
    if not isinstance(node, (ast.expr, ast.stmt)):
        return type(node).__name__.lower()
    return " ".join(ast.unparse(ast.fix_missing_locations(node)).split())[:140]
