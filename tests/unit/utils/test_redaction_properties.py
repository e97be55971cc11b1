import string

import pytest

pytest.importorskip("hypothesis")

from hypothesis import given
from hypothesis import strategies as st

from slowfast.config.redaction import redact

# What patterns begin, join and end with, so that examples come near them.
words = ["sk-", "sk-proj-", "hf_", "ghp_", "AKIA", "xoxb-", "api_key", "password", "secret", "token", "HF_TOKEN"]
marks = [
    "://",
    "@",
    "=",
    '"',
    "'",
    "\\",
    "?key=",
    "&",
    "***",
    "null",
    "/",
    ":",
    ",",
    "}",
    "-",
    "_",
    ".",
    " ",
    "\n",
    ": ",
]
more = [": ", "hunter2", "aB3dE5gH7jK9mN1pQ3rS5tU7vW9xY1zA2bC4", "Bearer ", "Authorization: ", "--api-key "]
pieces = st.sampled_from([*words, *marks, *more])
texts = st.text(max_size=80) | st.lists(pieces | st.text(max_size=4), max_size=12).map("".join)


@given(texts)
def test_any_text_is_redacted_once_and_for_all(text):
    found = redact(text)
    assert redact(found) == found


@given(
    st.text(max_size=30), st.text(string.ascii_letters + string.digits, min_size=24, max_size=40), st.text(max_size=30)
)
def test_a_key_goes_wherever_it_stands(before, key, after):
    planted = "A1b2C3" + key
    assert planted not in redact(f"{before} sk-proj-{planted} {after}")
    assert planted not in redact(f"{before} api_key={planted} {after}")


@given(st.text("0123456789abcdef", min_size=40, max_size=64), st.lists(st.sampled_from(
    ["data", "ucf101", "v_Archery_g01_c02.avi", "checkpoint_epoch_00012.pyth", "swa_2_22.pth", "-3B32lodo2M_000059.mp4"]
), min_size=1, max_size=5))  # fmt: skip
def test_hashes_and_paths_stay(digest, parts):
    text = f"/{'/'.join(parts)} sha256 {digest}"
    assert redact(text) == text
