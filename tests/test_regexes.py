"""No regular expression takes more than linear time, whatever the text is that somebody sends.

Every pattern in the code is found: those that modules hold, and literals in calls of :mod:`re`.  Texts are
made of what the pattern itself repeats, with an end that does not match.  Four times as long a text may take
four times as long, but not sixteen times.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Set, Tuple, Union

import pytest

import rproxy

if hasattr(re, "_parser"):
    parser: Any = re._parser
else:  # before Python 3.11
    import sre_parse as parser

ROOT = Path(rproxy.__file__).parent
SKIPPED = ("rproxy.__main__",)
FUNCTIONS = ("match", "search", "fullmatch", "sub", "subn", "split", "findall", "finditer")
SHORT, LONG = 1_000, 4_000  # characters
ALLOWED = 10  # times as long
FAST = 0.002  # seconds that no text may be judged by
CALLS = re.compile(rf"\bre\.(?:{'|'.join(FUNCTIONS)})\(")  # parsing all files would take a second
SEARCHING = ("search", "sub", "subn", "split", "findall", "finditer")

Key = Tuple[Union[str, bytes], int, bool]  # pattern, flags, is it searched for anywhere in a text?


def patterns() -> Dict[Key, str]:
    """All patterns -> where they stand."""
    found: Dict[Key, str] = {}
    seen: Set[int] = set()
    sources = {path: path.read_text(encoding="utf-8") for path in sorted(ROOT.rglob("*.py"))}
    uses = "|".join(SEARCHING)
    searched = set(re.findall(rf"\b(\w+)\.(?:{uses})\(", "\n".join(sources.values())))
    for info in pkgutil.walk_packages([str(ROOT)], "rproxy."):
        if info.name in SKIPPED:
            continue
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            for pattern in _compiled(value, seen):
                alone = isinstance(value, re.Pattern) or hasattr(value, "__self__")
                anywhere = not alone or name in searched or getattr(value, "__name__", "") in SEARCHING
                found.setdefault((pattern.pattern, pattern.flags, anywhere), f"{info.name}.{name}")
    for path, source in sources.items():
        where = str(path.relative_to(ROOT))
        if not CALLS.search(source):
            continue
        names = vars(
            importlib.import_module(".".join(("rproxy", *path.relative_to(ROOT).with_suffix("").parts)))
        )
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call):
                literal, anywhere = _literal(node, names)
                if literal is not None:
                    key = literal, re.compile(literal).flags, anywhere
                    found.setdefault(key, f"{where}:{node.lineno}")
    return found


def _compiled(value: Any, seen: Set[int]) -> Iterator[re.Pattern[Any]]:
    """The patterns in a value of a module: itself, its bound methods, those in collections and objects.

    :param seen: ids of the values that were looked at before
    """
    owner = getattr(value, "__self__", None)
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(owner, re.Pattern):
        yield owner
    elif id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, dict):
        for inner in [*value.keys(), *value.values()]:
            yield from _compiled(inner, seen)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for inner in value:
            yield from _compiled(inner, seen)
    elif type(value).__module__.startswith("rproxy") and hasattr(value, "__dict__"):
        yield from _compiled(vars(value), seen)


def _literal(node: ast.Call, names: Dict[str, Any]) -> Tuple[Union[str, bytes, None], bool]:
    """The pattern in a call of a function of :mod:`re`, and whether it is searched for.

    What an f-string takes from elsewhere than the module is stood in for by a name.

    :param names: of the module
    """
    function = node.func
    if not (
        isinstance(function, ast.Attribute)
        and function.attr in FUNCTIONS
        and isinstance(function.value, ast.Name)
        and function.value.id == "re"
        and node.args
    ):
        return None, False
    pattern, anywhere = node.args[0], function.attr in SEARCHING
    if isinstance(pattern, ast.Constant) and isinstance(pattern.value, (str, bytes)):
        return pattern.value, anywhere
    if isinstance(pattern, ast.JoinedStr):
        return "".join([_part(part, names) for part in pattern.values]), anywhere
    return None, False


def _part(part: ast.expr, names: Dict[str, Any]) -> str:
    """A part of an f-string."""
    if isinstance(part, ast.Constant):
        return str(part.value)
    try:
        return str(
            eval(compile(ast.fix_missing_locations(ast.Expression(ast.JoinedStr([part]))), "", "eval"), names)
        )
    except NameError:
        return "name"


# ---- Texts that are made for a pattern
def samples(tree: Any) -> List[str]:
    """Short texts that parts of a pattern match, the repeated ones above all."""
    found: List[str] = []
    for op, argument in tree:
        name = str(op)
        if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            found += [_example(argument[2]), _example(argument[2]) * max(argument[0], 1)]
            found += samples(argument[2])
        elif name == "SUBPATTERN":
            found += samples(argument[3])
        elif name == "BRANCH":
            for branch in argument[1]:
                found += samples(branch)
        elif name in ("ASSERT", "ASSERT_NOT"):
            found += samples(argument[1])
        elif name == "ATOMIC_GROUP":
            found += samples(argument)
    return [text for text in dict.fromkeys(found) if text]


def _example(tree: Any) -> str:
    """A text that a part of a pattern matches, as a rule."""
    out = ""
    for op, argument in tree:
        name = str(op)
        if name == "LITERAL":
            out += chr(argument)
        elif name in ("ANY", "NOT_LITERAL"):
            out += "a" if argument != ord("a") else "b"
        elif name == "IN":
            out += _member(argument)
        elif name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            out += _example(argument[2]) * max(argument[0], 1)
        elif name == "SUBPATTERN":
            out += _example(argument[3])
        elif name == "BRANCH":
            out += _example(argument[1][0])
        elif name == "ATOMIC_GROUP":
            out += _example(argument)
    return out


def _member(choices: Any) -> str:
    words = {"CATEGORY_DIGIT": "1", "CATEGORY_SPACE": " ", "CATEGORY_WORD": "a"}
    if str(choices[0][0]) == "NEGATE":
        matcher = re.compile(
            "[^" + "".join(re.escape(chr(a)) for o, a in choices[1:] if str(o) == "LITERAL") + "]"
        )
        return next(c for c in "a1 .<" if matcher.match(c))
    op, argument = choices[0]
    if str(op) == "LITERAL":
        return chr(argument)
    if str(op) == "RANGE":
        return chr(argument[0])
    return words.get(str(argument), ".")


def texts(pattern: Key, size: int) -> Iterator[str]:
    tree = parser.parse(*pattern[:2])
    whole = _example(tree)
    parts = [*samples(tree), whole, " ", "a", "<", "{", '"', "\\", "\n"]
    for part in dict.fromkeys(filter(None, parts)):
        for head in ("", whole[: len(whole) // 2]):
            yield head + part * (size // len(part)) + "\x01"
    for one, other in zip(parts, parts[1:]):
        if one and other:
            yield (one + other) * (size // len(one + other)) + "\x01"


def seconds(run: Any, text: Any) -> float:
    taken = []
    for _ in range(3):
        begin = time.process_time()
        run(text)
        taken.append(time.process_time() - begin)
        if taken[-1] < FAST:
            break
    return min(taken)


def _ratio(key: Key, times: int = 3) -> float:
    """How many times as long the longer text takes, of the worst pair of texts."""
    pattern = re.compile(*key[:2])
    run = pattern.search if key[2] else pattern.match
    worst = 0.0
    for short, long in zip(texts(key, SHORT), texts(key, LONG)):
        pair = (short, long) if isinstance(key[0], str) else (short.encode(), long.encode())
        ratios = []
        for _ in range(times):  # another process may have spoilt the caches
            slow = seconds(run, pair[1])
            ratios.append(slow / max(seconds(run, pair[0]), FAST / ALLOWED))
            if slow < FAST or ratios[-1] < ALLOWED:
                break
        worst = max(worst, min(ratios) if slow >= FAST else 0.0)
    return worst


def test_no_pattern_backtracks() -> None:
    found = patterns()
    assert len(found) > 60
    assert [where for key, where in found.items() if _ratio(key) >= ALLOWED] == []


@pytest.mark.parametrize("pattern, size", [(r"(a+)+\.{3}$", 20), (r"\s+$", LONG), ("a*a*=", 400)])
def test_what_backtracks_is_found(pattern: str, size: int) -> None:
    search = re.compile(pattern, re.S).search
    pairs = zip(texts((pattern, 32, True), size // 2), texts((pattern, 32, True), size))
    assert any(seconds(search, long) > 2.5 * seconds(search, short) for short, long in pairs)
