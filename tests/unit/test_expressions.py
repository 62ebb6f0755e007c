"""Expressions: what they give, what they may not do, and that a value is data whatever it holds."""

from __future__ import annotations

import json
import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudai.core.errors import InvalidInput
from cloudai.expressions import check, render, render_text
from cloudai.expressions.plain import MOST_TEXT

VALUES = {
    "lr": 0.1,
    "n": 5,
    "name": "big run",
    "flag": True,
    "nothing": None,
    "sizes": [1, 2, 3],
    "task": {"items": 3, "lr": 1, "deep": {"er": "x"}},
}

GIVES = {
    "plain": "plain",
    "{ not one }": "{ not one }",
    "{{ lr }}": 0.1,
    "{{ 5 }}": 5,
    "{{ n * 2 + 1 }}": 11,
    "{{ flag }}": True,
    "{{ nothing }}": None,
    "{{ sizes }}": [1, 2, 3],
    "{{ task.deep }}": {"er": "x"},
    "{{ task.items }}": 3,
    "{{ task['deep'].er }}": "x",
    "{{ sizes[-1] }}": 3,
    "{{ sizes[1:] }}": [2, 3],
    "{{ range(3) }}": [0, 1, 2],
    "run-{{ n }}-{{ lr }}-{{ flag }}": "run-5-0.1-true",
    "{{ n ~ '/' ~ lr }}": "5/0.1",
    "{{ '%03d' | format(n) }}": "005",
    "{{ '%s-%03d' % (name, n) }}": "big run-005",
    "{{ name | replace(' ', '-') | upper }}": "BIG-RUN",
    "{{ sizes | join(',') }}": "1,2,3",
    "{{ missing | default(7) }}": 7,
    "{{ 'on' if flag else 'off' }}": "on",
    "{% if n > 3 %}big{% else %}small{% endif %}": "big",
    "{% if n > 3 %}{{ n }}{% endif %}": 5,
    "{{ missing is defined }}": False,
    "{{ task.lrr is defined }}": False,
    "{{ '0123' }}": "0123",
    "{{ 'true' }}": "true",
    "{{ sizes | sum }}": 6,
    "{{ '12' | int }}": 12,
    "{{ (2.6) | round }}": 3,
    "{% raw %}{{ x }}{% endraw %}": "{{ x }}",
    "{{ n in sizes }}": False,
    "{{ {'a': [n]} }}": {"a": [5]},
    "{{ {'b': 1, 'ä': 2} | tojson }}": '{"b": 1, "ä": 2}',
    "{{ n is odd and not nothing }}": True,
    "line\n{{ n }}\n": "line\n5\n",
}


@pytest.mark.parametrize("text", GIVES)
def test_an_expression_gives_its_value_with_its_type(text):
    found = render(text, VALUES)
    assert (found, type(found)) == (GIVES[text], type(GIVES[text]))


