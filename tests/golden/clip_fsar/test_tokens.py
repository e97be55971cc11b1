"""Prompts as tokens: what the published code made of class names."""

import pytest

from slowfast.text.tokenizer import Tokenizer

PROMPT = "a photo of {}"
START, END = 49406, 49407
OF_NAMES = {
    "clap": (25546,),
    "draw_sword": (4001, 318, 11356),
    "Pushing [something] from left to right": (11549, 314, 2006, 316, 633, 1823, 531, 1155),
    "hurling (sport)": (24738, 263, 2364, 264),
}


@pytest.mark.parametrize("name", OF_NAMES)
def test_known_names(name):
    (row,) = Tokenizer()([PROMPT.format(name)]).tolist()
    expected = [START, 320, 1125, 539, *OF_NAMES[name], END]
    assert row == expected + [0] * (77 - len(expected))


@pytest.mark.parametrize("split", ["train", "test"])
def test_recorded_names(golden_clip_fsar, split):
    text = golden_clip_fsar["text"]
    for prompt, entry in ((PROMPT, f"tokens_{split}"), (text["prompt"], f"tokens_{split}_prompt")):
        found = Tokenizer()([prompt.format(name) for name in text[f"{split}_names"]])
        assert found.tolist() == text[entry].tolist()
