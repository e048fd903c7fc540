"""A random model of a few thousand weights, and a checker of the schemas it has to keep to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

CONTEXT_TOKENS: Final = 2048
TEMPLATE: Final = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WITHOUT_SYSTEM: Final = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TEMPLATE
_CORPUS: Final = ["the learning rate is too high, halve it", "validation loss has stopped falling at step 100"]
_SIZES: Final[dict[str, Any]] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT_TOKENS,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "initializer_range": 0.5,  # wide: a random model with an opinion
}


def save_tokenizer(directory: Path, template: str | None = TEMPLATE) -> int:
    """Train and save a small tokenizer; return how many tokens it has."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=marks, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(_CORPUS * 5, trainer)
    tokenizer.enable_padding(length=64)  # a model's files may ask for it
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=marks[0], eos_token=marks[2], pad_token=marks[0])
    fast.chat_template = template
    fast.save_pretrained(directory)
    return tokenizer.get_vocab_size()


def save_model(directory: Path, seed: int = 0, *, template: str | None = TEMPLATE, sliding: bool = False) -> Path:
    """Save a random model with its tokenizer; some of its scores belong to no token, as in many real models."""
    num_scores = save_tokenizer(directory, template) + 9
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if sliding:
            model = MistralForCausalLM(MistralConfig(vocab_size=num_scores, sliding_window=48, **_SIZES))
        else:
            model = LlamaForCausalLM(LlamaConfig(vocab_size=num_scores, **_SIZES))
    model.save_pretrained(directory)
    return directory


def closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


DECISION: Final = closed(
    reason={"type": "string", "maxLength": 40},
    action={
        "anyOf": [
            closed(kind={"const": "no_action"}),
            closed(
                kind={"const": "adjust"},
                changes={
                    "type": "array",
                    "items": closed(
                        control={"enum": ["learning_rate", "dropout"]}, value={"enum": ["halve", "double", "x 1.1"]}
                    ),
                    "minItems": 1,
                    "maxItems": 2,
                },
            ),
            closed(kind={"const": "rollback"}, to={"enum": ["best", "last"]}),
        ]
    },
    expected_gain={"enum": ["none", "small", "large"]},
    watch={"type": "array", "items": {"enum": ["loss", "val/loss", 'odd "name"\\']}, "maxItems": 3},
)
SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "decision": DECISION,
    "enum": {"enum": ["a", "ab", "abc", "é"]},
    "nested": closed(a=closed(b=closed(c={"type": "boolean"}, d={"anyOf": [{"const": 1}, {"type": "null"}]}))),
    "integers": {"type": "array", "items": {"type": "integer", "minimum": -3, "maximum": 12}, "minItems": 2, "maxItems": 4},
    "text": closed(text={"type": "string", "maxLength": 30, "minLength": 5}),
}


def follows(value: Any, schema: dict[str, Any]) -> bool:
    """Say whether a value keeps to a schema, of the keywords used here."""
    if "anyOf" in schema:
        return any(follows(value, one) for one in schema["anyOf"])
    if "const" in schema:
        return type(value) is type(schema["const"]) and value == schema["const"]
    if "enum" in schema:
        return value in schema["enum"]
    match schema["type"]:
        case "object":
            properties = schema["properties"]
            return (
                isinstance(value, dict)
                and list(value) == list(properties)
                and all(follows(value[name], one) for name, one in properties.items())
            )
        case "array":
            least, most = schema.get("minItems", 0), schema.get("maxItems", 10**9)
            return (
                isinstance(value, list) and least <= len(value) <= most and all(follows(one, schema["items"]) for one in value)
            )
        case "string":
            return isinstance(value, str) and schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 10**9)
        case "integer":
            return type(value) is int and schema["minimum"] <= value <= schema["maximum"]
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case other:
            raise AssertionError(f"the checker does not know {other}")


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({key for key, _ in pairs}) == len(pairs)
    return dict(pairs)


def parsed(text: str) -> Any:
    return json.loads(text, object_pairs_hook=unique_keys)