REFUSED = {
    "{{ lrr }}": "unknown name 'lrr'; did you mean 'lr'?",
    "{{ task.lrr }}": "unknown name 'lrr'; did you mean 'lr'?",
    "{{ [lrr] }}": "unknown name 'lrr'",
    "{{ lrr | upper }}": "unknown name 'lrr'",
    "{{ lrr + 1 }}": "unknown name 'lrr'",
    "{{ lrr.x }}": "unknown name 'lrr'",
    "{{ sizes[7] }}": "there is no [7]: it has 3",
    "x{{ nothing }}": "null cannot be a part of text",
    "x{{ sizes }}": "a list cannot be a part of text",
    "x{{ task }}": "a mapping cannot be a part of text",
    "{{": "not an expression",
    "{{ n": "not an expression",
    "{{ n | uper }}": "no filter 'uper'; did you mean 'upper'?",
    "{{ n is evn }}": "no test 'evn'; did you mean 'even'?",
    "{{ 1 / 0 }}": "cannot be worked out: division by zero",
    "{{ n < name }}": "cannot be worked out",
    "{{ name - 1 }}": "- of text and a number",
    "{{ 'abc' | int }}": "'abc' is not a whole number",
    "{{ {1: 2} }}": "a key must be text, not 1",
    "{{ 'x' if missing is defined }}": "no else section",
}
ESCAPES = {
    "{{ ''.__class__ }}": "'__class__' is nothing in text",
    "{{ ''['__class__'] }}": "'__class__' is nothing in text",
    "{{ task.__class__ }}": "unknown name '__class__'",
    "{{ range.__globals__ }}": "'__globals__' is nothing in",
    "{{ name.upper() }}": "only range() can be called",
    "{{ name.format(n) }}": "only range() can be called",
    "{{ task.items() }}": "only range() can be called",
    "{{ (range)(1) }}{{ self }}": "unknown name 'self'",
    "{{ self._TemplateReference__context }}": "unknown name 'self'",
    "{{ cycler }}": "unknown name 'cycler'",
    "{{ lipsum(n=5) }}": "only range() can be called",
    "{{ namespace() }}": "only range() can be called",
    "{{ range }}": "a function is no value",
    "{{ range(*sizes) }}": "* and ** cannot stand in a call",
    "{{ name | attr('upper') }}": "no filter 'attr'",
    "{{ sizes | map('upper') }}": "no filter 'map'",
    "{{ sizes | pprint }}": "no filter 'pprint'",
    "{% for x in sizes %}{{ x }}{% endfor %}": "'for' cannot stand here",
    "{% set x = 1 %}{{ x }}": "'assign' cannot stand here",
    "{% macro f() %}{% endmacro %}": "'macro' cannot stand here",
    "{% include 'passwd' %}": "'include' cannot stand here",
    "{% import 'os' as os %}": "'import' cannot stand here",
    "{% extends 'x' %}": "'extends' cannot stand here",
    "{% filter upper %}x{% endfilter %}": "'filterblock' cannot stand here",
    "{% call range(1) %}{% endcall %}": "'callblock' cannot stand here",
    "{% block x %}{% endblock %}": "'block' cannot stand here",
    "{% with %}{% endwith %}": "'with' cannot stand here",
}
TOO_MUCH = {
    "{{ range(10 ** 9) }}": "range of more than 10000 numbers",
    "{{ range(0 - 10 ** 30, 10 ** 30) }}": "range of more than 10000 numbers",
    "{{ 'a' * 10 ** 9 }}": "too much",
    "{{ 10 ** 9 * [0] }}": "too much",
    "{{ [[0] * 9999] * 9999 }}": "too much",
    "{{ [[[[0] * 99] * 99] * 99] == [[[[0] * 99] * 99] * 99] }}": "too much",
    "{{ 2 ** (2 ** 99) }}": "hundreds of digits",
    "{{ 9 ** 300 * 9 ** 300 }}": "hundreds of digits",
    "{{ 1e300 * 1e300 }}": "inf is not a number",
    "{{ 1e999 }}": "inf is not a number",
    "{{ '%0999999999d' % n }}": "format pads to at most 1000",
    "{{ '%*d' % (n, n) }}": "format knows no *",
    "{{ ('a' * 9999) | replace('a', 'b' * 9999) }}": "too much",
    "{{ range(9999) | join('-' * 9999) }}": "too much",
    "{{ 'x' | center(10 ** 9) }}": "no filter 'center'",
    "{{ " + "('a' * 200000) ~ " * 100 + "'' }}": "too much",
    "{{ " + "(" * 900 + "1" + ")" * 900 + " }}": "nested too deep",
    "{{ " + "not " * 1900 + "n }}": "nested too deep",
    "{{ " + "1 + " * 1900 + "n }}": "too long",
    "{{ " + "[" * 150 + "]" * 150 + " }}": "nested too deep",
    "{{ " + "9" * 5000 + " }}": "cannot be worked out",
    "a" * MOST_TEXT + "{{ n }}": "more than",
}


@pytest.mark.parametrize("text", REFUSED | ESCAPES | TOO_MUCH, ids=lambda text: text[:50])
def test_what_cannot_be_meant_is_refused_soon_and_says_why(text):
    began = time.process_time()
    with pytest.raises(InvalidInput) as refused:
        render(text, VALUES)
    assert (REFUSED | ESCAPES | TOO_MUCH)[text] in refused.value.message
    assert time.process_time() - began < 1


def test_the_line_of_a_mistake_is_told_where_it_is_known():
    with pytest.raises(InvalidInput) as refused:
        render("one\ntwo {{ n | uper }}", VALUES)
    assert refused.value.details["line"] == 2
    with pytest.raises(InvalidInput) as refused:
        check("one\n\n{{ lrr }}", ["lr"])
    assert refused.value.details["line"] == 3


def test_a_text_is_checked_before_there_are_values():
    check("{{ a }} {% if b is defined %}{{ b }}{% endif %} {{ range(3) }} {{ 'a' | upper }}", "ab")
    with pytest.raises(InvalidInput, match="unknown name 'c'"):
        check("{{ a }}{{ c | default(1) }}", "ab")
    with pytest.raises(InvalidInput, match="not an expression"):
        check("{{ a ", "ab")


def test_as_text_numbers_are_as_json_has_them():
    assert render_text("{{ lr }}", VALUES) == "0.1"
    assert render_text("{{ flag }}", VALUES) == "true"
    with pytest.raises(InvalidInput, match="null cannot be a part"):
        render_text("{{ nothing }}", VALUES)


ANY = st.text(max_size=40) | st.sampled_from(
    ["{{ n }}", "{% raw %}", '"', "'", "$(id)", "a: b", "- x", "\r\n", "#", "{#", "0123", "null"]
)


@settings(max_examples=30)
@given(ANY, ANY)
def test_a_value_comes_out_as_it_went_in(one, two):
    values = {"one": one, "two": two}
    assert render("{{ one }}", values) == one
    assert render("<{{ one }}|{{ two }}>", values) == f"<{one}|{two}>"
    assert render("{{ [one, two] }}", values) == [one, two]
    assert json.loads(render_text("{{ [one, two] | tojson }}", values)) == [one, two]


@settings(max_examples=100)
@given(st.text(alphabet="{}%|()[]'.*+~,:_ ab01#-", max_size=30))
def test_whatever_is_written_is_answered_or_refused_in_words(text):
    with suppress(InvalidInput):
        render("{{ " + text + " }}", {"a": "x", "b": [1]})
