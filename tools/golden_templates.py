#!/usr/bin/env python3
"""Makes tests/golden/chat_template with Hugging Face transformers' own set-up of Jinja.

    python3 -m venv venv && venv/bin/pip install jinja2==3.1.6 transformers==5.23.0
    venv/bin/python tools/golden_templates.py [--out tests/golden/chat_template] [--shared ../shared/data]

`snippets.json` holds small templates, `own.json` the templates in own/, `shared.json` those under
--shared (by path: they are not copied; skipped where that folder is absent). Each has the text that
Jinja gives, or the error it raises. Neither the build nor the tests run this.
"""

import argparse
import datetime
import json
from pathlib import Path

from transformers.utils import chat_template_utils

NOW = datetime.datetime(2026, 7, 4, 12, 34, 56)  # test_chat_template.cpp knows it


class FixedTime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


chat_template_utils.datetime = FixedTime

# ---------------------------------------------------------------------------------------------
# Conversations

WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "The weather at a place.\nNow or later.",
    "parameters": {"type": "object", "properties": {
        "place": {"type": "string", "description": "City & country, e.g. \"Zürich\""},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "description": "unit"},
        "days": {"type": "array", "items": {"type": "integer"}, "description": "which days"}},
        "required": ["place"]}}}
SEARCH = {"type": "function", "function": {
    "name": "search", "description": "Search <the> web's pages",
    "parameters": {"type": "object", "properties": {
        "query": {"type": "string", "description": "what"},
        "limit": {"type": ["integer", "null"], "default": 1.5, "description": "how many"},
        "where": {"type": "object", "description": "a box", "properties": {
            "x": {"type": "number", "description": "x"}}, "required": ["x"]}},
        "required": ["query", "where"]},
    "return": {"type": "string", "description": "text"}}}


def call(name, arguments, id):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


SYSTEM = {"role": "system", "content": "You are terse.\nAnswer in 'one' line. "}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}

CONVERSATIONS = {
    "plain": {"messages": [user("Hello")]},
    "system": {"messages": [SYSTEM, user(" Grüße, 世界 🌍 & <b>\"you\"</b>\n")]},
    "turns": {"messages": [SYSTEM, user("One?"), assistant(" Two. "), user("Three\\n?"),
                           assistant("Four.")], "add_generation_prompt": False},
    "tools": {"messages": [SYSTEM, user("Weather in Bern?")], "tools": [WEATHER, SEARCH]},
    "tool_result": {"messages": [
        user("Weather in Bern?"),
        assistant("", tool_calls=[call("get_weather", {"place": "Bern", "days": [1, 2]}, "abcdefgh1")]),
        {"role": "tool", "name": "get_weather", "tool_call_id": "abcdefgh1",
         "content": "{\"celsius\": 21.5}"},
        assistant("21.5 °C."), user("Thanks")], "tools": [WEATHER]},
    "text_arguments": {"messages": [
        user("Weather in Bern?"),
        assistant("", tool_calls=[call("get_weather", "{\"place\": \"Bern\"}", "abcdefgh1")]),
        {"role": "tool", "name": "get_weather", "tool_call_id": "abcdefgh1", "content": "21"}],
        "tools": [WEATHER], "variables": {"functions": "[]", "datetime": "2026-07-04"}},
    "parallel_calls": {"messages": [
        SYSTEM, user("Bern and Oslo?"),
        assistant(None, tool_calls=[call("get_weather", {"place": "Bern"}, "abcdefgh1"),
                                    call("search", {"query": "Oslo's \"sky\"", "where": {"x": 1e20}},
                                         "abcdefgh2")]),
        {"role": "tool", "name": "get_weather", "tool_call_id": "abcdefgh1", "content": "21"},
        {"role": "tool", "name": "search", "tool_call_id": "abcdefgh2", "content": "{\"n\": null}"}],
        "tools": [WEATHER, SEARCH]},
    "reasoning": {"messages": [
        user("2+2?"), assistant("4", reasoning_content="Two and two."), user("3+3?"),
        assistant("<think>\nThree and three.\n</think>\n\n6"), user("4+4?")],
        "variables": {"enable_thinking": False}},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "Look:"},
                                                        {"type": "text", "text": "here"}]}]},
    "two_users": {"messages": [user("One"), user("Two")]},
    "documents": {"messages": [user("What is it?")],
                  "documents": [{"title": "A", "text": "It is a."}, {"title": "B", "text": "b"}]},
}

