from __future__ import annotations

import json
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from tests.unit.decision.llm.tiny_model import DECISION, closed, save_tokenizer
from trimtab.decision.llm.constrained import Grammar, Grammars, bounded


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(directory)
    backend = PreTrainedTokenizerFast.from_pretrained(directory).backend_tokenizer
    backend.no_padding()
    return backend


def begin(tokenizer: Any, schema: dict[str, Any]) -> Grammar:
    return Grammars(tokenizer.to_str(), tokenizer.get_vocab_size() + 9, [2]).grammar(schema)


def say(grammar: Grammar, tokenizer: Any, text: str) -> None:
    for token in tokenizer.encode(text).ids:
        grammar.take(token)


def possible(grammar: Grammar, tokenizer: Any) -> set[str]:
    allowed = grammar.allowed()
    tokens = [token for token in range(len(allowed) * 8) if allowed[token // 8] >> token % 8 & 1]
    return {"(end)" if token == 2 else tokenizer.decode([token]) for token in tokens}


def test_only_what_the_schema_offers_can_be_said(tokenizer: Any) -> None:
    grammar = begin(tokenizer, {"enum": ["a", "abc"]})
    assert tokenizer.decode(grammar.take_forced()) == '"a'
    assert possible(grammar, tokenizer) == {'"', "b"}
    say(grammar, tokenizer, "b")
    assert tokenizer.decode(grammar.take_forced()) == 'c"'
    assert grammar.has_ended


def test_only_choices_are_left_to_the_model(tokenizer: Any) -> None:
    grammar = begin(tokenizer, DECISION)
    said = ""
    for choice in ('high"', "no", "l", "]"):
        said += tokenizer.decode(grammar.take_forced()) + choice
        say(grammar, tokenizer, choice)
    said += tokenizer.decode(grammar.take_forced())
    assert grammar.has_ended
    assert said == json.dumps({"reason": "high", "action": {"kind": "no_action"}, "expected_gain": "large", "watch": []})


def test_a_string_has_no_escapes_that_could_make_half_a_character(tokenizer: Any) -> None:
    grammar = begin(tokenizer, {"type": "string"})
    say(grammar, tokenizer, '"\\')
    assert {text[0] for text in possible(grammar, tokenizer)} == {'"', "\\", "n"}


def test_a_string_ends_at_its_longest(tokenizer: Any) -> None:
    grammar = begin(tokenizer, {"type": "string", "maxLength": 3})
    say(grammar, tokenizer, '"zzz')
    assert tokenizer.decode(grammar.take_forced()) == '"'
    assert grammar.has_ended


def test_only_what_is_open_is_narrowed() -> None:
    given = closed(
        type={"type": "string"},  # a field may be called like a keyword
        long={"type": "string", "minLength": 500},
        measured={"type": "string", "maxLength": 5},
        label={"type": "string", "enum": ["a"]},
        one={
            "anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "array", "minItems": 9, "items": {"const": 1}}]
        },
        few={"type": "array", "maxItems": 2, "items": {"$ref": "#/$defs/text"}},
    ) | {"$defs": {"text": {"type": "string"}}}
    text = {"type": "string", "minLength": 1, "maxLength": 300}
    before = json.dumps(given)
    assert bounded(given) == closed(
        type=text,
        long={"type": "string", "minLength": 500, "maxLength": 500},
        measured={"type": "string", "maxLength": 5},
        label={"type": "string", "enum": ["a"]},
        one={
            "anyOf": [
                {"type": "array", "items": text, "maxItems": 8},
                {"type": "array", "minItems": 9, "items": {"const": 1}, "maxItems": 9},
            ]
        },
        few={"type": "array", "maxItems": 2, "items": {"$ref": "#/$defs/text"}},
    ) | {"$defs": {"text": text}}
    assert json.dumps(given) == before


def test_the_end_is_offered_only_where_the_reply_is_whole(tokenizer: Any) -> None:
    grammar = begin(tokenizer, {"type": "integer", "minimum": 1, "maximum": 25})
    assert "(end)" not in possible(grammar, tokenizer)
    say(grammar, tokenizer, "2")
    assert possible(grammar, tokenizer) == {"(end)", *"012345"}
