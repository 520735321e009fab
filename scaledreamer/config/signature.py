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
from typing import Any

import pydantic
from pydantic import TypeAdapter


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


def _type_hints(target: Callable[..., Any]) -> dict[str, Any]:
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # annotations that only exist for type checkers
        return {}


def _problems_of_value(name: str, value: Any, hint: Any) -> list[Problem]:
    if _contains_built(value):
        return []
    try:
        # JSON's strict mode is what YAML needs: lists may become tuples and ints floats, "5" never becomes 5.
        adapter = TypeAdapter(hint)
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
    messages = dict.fromkeys(e["msg"][0].lower() + e["msg"][1:] for e in error.errors() if _tells(e))
    return f"{', or '.join(messages) or 'has the wrong type'}, not {value!r}."


def _tells(error: Any) -> bool:
    return error["type"] not in ("is_instance_of", "none_required", "callable_type")