# ---------------------------------------------------------------------------------------------
# Snippets, with these variables

VARIABLES = {
    "s": "Hello, World", "u": "Grüße 世界\tİx", "n": 7, "f": 2.5, "t": True, "z": None, "e": "",
    "l": [3, 1, 2], "d": {"b": 1, "a": [1, {"x": None}], "items": "own", "C": "c"}, "html": "<a href='x'>&\"",
    "people": [{"name": "bob", "age": 3, "tag": {"k": "y"}}, {"name": "Al", "age": 5, "tag": {"k": "x"}},
               {"name": "cy", "age": 3}],
}

SNIPPETS = r"""
{{ s }}|{{ n }}|{{ f }}|{{ t }}|{{ z }}|{{ e }}|{{ l }}|{{ d }}
{{ u }} {{ [u] }} {{ {'k': "it's", 'q': 'a"b', 'both': "'\""} }}
{{ 1 + 2 * 3 - 4 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7.5 % 2 }} {{ -7.5 // 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }}
{{ 2 ** 3 ** 2 }} {{ -2 ** 2 }} {{ (1, 2) }} {{ (1,) }} {{ () }} {{ [] }} {{ {} }}
{{ 1e20 }} {{ 1e16 }} {{ 1e15 }} {{ 1.0 }} {{ 0.0001 }} {{ 0.00001 }} {{ 1.5e-7 }} {{ 123456789.123 }} {{ 1_000 }} {{ 0.1 + 0.2 }}
{{ 'a' ~ 1 ~ none ~ true ~ 1.0 ~ [1, 'b'] }} {{ 'a' 'b' "c" }} {{ 'ab' * 3 }} {{ [1, 2] * 2 }} {{ [1] + [2] }} {{ 3 * 'x' }}
{{ 'a\n\t\\\'\"\x41\u00e9\101\q' }}
{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 }} {{ true == 1 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ 'a' == 1 }} {{ none == false }} {{ [1] == (1,) }} {{ {'a': 1} == {'a': 1.0} }}
{{ 'ell' in s }} {{ 'x' not in s }} {{ 1 in l }} {{ 'b' in d }} {{ 1 not in [1] }} {{ 'x' in nothing }}
{{ not t }} {{ t and n }} {{ e or 'other' }} {{ z and x }} {{ not e and not z }} {{ 1 if t else 2 }} {{ 1 if not t }}|
{{ 'a' if n > 5 else 'b' if n > 3 else 'c' }} {{ (n > 5) | string }} {{ n > 5 and n < 9 }}
{{ s[0] }} {{ s[-1] }} {{ s[1:4] }} {{ s[::-1] }} {{ s[:-3] }} {{ s[10:2:-2] }} {{ s[100:] }}| {{ l[1:] }} {{ l[::-1] }} {{ l[-1] }} {{ l[5] }}| {{ (1,2,3)[:2] }}
{{ u[1] }} {{ u | length }} {{ u[2:5] }} {{ u | reverse }}
{{ d.b }} {{ d['a'][1].x }} {{ d.a.0 }} {{ d.missing }}| {{ d['items'] }} {{ d.get('b') }} {{ d.get('q') }} {{ d.get('q', 5) }} {{ d.C }}
{{ d.items is defined }} {{ d.items is mapping }} {{ d.items.type is defined }} {{ d.items.foo }}| {{ d['missing'] is defined }}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %} {{ d.keys() | list }} {{ d.values() | list }} {{ d | list }} {{ d | items | list }} {{ d.items() | length }}
{{ d | dictsort }} {{ d | dictsort(by='key', case_sensitive=true) }} {{ {'a': 2, 'b': 1} | dictsort(by='value', reverse=true) }}
{{ s.upper() }} {{ s.lower() }} {{ 'ab cD-ef'.title() }} {{ 'ab cD-ef' | title }} {{ 'aBC' | capitalize }} {{ 'straße' | upper }} {{ "it's o'neil".title() }}
{{ '  x '.strip() }}|{{ '  x '.lstrip() }}|{{ '  x '.rstrip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'abcab'.strip('ba') }}|{{ '\n\t x\u00a0'.strip() }}|{{ ' x ' | trim }}|{{ 'xax' | trim('x') }}
{{ 'a,b,,c'.split(',') }} {{ ' a  b c '.split() }} {{ 'a b c'.split(' ', 1) }} {{ 'a b c'.rsplit(' ', 1) }} {{ 'a b  c'.split(none, 1) }}
{{ 'abc'.split('') }}
{{ 'a\nb\r\nc\n\nd'.splitlines() }} {{ 'a\nb\n'.splitlines(true) }} {{ ''.split() }} {{ ''.split(',') }} {{ 'a  b c'.rsplit(none, 1) }}
{{ s.startswith('He') }} {{ s.endswith(('x', 'ld')) }} {{ s.find('o') }} {{ s.rfind('o') }} {{ u.find('世') }} {{ s.find('zz') }} {{ s.count('l') }} {{ s.index('W') }}
{{ s.replace('l', 'L') }} {{ s.replace('l', 'L', 1) }} {{ s | replace('o', '0') }} {{ 'abc'.replace('', '-') }} {{ s | replace('l', 1, 2) }}
{{ '{} {1}'.format(1, 2) }}
{{ '-'.join(['a', 'b']) }} {{ '{} {} {x}'.format(1, 2, x=3) }} {{ '{1}{0}'.format(1, 2) }} {{ '{} and {}'.format('a', none) }} {{ '{{}}'.format() }} {{ 'abc'.removeprefix('a') }} {{ 'abc'.removesuffix('c') }}
{{ '%s is %d %.2f %r %%' % ('x', 3, 1.005, 'q') }} {{ '%s' % 5 }} {{ '%s-%s' | format('a', 'b') }} {{ '%s' % [1] }} {{ '%s' % d.b }}
{{ '12'.isdigit() }} {{ 'a1'.isalpha() }} {{ 'a1'.isalnum() }} {{ ' '.isspace() }} {{ ''.isdigit() }}
{{ l | length }} {{ l | count }} {{ d | length }} {{ s | length }} {{ nothing | length }} {{ l | first }} {{ l | last }} {{ s | first }} {{ s | last }} {{ [] | first }}|
{{ l | sort }} {{ l | sort(reverse=true) }} {{ ['b', 'A', 'c'] | sort }} {{ ['b', 'A', 'c'] | sort(case_sensitive=true) }} {{ people | sort(attribute='age') | map(attribute='name') | list }}
{{ people | sort(attribute='age', reverse=true) | map(attribute='name') | join(' ') }} {{ people | map(attribute='tag.k', default='-') | join }} {{ people | map('length') | list }}
{{ l | join(', ') }} {{ l | join }} {{ people | join(',', attribute='name') }} {{ [1, none, 'x', 2.0, true] | join('/') }} {{ s | join('.') }}
{{ people | selectattr('age', 'equalto', 3) | map(attribute='name') | list }} {{ people | rejectattr('age', '>', 3) | list | length }} {{ people | selectattr('tag') | list | length }} {{ people | selectattr('tag', 'defined') | list | length }}
{{ l | select('odd') | list }} {{ l | reject('in', [1]) | list }} {{ [0, 1, '', 'a'] | select | list }} {{ l | select('>', 1) | list }} {{ ['x', 3] | select('string') | first }}
{{ l | max }} {{ l | min }} {{ l | sum }} {{ people | sum(attribute='age') }} {{ ['b', 'A'] | min }} {{ [] | max }}| {{ people | max(attribute='age') }} {{ [[1], [2]] | sum(start=[]) }}
{{ ['a', 'B', 'b', 'A'] | unique | list }} {{ [1, 1.0, 2] | unique | list }} {{ people | unique(attribute='age') | map(attribute='name') | list }}
{% for age, group in people | groupby('age') %}{{ age }}:{{ group | map(attribute='name') | join(',') }};{% endfor %}{% for g in people | groupby('age') %}{{ g[0] }}{% endfor %}
{{ l | reverse | list }} {{ 'abc' | reverse }} {{ [1, 2, 3, 4, 5] | batch(2) | list }} {{ [1, 2, 3] | batch(2, 'x') | list }} {{ 'abc' | list }} {{ range(5) | list }} {{ range(1, 10, 3) | list }} {{ range(3, 0, -1) | list }}
{{ f | int }} {{ '42' | int }} {{ ' 42 ' | int }} {{ 'x' | int }} {{ 'x' | int(default=-1) }} {{ '3.9' | int }} {{ '1e3' | float }} {{ 'x' | float }} {{ 3 | float }} {{ '-7' | int }} {{ '+7' | int }} {{ true | int }}
{{ 2.5 | round }} {{ 3.5 | round }} {{ 2.675 | round(2) }} {{ 2.1 | round(0, 'ceil') }} {{ 2.19 | round(1, 'floor') }} {{ 7 | round }} {{ -3 | abs }} {{ -3.5 | abs }} {{ -2.5 | round }}
{{ x | default('d') }} {{ x | d }}| {{ z | default('d') }} {{ z | default('d', true) }} {{ e | default('d', boolean=true) }} {{ x.y | default('d') if x is defined else 'none' }}
{{ d | tojson }} {{ u | tojson }} {{ u | tojson(ensure_ascii=true) }} {{ '🌍' | tojson(ensure_ascii=true) }} {{ [1, 2.0, 1e20, none, true, 'q"\\\n\u0001\u007f/'] | tojson }} {{ html | tojson }}
{{ d | tojson(indent=2) }} {{ [] | tojson(indent=2) }} {{ {} | tojson(indent=2) }} {{ [[], {}] | tojson(indent=1) }} {{ d | tojson(separators=(',', ':')) }} {{ d | tojson(sort_keys=true) }} {{ (1, 2) | tojson }} {{ 'x' | tojson(indent=2) }} {{ [1] | tojson(indent='--') }}
{{ html | e }} {{ html | escape | e }} {{ html | safe }} {{ ('<b>' | safe) + html }} {{ html + ('<b>' | safe) }} {{ ('<b>' | safe) ~ html }} {{ ('<b>' | safe) + 'a' | upper }} {{ ('<b>'|safe).upper() + '<' }}
{{ 'a\nb\n\nc' | indent }} {{ 'a\nb' | indent(2, true) }} {{ 'a\n\nb' | indent(1, blank=true) }} {{ 'a\nb' | indent('> ') }} {{ '' | indent(first=true) }}|
{{ 'one two three' | truncate(9) }} {{ 'one two three' | truncate(9, true, '~', 0) }} {{ 'one two three' | truncate(11) }} {{ 'one two_x three-four' | wordcount }} {{ 5 | string + '!' }} {{ 3.0 | string }}
{{ s is string }} {{ n is number }} {{ t is number }} {{ t is integer }} {{ n is integer }} {{ f is float }} {{ t is boolean }} {{ z is none }} {{ x is undefined }} {{ x is defined }} {{ d is mapping }} {{ l is sequence }} {{ s is sequence }} {{ d is sequence }} {{ l is iterable }} {{ n is iterable }} {{ x is iterable }} {{ z is iterable }} {{ t is true }} {{ t is false }}
{{ 3 is odd }} {{ 3 is even }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(4) }} {{ 3 is eq 3 }} {{ 3 is ne(3) }} {{ 3 is gt 2 }} {{ 2 is in [1, 2] }} {{ 2 is not in [1, 2] }} {{ range is callable }} {{ s is callable }} {{ d.items() is sequence }} {{ l | map('string') is iterable }}
{% set x = 1 %}{{ x }}{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set (p, q) = [3, 4] %}{{ p + q }}{% set x %}block {{ a }}{% endset %}{{ x }}{% set y | upper | trim %} b {% endset %}{{ y }}
{% set x = 1 %}{% for i in l %}{% set x = x + i %}{{ x }},{% endfor %}{{ x }}
{% set ns = namespace(x=1, y='a') %}{% for i in l %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}{{ ns.y }}{{ ns.missing }}|{% set ns.new = [1] %}{{ ns.new }}{{ ns['x'] }}
{% if x is defined %}a{% elif n == 7 %}b{% else %}c{% endif %}{% if z %}1{% elif e %}2{% elif nothing %}3{% else %}4{% endif %}
{% if n %}{% set inner = 5 %}{% endif %}{{ inner }}{% for i in [1] %}{% set deep = 5 %}{% endfor %}{{ deep }}|
{% for i in l %}{{ loop.index }}/{{ loop.length }}:{{ i }}{{ ',' if not loop.last }}{% endfor %}{% for i in [] %}x{% else %}empty{% endfor %}{% for i in l if i > 1 %}{{ loop.index0 }}{{ loop.first }}{{ loop.revindex }}{{ loop.revindex0 }}{% else %}no{% endfor %}
{% for a, b in [[1, 2], (3, 4)] %}{{ a }}{{ b }}{% endfor %}{% for (a, (b, c)) in [[1, [2, 3]]] %}{{ a }}{{ b }}{{ c }}{% endfor %}{% for c in 'aé' %}{{ c }}.{% endfor %}{% for k in d %}{{ k }}{% endfor %}
{% for i in l %}{{ loop.previtem }}<{{ i }}>{{ loop.nextitem }} {{ loop.cycle('odd', 'even') }} {{ loop.changed(i > 1) }};{% endfor %}{{ loop }}|
{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}{% for i in [1, 2] %}{% for j in [1, 2] %}{% if j == 2 %}{% break %}{% endif %}{{ i }}{{ j }}{{ loop.depth }}{% endfor %}{% endfor %}
{% for x in [{'v': 1, 'c': [{'v': 2, 'c': [{'v': 3}]}]}] recursive %}{{ loop.depth }}{{ x.v }}{% if x.c %}[{{ loop(x.c) }}]{% endif %}{% endfor %}
{% macro m(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(1, c=9) }} {{ m() }}| {{ m('x') | upper }}{{ m(b=1) }}
{% macro f(n) %}{{ n }}{% if n > 0 %},{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}{% macro g() %}[{{ caller('x') }}]{% endmacro %}{% call(v) g() %}{{ v }}{{ n }}{% endcall %}{% macro h(a) %}{{ caller() }}{{ a }}{% endmacro %}{% call h(1) %}body{% endcall %}
{% set v = 1 %}{% macro show() %}{{ v }}{% endmacro %}{{ show() }}{% set v = 2 %}{{ show() }}{% macro local() %}{% set v = 9 %}{{ v }}{% endmacro %}{{ local() }}{{ v }}
{% filter upper %}a{{ s }}{% endfilter %}{% filter replace('a', 'b') | trim %} a {% endfilter %}{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a }}|{% generation %}gen{{ n }}{% endgeneration %}
{% raw %}{{ x }}{% if %}{% endraw %}|{%- raw -%} {{ }} {%- endraw -%} | {# comment #}a{#- b -#} c {# {{ x }} #}
{{ strftime_now('%d %B %Y, %H:%M') }} {{ strftime_now('%d %b %Y') }} {{ strftime_now is defined }} {{ strftime_now('') }}|
{{ dict(a=1, b=2) }} {{ dict({'a': 1}, b=2) }} {% set j = joiner(', ') %}{% for i in l %}{{ j() }}{{ i }}{% endfor %}
{{ s | upper | lower | title | replace('h', 'j') | length }} {{ l | map('string') | map('upper') | join }} {{ [s, 'x'] | map('replace', 'x', 'y') | list }} {{ s | first | upper }} {{ -1 | abs }} {{ (-1) | abs }} {{ 'a' ~ 'b' | upper }} {{ n + 1 | string | length }}
{{ s|upper }}{{- ' x' -}}  y {{- 'z' }} {{ {'a': 1}.a }} {{ [1, 2][0] }} {{ 'abc'[1] }} {{ ('a', 'b')[1] }} {{ 'x'.upper().lower() }}
{{ x }}{{ x.y }}
{{ nothing + 1 }}
{{ nothing() }}
{{ 'a' + 1 }}
{{ l.append(4) }}
{{ d.update({'x': 1}) }}
{{ d.pop('b') }}
{{ s | unknown_filter }}
{{ s is unknown_test }}
{{ raise_exception('my message') }}
{{ 1 / 0 }}
{{ 1 < 'a' }}
{{ l | map('upper') }}
{{ s.__class__ }}{{ l.append is defined }}{{ d._x }}|
{{ s.__class__.x }}
{{ ''.__class__.__mro__ }}
{{ s | tojson(indent='a', x=1) }}
{{ nothing | tojson }}
{% for x in 5 %}{% endfor %}
{% for x in none %}{% endfor %}
{% for a, b in [[1, 2, 3]] %}{% endfor %}
{% set ns.x = 1 %}
{% set s.x = 1 %}
{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{% endmacro %}{{ m(b=2) }}
{% if %}{% endif %}
{% if x %}
{% endif %}
{% for x in l %}
{{ x
{{ 'x }}
{% include 'x' %}
{% set %}
{% break %}
{{ [1, 2 }}
{{ range(1000000) }}
{{ l | selectattr('x', 'y', 'z') | list }}
{% set ns = namespace(_x=1) %}
{{ l | length(1) }}
{{ l | map('upper') | length }}
{{ (l | map('string')) | last }}
{% set g = l | map('string') %}{{ g | join }}{{ g | join }}|{{ 'yes' if [] | select }}
{{ "\u2028x".strip() }}|{{ "a\x1cb".split() }}|{{ "a\x85b".splitlines() }}|{{ ["\u200b\u00ad\x7f\ue000\U0001F600é"] }}
""".strip("\n").split("\n")

