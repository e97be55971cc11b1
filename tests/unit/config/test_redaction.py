import hashlib
import json
import subprocess
import sys

import pytest

from slowfast.config.redaction import HIDDEN, redact

LONG = "aB3dE5gH7jK9mN1pQ3rS5tU7vW9xY1zA2bC4"
HEX = hashlib.sha1(b"x").hexdigest()

# Text before, the secret, text after: what stays, what goes, what stays.
SECRETS = [
    ("sk-", "abcdef123456", ""),
    ("sk-proj-", f"{LONG}-{LONG}_{LONG}", " and more"),
    ("sk-ant-", f"api03-{LONG}-{LONG}AA", ""),
    ("path/sk-or-", f"v1-{hashlib.sha256(b'x').hexdigest()}", "/file"),
    ("hf_", LONG[:34], "."),
    ("ghp_", LONG, ""),
    ("github_pat_", f"11{LONG}_{LONG}", ""),
    ("AKIA", "IOSFODNN7EXAMPLE", ""),
    ("xoxb-", "1234567890-abcdef", ""),
    ("AIza", LONG[:35], ""),
    ("gsk_", LONG, ""),
    ("eyJ", "hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0.abcdefghij", ""),
    ("Authorization: Bearer ", "abc.def-123456", ""),
    ("authorization: basic ", "aHVudGVyMg==", ""),
    ("{'Authorization': 'Token ", "hunter2", "'}"),
    ("x-api-key: ", "hunter2", ""),
    ("WANDB_API_KEY=", HEX, ""),
    ("wandb_api_key: ", HEX, "\nnext: line"),
    ('{"api_key": "', "hunter2", '", "a": 1}'),
    ("api_key='", "two words", "'"),
    ("Server(api_key=", "hunter2", ")"),
    ("password=", "hunter2", ", x"),
    ("AWS_SECRET_ACCESS_KEY=", "abc/def+ghi", ""),
    ("HF_TOKEN=", "hunter2", ""),
    ("tool --api-key ", "hunter2", " --more"),
    ("http://", "user:pass", "@host:80/x"),
    ("https://", "user:p@ss", "@host/x"),
    ("https://host/x?token=", "hunter2", "&b=1"),
]


@pytest.mark.parametrize(("before", "secret", "after"), SECRETS, ids=[before for before, _, _ in SECRETS])
def test_secrets_go_and_their_kind_stays(before, secret, after):
    found = redact(before + secret + after)
    assert found.endswith(HIDDEN + after)
    assert found.startswith(before)
    assert secret not in found
    assert redact(found) == found


ORDINARY = [
    hashlib.sha256(b"x").hexdigest(),
    f"git_revision: {HEX}-dirty",
    "/data/sk-experiments/run1/checkpoint_epoch_00002.pyth",
    "sk-resnet50-k400-16x4",
    "disk-usage-2024-reconstruction",
    "hf_transformers_model400/pytorch_model.bin",
    "hf_datasets2/UCF101/v_ApplyEyeMakeup_g01_c01.avi",
    "-3B32lodo2M_000059_000069.mp4",
    "token_embedding.weight: 77 tokens of 49408",
    "task-oriented mask-rate bearer of news, hf_ x",
    "Bearer carrying coffins",
    "telling a secret: A person whispers into the ear of another",
    "api_key: null, password: None",
    "key: is not in the table",
    "monkey: 3, keyboard=1, passwords",
    "user@example.com tcp://localhost:9998 https://host/a@b",
    "{'secret': ***}",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_hashes_paths_and_class_names_stay(text):
    assert redact(text) == text


def test_json_stays_json():
    content = {"api_key": "hunter2", "url": "http://a:b@c/d", "text": 'say "password=hunter2"', "n": 1}
    found = json.loads(redact(json.dumps(content)))
    assert found["api_key"] == HIDDEN
    assert "hunter2" not in str(found)


def test_traceback_of_a_defect():
    code = (
        "from slowfast.config.redaction import redact_tracebacks\n"
        "redact_tracebacks()\n"
        "raise ZeroDivisionError('http://user:' + 'hunter2' + '@host')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):")
    assert done.stderr.endswith("ZeroDivisionError: http://***@host\n")


@pytest.mark.parametrize("piece", ["sk-", "a-", "password", "://", "--secret-", "Bearer ", "a.password_"])
def test_no_text_takes_long(piece):
    """Patterns are bounded, so a long line costs a multiple of its length."""
    text = piece * (200_000 // len(piece))
    assert isinstance(redact(text), str)
