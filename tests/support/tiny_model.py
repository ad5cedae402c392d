"""Make a tiny language model with made-up weights that llama.cpp loads in milliseconds, the same bytes every time.

The text it writes means nothing, but it is valid UTF-8 with characters of several tokens in it, it depends on everything before
it, and it never ends by itself: greedy decoding gives as many tokens as asked for, the same in every process. Nothing is fetched.

How: hidden size 64, of which 8 channels are written by no layer: channel 0 is a constant that gives each token a fixed bias, the
next ones force the following byte of a multi-byte character. Used by support.llama.
"""

import fcntl
from itertools import pairwise
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

Weights = dict[str, npt.NDArray[np.float32]]

WIDTH, HEADS, FEED_FORWARD, CONTEXT = 64, 2, 128, 8192
HEAD_WIDTH = WIDTH // HEADS
RESERVED = 8
CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
CHARACTERS = ("\u00e9".encode(), "\u2248".encode(), "\U0001f600".encode())  # of 2, 3 and 4 bytes
SPACE = "\u2581"
CHATML = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


class Vocabulary:
    """SentencePiece-style tokens: bytes, syllables, words. `gains` is how eagerly the model says each; 0 never."""

    def __init__(self, dice: np.random.RandomState) -> None:
        self.tokens: list[str] = []
        self.scores: list[float] = []
        self.types: list[int] = []
        self.gains: list[float] = []
        kinds = gguf.TokenType
        self.unknown = self._add("<unk>", 0.0, kinds.UNKNOWN)
        self.begin = self._add("<s>", 0.0, kinds.CONTROL)
        self._add("</s>", 0.0, kinds.CONTROL)
        self._byte_0 = len(self.tokens)
        for byte in range(256):
            self._add(f"<0x{byte:02X}>", 0.0, kinds.BYTE)
        self._add("<|im_start|>", 0.0, kinds.CONTROL)
        self.end = self._add("<|im_end|>", 0.0, kinds.CONTROL)
        self._add_words(dice)
        self.gains[self.byte(10)] = 1.2
        for character in CHARACTERS:
            self.gains[self.byte(character[0])] = 1.4

    def byte(self, value: int) -> int:
        """Return the token of one byte."""
        return self._byte_0 + value

    def _add(self, text: str, score: float, kind: int, gain: float = 0.0) -> int:
        self.tokens.append(text)
        self.scores.append(score)
        self.types.append(int(kind))
        self.gains.append(gain)
        return len(self.tokens) - 1

    def _add_words(self, dice: np.random.RandomState) -> None:
        syllables = [consonant + vowel for consonant in CONSONANTS for vowel in VOWELS]
        words: list[str] = []
        while len(words) < 256:
            first, second = (syllables[i] for i in dice.randint(0, len(syllables), 2))
            if first + second not in words:
                words.append(first + second)
        texts = [(syllable, 1.0) for syllable in syllables]
        texts += [(SPACE + syllable, 0.0) for syllable in syllables]
        texts += [(SPACE + word, 1.0) for word in words]
        texts += [(letter, 0.0) for letter in SPACE + "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"]
        texts += [(mark, 1.2 if mark in '.,;!?"' else 0.0) for mark in ".,;:!?\"'()[]{}<>|/\\-_+=*&^%$#@~`"]
        for rank, (text, gain) in enumerate(texts):
            self._add(text, -1.0 - rank, gguf.TokenType.NORMAL, gain)


def make_weights(vocabulary: Vocabulary, layers: int, seed: int) -> Weights:
    """Draw the weights, named as in a GGUF file."""
    dice = np.random.RandomState(seed)  # the legacy stream is frozen, so the model is the same for ever

    def draw(rows: int, columns: int, deviation: float) -> npt.NDArray[np.float32]:
        return (dice.standard_normal((rows, columns)) * deviation).astype(np.float32)

    embedding = draw(len(vocabulary.tokens), WIDTH, 1.0)
    embedding[:, :RESERVED] = 0
    embedding[:, 0] = 1.0
    output = draw(len(vocabulary.tokens), WIDTH, 1.0)
    output[:, :RESERVED] = 0
    for token, gain in enumerate(vocabulary.gains):
        output[token] *= gain
        if not gain:
            output[token, 0] = -500.0
    channel = 1
    for character in CHARACTERS:
        for now, following in pairwise(character):
            embedding[vocabulary.byte(now), channel] = 4.0
            output[vocabulary.byte(following), channel] = 500.0
            channel += 1
    weights: Weights = {"token_embd.weight": embedding, "output.weight": output}
    weights["output_norm.weight"] = np.ones(WIDTH, np.float32)
    depth = (2 / layers) ** 0.5  # keeps deep models as lively as shallow ones
    for i in range(layers):
        layer = {
            "attn_q": draw(WIDTH, WIDTH, 0.25),
            "attn_k": draw(WIDTH // 2, WIDTH, 0.25),
            "attn_v": draw(WIDTH // 2, WIDTH, 0.5),
            "attn_output": draw(WIDTH, WIDTH, 0.5 * depth),
            "ffn_gate": draw(FEED_FORWARD, WIDTH, 0.2),
            "ffn_up": draw(FEED_FORWARD, WIDTH, 0.2),
            "ffn_down": draw(WIDTH, FEED_FORWARD, 0.15 * depth),
            "attn_norm": np.ones(WIDTH, np.float32),
            "ffn_norm": np.ones(WIDTH, np.float32),
        }
        layer["attn_output"][:RESERVED] = 0
        layer["ffn_down"][:RESERVED] = 0
        weights |= {f"blk.{i}.{name}.weight": value for name, value in layer.items()}
    return weights


def write_model(path: Path, layers: int) -> None:
    """Write the model as a GGUF file; more `layers` make it slower (2: thousands of tokens a second, 64: hundreds)."""
    vocabulary = Vocabulary(np.random.RandomState(7))  # see make_weights
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_file_type(0)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HEAD_WIDTH)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(vocabulary.tokens))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([token.encode() for token in vocabulary.tokens])
    writer.add_token_scores(vocabulary.scores)
    writer.add_token_types(vocabulary.types)
    writer.add_bos_token_id(vocabulary.begin)
    writer.add_eos_token_id(vocabulary.end)
    writer.add_unk_token_id(vocabulary.unknown)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHATML)
    for name, value in make_weights(vocabulary, layers, seed=8).items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tiny_model(folder: Path, *, layers: int = 2) -> Path:
    """Return the path of the model in `folder`, made there when it is missing; test runs at the same time share one."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"tiny-{layers}.gguf"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            unfinished = path.with_suffix(".unfinished")
            write_model(unfinished, layers)
            unfinished.replace(path)
    return path