# Templates of several lines: what trim_blocks and lstrip_blocks do.
SNIPPETS += [
    "a\n  {% if t %}\n  b\n  {% endif %}\nc\n",
    "a\n  {%+ if t %}\n  b\n  {%- endif +%}\nc\n\n",
    "  {{ n }}\n  {{- n -}}  \n  x\n",
    "  {# c #}\n x {# c #}\n  {#- c #}  y\n{# c +#}\nz",
    "\t {% set q = 1 %}\n\t {% set r = 2 -%}   \n\n  {{ q }}{{ r }}",
    "{% for i in l %}\n- {{ i }}\n{% endfor %}\n\nend\r\nx\ry",
    "{% for i in l -%}\n  {{ i }}\n  {%- endfor %}\n|",
    "x {% if t %} y {% endif %} z\n   {% if t %}a{% endif %}   {% if t %}b{% endif %}\n",
    "{%- if t -%}\n\n  x  \n\n{%- endif -%}\n\n y",
    "  {% raw %}\n  {{ a }}\n  {% endraw %}\n b",
    "  {% raw -%}\n  {{ a }}\n  {%- endraw %}\n b",
    "a{% if t %}\n\n\nb{% endif %}\n\nc\n\n",
    "\n\n{{ n }}\n{%- set x -%}\n  text\n{%- endset -%}\n[{{ x }}]",
    "{{ '''x''' }}",
    "{{ 1 }}\u00a0{% if t %}\u00a0\n b{% endif %}",
    "",
    "\n",
    "{% macro m() %}\n  a\n{% endmacro %}\n{{ m() }}|{{ m() | trim }}|\n",
    "{% if t %}\n{{ x.y.z }}\n{% endif %}",
    "{{ {'a': {'b': [1, {'c': 'd'}]}}['a'].b[1]['c'] }}\n{{- '\\n' -}}\n{{ 'end' }}",
]

