"""Check values against the signature of what they will be passed to.

A keyword-only constructor is the schema of its option files: it owns the names, the types, the ranges
(:mod:`scaledreamer.constraints`) and the defaults. Nothing is declared twice.
"""

import difflib
import inspect
import json
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pydantic
from pydantic import ConfigDict, TypeAdapter


@dataclass(frozen=True)
class Problem:
    """One mistake: the key below the checked node, and what is wrong with it."""

    key: str
    message: str


def nearest(name: str, valid: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` or the list of valid names, to end an error message with."""
    valid = sorted(valid)
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"valid names are: {', '.join(valid) or 'none'}."


def problems_of_call(
    target: Callable[..., Any], arguments: Mapping[str, Any], *, partial: bool, supplied: frozenset[str]
) -> list[Problem]:
    """What is wrong with calling ``target(**arguments)``.

    Args:
        target: a class or function.
        arguments: plain values; a value that is itself built by a ``_target_`` stands as :data:`BUILT`.
        partial: the call is completed later, so arguments may be missing.
        supplied: names that the run passes itself when it builds the object.
    """
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):  # builtins without a signature
        return []
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = {n: p for n, p in parameters.items() if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    hints = _type_hints(target)
    found = []
    for name, value in arguments.items():
        if name not in named:
            if not open_ended:
                valid = [n for n in named if n not in supplied and n != "self"]
                found.append(Problem(name, f"no such option; {nearest(name, valid)}"))
        elif value is not BUILT and name in hints:
            found += _problems_of_value(name, value, hints[name])
    for name, parameter in named.items():
        given = name in arguments or name in supplied or name == "self"
        if parameter.default is parameter.empty and not given and not partial:
            found.append(Problem(name, f"is required; set {name}=..."))
    return found


BUILT: Any = object()
"""Stands for a value that its own ``_target_`` builds; it is checked there."""


class Part:
    """The type of an argument that only a ``_target_`` can give, whatever it builds."""


def _type_hints(target: Callable[..., Any]) -> dict[str, Any]:
    function = inspect.unwrap(target.__init__ if inspect.isclass(target) else target)
    known = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        one = SimpleNamespace(__annotations__={name: annotation})  # by itself, so that no other hides it
        try:
            known |= typing.get_type_hints(one, getattr(function, "__globals__", {}), include_extras=True)
        except Exception:  # a name that only exists for type checkers
            continue
    return known


def _problems_of_value(name: str, value: Any, hint: Any) -> list[Problem]:
    if typing.get_origin(hint) is dict and isinstance(value, Mapping):
        inner = typing.get_args(hint)[1]
        return [p for key, item in value.items() for p in _problems_of_value(f"{name}.{key}", item, inner)]
    if _contains_built(value):
        return []
    if getattr(hint, "_is_protocol", False):
        return [Problem(name, _unbuilt(value))]
    try:
        # JSON's strict mode is what YAML needs: lists may become tuples and ints floats, "5" never becomes 5.
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
        adapter.validate_json(json.dumps(value), strict=True)
    except pydantic.ValidationError as error:
        return [Problem(name, _first_sentence(error, value))]
    except (pydantic.errors.PydanticUserError, TypeError, ValueError):  # a type that only Python can judge
        return []
    return []


def _contains_built(value: Any) -> bool:
    if value is BUILT:
        return True
    if isinstance(value, Mapping):
        return any(_contains_built(v) for v in value.values())
    return isinstance(value, (list, tuple)) and any(_contains_built(v) for v in value)


def _first_sentence(error: pydantic.ValidationError, value: Any) -> str:
    """The distinct complaints in one line: ``input should be 'sds' or 'uniform', not 'sd'``."""
    messages = dict.fromkeys(_message(e) for e in error.errors() if e["type"] not in _ONLY_BUILT)
    return f"{', or '.join(messages)}, not {value!r}." if messages else _unbuilt(value)


_ONLY_BUILT = ("is_instance_of", "needs_python_object", "none_required", "callable_type")


def _message(error: Any) -> str:
    message = error["msg"].removeprefix("Value error, ")
    return message[0].lower() + message[1:]


def _unbuilt(value: Any) -> str:
    if isinstance(value, Mapping):
        return "needs a _target_: the class or function that its values are passed to."
    if isinstance(value, str):
        return f"cannot be '{value}' (an option of a group is chosen with a slash, as in guidance/rule=asd)."
    return f"has the wrong type, not {value!r}."
