"""CLIP's byte-pair encoding.

The merges table is data published by OpenAI (see NOTICE); the encoding is that of Sennrich et al. (2016) over UTF-8
bytes, lower case, with a mark at the end of each word.
"""

from __future__ import annotations

import gzip
import html
import itertools
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import ftfy
import regex
import torch
from torch import Tensor

_MERGES_FILE = Path(__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
_NUM_MERGES = 49152 - 256 - 2
_WORD_END = "</w>"
_SHOWN = 60  # characters of a text that an error repeats
START, END = "<|startoftext|>", "<|endoftext|>"
_WORDS = regex.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+", regex.IGNORECASE
)


def _byte_symbols() -> list[str]:
    """Give every byte a visible character: itself where it is printable Latin-1, else one from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    symbols = {byte: chr(byte) for byte in printable}
    hidden = [byte for byte in range(256) if byte not in symbols]
    symbols.update({byte: chr(256 + number) for number, byte in enumerate(hidden)})
    # The vocabulary lists printable bytes first; a dict keeps that order for Tokenizer.
    return [symbols[byte] for byte in range(256)]


@lru_cache(maxsize=1)
def _tables() -> tuple[dict[str, int], dict[tuple[str, str], int], list[str]]:
    """Vocabulary, merge ranks and byte symbols, read once per process."""
    lines = gzip.decompress(_MERGES_FILE.read_bytes()).decode("utf-8").split("\n")
    merges = [(left, right) for left, right in (line.split() for line in lines[1 : _NUM_MERGES + 1])]
    byte_symbols = _byte_symbols()
    ordered = sorted(byte_symbols, key=lambda symbol: (ord(symbol) >= 256, ord(symbol)))
    words = [*ordered, *(symbol + _WORD_END for symbol in ordered), *("".join(pair) for pair in merges), START, END]
    vocabulary = {word: number for number, word in enumerate(words)}
    return vocabulary, {pair: rank for rank, pair in enumerate(merges)}, byte_symbols


class Tokenizer:
    """Turns texts into CLIP's token numbers.

    Source: Radford et al. (2021), section 2.4.
    """

    def __init__(self) -> None:
        self._vocabulary, self._ranks, self._byte_symbols = _tables()
        self._cache: dict[str, list[int]] = {}
        self.start, self.end = self._vocabulary[START], self._vocabulary[END]

    def __len__(self) -> int:
        """Size of the vocabulary."""
        return len(self._vocabulary)

    def encode(self, text: str) -> list[int]:
        """Encode one text without the start and end tokens.

        Args:
            text: any Unicode text; broken encodings are repaired, case and spacing are folded.

        Returns:
            Token numbers.
        """
        cleaned = html.unescape(html.unescape(ftfy.fix_text(text)))
        cleaned = " ".join(cleaned.split()).lower()
        return [token for word in _WORDS.findall(cleaned) for token in self._encode_word(word)]

    def __call__(self, texts: Sequence[str], *, context_length: int = 77, truncate: bool = False) -> Tensor:
        """Encode texts into rows of equal length.

        Args:
            texts: N texts.
            context_length: tokens per row, start and end included.
            truncate: whether a longer text is cut before its end token; otherwise it is an error.

        Returns:
            Token numbers, 0 behind the end token, (N, context_length), int64.

        Raises:
            ValueError: if a text is too long and truncate is off.
        """
        rows = torch.zeros(len(texts), context_length, dtype=torch.long)
        for row, text in zip(rows, texts, strict=True):
            tokens = self.encode(text)
            if len(tokens) > context_length - 2:
                if not truncate:
                    shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
                    raise ValueError(f"text {shown!r} has {len(tokens) + 2} tokens; the context holds {context_length}")
                tokens = tokens[: context_length - 2]
            row[: len(tokens) + 2] = torch.tensor([self.start, *tokens, self.end])
        return rows

    def _encode_word(self, word: str) -> list[int]:
        if word in (START, END):
            return [self._vocabulary[word]]
        if word not in self._cache:
            symbols = [self._byte_symbols[byte] for byte in word.encode("utf-8")]
            symbols[-1] += _WORD_END
            self._cache[word] = [self._vocabulary[symbol] for symbol in self._merge(symbols)]
        return self._cache[word]

    def _merge(self, symbols: list[str]) -> list[str]:
        """Join neighbours in the order in which the merges were learned until none applies."""
        never = len(self._ranks)
        while len(symbols) > 1:
            pairs = list(itertools.pairwise(symbols))
            best = min(pairs, key=lambda pair: self._ranks.get(pair, never))
            if best not in self._ranks:
                break
            merged: list[str] = []
            position = 0
            while position < len(symbols):
                if tuple(symbols[position : position + 2]) == best:
                    merged.append(symbols[position] + symbols[position + 1])
                    position += 2
                else:
                    merged.append(symbols[position])
                    position += 1
            symbols = merged
        return symbols