# ---------------------------------------------------------------------------------------------


def render(source, conversation):
    """{"text": ...}, or {"error": ...} with Python's message."""
    options = {"add_generation_prompt": True, "tools": None, "documents": None, **conversation}
    messages = options.pop("messages")
    variables = options.pop("variables", {})
    try:
        texts, _ = chat_template_utils.render_jinja_template(
            [messages], chat_template=source, **options, **variables)
        text = texts[0]
        if " object at 0x" in text or "<built-in" in text or "<generator" in text:
            return {"error": "prints an address"}
        return {"text": text}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}".split("\n")[0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    root = Path(__file__).resolve().parent.parent
    parser.add_argument("--out", type=Path, default=root / "tests/golden/chat_template")
    parser.add_argument("--shared", type=Path, default=root / "../shared/data")
    args = parser.parse_args()

    def write(name, content):
        (args.out / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n")

    conversations = {name: {**c, "variables": {**TOKENS, **c.get("variables", {})}}
                     for name, c in CONVERSATIONS.items()}
    write("conversations.json", conversations)
    write("snippets.json", {"variables": VARIABLES, "snippets": [
        {"source": s, **render(s, {"messages": [], "variables": VARIABLES})} for s in SNIPPETS]})

    def render_all(paths, base):
        return {str(p.relative_to(base)): {name: render(p.read_text(), c) for name, c in conversations.items()}
                for p in sorted(paths)}

    own = args.out / "own"
    write("own.json", render_all(own.glob("*.jinja"), own))
    templates = args.shared / "templates"
    if templates.is_dir():
        different = {p.read_bytes(): p for p in sorted(templates.rglob("*.jinja"), reverse=True)}
        write("shared.json", render_all(different.values(), args.shared))
    else:
        print(f"{templates} is not here: shared.json is left as it is")


if __name__ == "__main__":
    main()
