"""Write the tiny model of support.tiny_model as a Hugging Face folder, which vLLM loads.

Of the same make, but not the same text: the two formats order the attention's rows differently, and a play compares an engine
with itself. Used by support.vllm. Needs numpy alone; the tensors' file format is a length, a JSON index and raw bytes.
"""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from support.tiny_model import (
    CHATML,
    CONSONANTS,
    CONTEXT,
    FEED_FORWARD,
    HEAD_WIDTH,
    HEADS,
    SPACE,
    VOWELS,
    WIDTH,
    Vocabulary,
    Weights,
    make_weights,
)

NAMES = {
    "token_embd": "model.embed_tokens",
    "output": "lm_head",
    "output_norm": "model.norm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def write_hf_model(folder: Path, layers: int = 2) -> Path:
    """Write the model into `folder`, made when missing, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = Vocabulary(np.random.RandomState(7))  # the legacy stream is frozen, as in tiny_model
    _write_tensors(folder / "model.safetensors", make_weights(vocabulary, layers, seed=8))
    ends = {"bos_token_id": vocabulary.begin, "eos_token_id": vocabulary.end}
    _write_json(folder / "config.json", {**_architecture(len(vocabulary.tokens), layers), **ends})
    _write_json(folder / "generation_config.json", ends)
    _write_json(folder / "tokenizer.json", _tokenizer(vocabulary))
    words = {"bos_token": "<s>", "eos_token": "<|im_end|>", "unk_token": "<unk>", "chat_template": CHATML}
    more = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": CONTEXT, "clean_up_tokenization_spaces": False}
    _write_json(folder / "tokenizer_config.json", {**words, **more})
    return folder


def _architecture(tokens: int, layers: int) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": WIDTH,
        "intermediate_size": FEED_FORWARD,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 1,
        "head_dim": HEAD_WIDTH,
        "vocab_size": tokens,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    }


def _tokenizer(vocabulary: Vocabulary) -> dict[str, Any]:
    ordinary = {int(gguf.TokenType.NORMAL), int(gguf.TokenType.BYTE)}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    special = [
        {"id": number, "content": text, **flags}
        for number, (text, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True))
        if kind not in ordinary
    ]
    model = {
        "type": "BPE",
        "unk_token": "<unk>",
        "fuse_unk": True,
        "byte_fallback": True,
        "vocab": {text: number for number, text in enumerate(vocabulary.tokens)},
        "merges": _merges(vocabulary),
    }
    return {
        "version": "1.0",
        "added_tokens": special,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": model,
    }


def _merges(vocabulary: Vocabulary) -> list[str]:
    """Say how the longer tokens grow out of shorter ones: letters to syllables, syllables to words."""
    syllables = [consonant + vowel for consonant in CONSONANTS for vowel in VOWELS]
    known = set(vocabulary.tokens)
    merges = [f"{syllable[0]} {syllable[1]}" for syllable in syllables]
    merges += [f"{SPACE} {syllable}" for syllable in syllables]
    merges += [f"{SPACE}{one} {other}" for one in syllables for other in syllables if SPACE + one + other in known]
    return merges


def _write_tensors(path: Path, weights: Weights) -> None:
    index: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, value in weights.items():
        index[_hf_name(name)] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [start, start + value.nbytes]}
        start += value.nbytes
    head = json.dumps(index).encode()
    head += b" " * (-len(head) % 8)
    raw = b"".join(np.ascontiguousarray(value).tobytes() for value in weights.values())
    path.write_bytes(len(head).to_bytes(8, "little") + head + raw)


def _hf_name(name: str) -> str:
    if not name.startswith("blk."):
        return f"{NAMES[name.removesuffix('.weight')]}.weight"
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{NAMES[part]}.weight"


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
