"""jinja2, held to what is allowed: the tree of a text is read before anything runs, and the
sandbox stands behind that."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.nativetypes import NativeCodeGenerator
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing
from jinja2.visitor import NodeTransformer

from cloudai.core.wording import did_you_mean, shown

from .allowed import FILTERS, FUNCTIONS, TESTS, bounded, default
from .operators import OPERATORS, operate
from .plain import MOST_TEXT, Refused, message, named, unknown

MOST_CODE = 2_000
"""Words and signs within ``{{ … }}`` and ``{% … %}`` of one text."""

_MAY_STAND = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.Name, nodes.Const),
    *(nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair, nodes.CondExpr, nodes.Compare),
    *(nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.BinExpr, nodes.UnaryExpr),
    *(nodes.Concat, nodes.Getitem, nodes.Getattr, nodes.Slice, nodes.Filter, nodes.Test),
    *(nodes.Call, nodes.Keyword),
)


class _Unknown(jinja2.StrictUndefined):
    """A name or a key that is not there; its hint says so and what is near."""


class _Context(Context):
    """Names, of which the unknown ones know what was near."""

    def resolve_or_missing(self, key: str) -> Any:
        found = super().resolve_or_missing(key)
        if found is not missing:
            return found
        return _Unknown(hint=unknown(key, {*self.parent} - {*FUNCTIONS}), name=key)


@jinja2.pass_context
def _as_it_is(context: Context, value: object) -> object:
    """A finalizer with a context: without one, constants would become text when compiled."""
    return value


class _Environment(ImmutableSandboxedEnvironment):
    code_generator_class = NativeCodeGenerator
    context_class = _Context
    intercepted_binops = frozenset(OPERATORS)

    def __init__(self) -> None:
        super().__init__(
            undefined=_Unknown,
            finalize=_as_it_is,
            autoescape=False,  # data, not HTML
            keep_trailing_newline=True,
            optimized=False,  # or constants would be worked out while it is compiled
            cache_size=0,
        )
        self.globals = dict(FUNCTIONS)
        self.filters = {name: bounded(own) for name, own in FILTERS.items()}
        self.filters["default"] = self.filters["d"] = default
        self.tests = {name: self.tests[name] for name in TESTS}

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        return operate(operator, left, right)

    def getattr(self, obj: Any, attribute: str) -> Any:
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """What a mapping has under that key, a list or text at that index; nothing else has
        anything in it."""
        if isinstance(obj, Undefined):
            raise Refused(message(obj))
        if isinstance(obj, Mapping):
            if isinstance(argument, str | int) and argument in obj:
                return obj[argument]
            keys = [key for key in obj if isinstance(key, str)]
            return _Unknown(hint=unknown(str(argument), keys), obj=obj, name=str(argument))
        if isinstance(obj, list | tuple | str) and type(argument) is int:
            if -len(obj) <= argument < len(obj):
                return obj[argument]
            return _Unknown(hint=f"there is no [{shown(argument)}]: it has {len(obj)}", obj=obj)
        raise Refused(f"{shown(argument)} is nothing in {named(obj)}")

    def is_safe_callable(self, obj: Any) -> bool:
        return obj in FUNCTIONS.values()


class _Concatenations(NodeTransformer):
    """``a ~ b`` joins as ``join`` does, measured."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(parts, "join", [], [], None, None, lineno=node.lineno)


ENVIRONMENT = _Environment()


@lru_cache(maxsize=4096)
def compiled(text: str) -> jinja2.Template:
    """The text as a template. Raises ``Refused`` for what may not stand in it, and what jinja2
    and Python's compiler raise."""
    if len(text) > MOST_TEXT:
        raise Refused(f"a text of more than {MOST_TEXT} characters")
    code = sum(kind not in ("data", "whitespace") for _, kind, _ in ENVIRONMENT.lex(text))
    if code > MOST_CODE:
        raise Refused("an expression too long to be meant")
    tree = ENVIRONMENT.parse(text)
    for node in _all_of(tree):
        _check_node(node)
    tree = _Concatenations().visit(tree)
    return ENVIRONMENT.from_string(tree)


def context_of(values: Mapping[str, Any]) -> Context:
    """What a template's names mean: made at once, where jinja2 takes most of a rendering's time
    to lay globals, blocks and values over each other."""
    return _Context(ENVIRONMENT, {**FUNCTIONS, **values}, None, {})


def _all_of(tree: nodes.Node) -> Iterator[nodes.Node]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(node.iter_child_nodes())


def _check_node(node: nodes.Node) -> None:
    line = node.lineno
    if not isinstance(node, _MAY_STAND):
        what = type(node).__name__.lower()
        raise Refused(f"{shown(what)} cannot stand here; {{{{ … }}}} and {{% if %}} can", line)
    match node:
        case nodes.Const(value=float() as number) if not math.isfinite(number):
            raise Refused(f"{number} is not a number", line)
        case nodes.Name() if node.name in ("self", "super", "caller", "loop"):
            raise Refused(f"unknown name {shown(node.name)}", line)
        case nodes.Call():
            called = node.node
            if not isinstance(called, nodes.Name) or called.name not in FUNCTIONS:
                raise Refused("only range() can be called; filters do the rest: x | upper", line)
            if node.dyn_args or node.dyn_kwargs:
                raise Refused("* and ** cannot stand in a call", line)
        case nodes.Filter():
            if node.name not in ENVIRONMENT.filters:
                near = did_you_mean(node.name, sorted(ENVIRONMENT.filters))
                raise Refused(f"no filter {shown(node.name)}; {near}", line)
            if node.dyn_args or node.dyn_kwargs:
                raise Refused("* and ** cannot stand in a call", line)
            if node.node is None:
                raise Refused("{% filter %} cannot stand here", line)
        case nodes.Test():
            if node.name not in ENVIRONMENT.tests:
                raise Refused(f"no test {shown(node.name)}; {did_you_mean(node.name, TESTS)}", line)
