import itertools
import json
import re

import pytest
import torch

from slowfast.models.clip.prefix import encode_continuations
from slowfast.text.feature_file import read_feature_file
from slowfast.text.features import build_features, encode_table, prompt_table
from slowfast.text.prompt_bank import PromptEntry
from slowfast.text.text_bank import load_feature_file
from slowfast.text.tokenizer import Tokenizer

NAMES = ["surfing", "pouring tea", "sleeping"]
TEMPLATES = ["a human action of {}.", "a video of a person {}"]
TAILS = {
    "pouring tea": PromptEntry(
        object_tails=("where a cup stands on a saucer",),
        action_tails=("which fills a cup",),
        sub_action_tails=("then",),
    ),
    "surfing": PromptEntry(
        object_tails=("where a board lies on the water", "with a foamy wave behind"),
        action_tails=("which rides a wave", "with a foamy wave behind", "standing on a board"),
        sub_action_tails=("starting with paddling", "then standing up while the wave breaks"),
    ),
    "sleeping": PromptEntry(
        object_tails=("with a pillow", "on a bed"),
        action_tails=("which rests the head",),
        sub_action_tails=("at last",),
    ),
}


def table(**options):
    return prompt_table(NAMES, TAILS, templates=TEMPLATES, **options)


@pytest.fixture
def clip(build_tiny):
    return build_tiny()


@pytest.fixture
def encode(clip):
    return lambda *parts: encode_continuations(clip, *parts)


def test_prompts_of_a_template_are_the_name_and_its_tails_each_once():
    made = table()
    assert made.texts[0][:7] == (
        "a human action of surfing.",
        "a human action of surfing, where a board lies on the water.",
        "a human action of surfing, with a foamy wave behind.",
        "a human action of surfing, which rides a wave.",
        "a human action of surfing, standing on a board.",
        "a human action of surfing, starting with paddling.",
        "a human action of surfing, then standing up while the wave breaks.",
    )
    assert made.texts[0][7] == "a video of a person surfing"
    assert [sum(row) for row in made.mask.tolist()] == [14, 8, 10]
    assert made.texts[1][3:7] == ("a human action of pouring tea, then.", None, None, None)
    assert made.texts[1][7] == "a video of a person pouring tea"


@pytest.mark.parametrize(
    ("kind", "counts"), [("a", [1, 1, 1]), ("xoo", [3, 2, 3]), ("xao", [4, 2, 2]), ("xaa", [3, 2, 2])]
)
def test_kinds_of_tails(kind, counts):
    made = table(kind=kind)
    assert (made.mask.sum(dim=1) / len(TEMPLATES)).tolist() == counts
    entry = TAILS["surfing"]
    tails = {"a": (), "xoo": entry.object_tails, "xao": entry.action_tails, "xaa": entry.sub_action_tails}[kind]
    assert made.texts[0][1 : len(tails) + 1] == tuple(f"a human action of surfing, {tail}." for tail in tails)


def test_classes_are_found_by_name_and_a_missing_one_is_named():
    assert prompt_table(["a {x}"], {}, templates=TEMPLATES, kind="a").texts[0][0] == "a human action of a {x}."
    message = "class 'surf': not among the 3 classes that have sentence tails; nearest is 'surfing'"
    with pytest.raises(ValueError, match=f"^{message}$"):
        prompt_table(["surf"], TAILS, templates=TEMPLATES)


def naive_official_tensor(clip):
    """The published layout, written out: lists per template, padded in a circle, rows (template, slot, class)."""
    lists = {}
    for number, template in enumerate(TEMPLATES):
        for name in NAMES:
            entry = TAILS[name]
            base = template.format(name)
            triples = [
                [base] + [template.format(f"{name}, {tail}") for tail in tails]
                for tails in (entry.object_tails, entry.action_tails, entry.sub_action_tails)
            ]
            mixed = []
            for prompt in triples[0] + triples[1] + triples[2]:
                if prompt not in mixed:
                    mixed.append(prompt)
            lists[number, name] = mixed
    most = max(len(prompts) for prompts in lists.values())
    rows = []
    for number in range(len(TEMPLATES)):
        padded = {name: list(itertools.islice(itertools.cycle(lists[number, name]), most)) for name in NAMES}
        for slot in range(most):
            rows += [padded[name][slot] for name in NAMES]
    with torch.no_grad():
        features = torch.cat([clip.encode_text(Tokenizer()([text])) for text in rows])
    return features.reshape(len(TEMPLATES) * most, len(NAMES), -1).permute(1, 0, 2)


def test_padding_gives_the_published_tensor(clip, encode):
    found = encode_table(table(pad=True), encode=encode, tokenizer=Tokenizer())
    expected = naive_official_tensor(clip)
    assert found.shape == expected.shape == (3, 14, 32)
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, atol=1e-5)
    assert (found.norm(dim=-1) - 1).abs().max() > 0.01  # as the tower gives them, not normalised


def test_without_padding_free_slots_are_zero_and_the_others_the_same(encode):
    made = table()
    found = encode_table(made, encode=encode, tokenizer=Tokenizer())
    assert not found[~made.mask].any()
    padded = encode_table(table(pad=True), encode=encode, tokenizer=Tokenizer())
    assert torch.allclose(found[made.mask], padded[made.mask], atol=1e-6)


def test_every_text_is_encoded_once_and_beginnings_are_shared(encode):
    calls = []

    def counting(prefixes, group, tails):
        calls.append((prefixes.shape, len(tails)))
        return encode(prefixes, group, tails)

    done = []
    encode_table(table(pad=True), encode=counting, tokenizer=Tokenizer(), progress=done.append)
    assert sum(count for _, count in calls) == 32 == sum(done)
    assert calls[0] == ((1, 1), 6)  # the bare names have but their first token in common with one another
    assert all(shape[1] > 5 for shape, _ in calls[1:])


def test_result_depends_on_neither_batches_nor_other_classes(clip, encode):
    made = table()
    found = encode_table(made, encode=encode, tokenizer=Tokenizer())
    assert torch.equal(found, encode_table(made, encode=encode, tokenizer=Tokenizer()))
    for batch_size in (1, 3, 100):
        other = encode_table(
            made, encode=lambda *parts, n=batch_size: encode_continuations(clip, *parts, batch_size=n),
            tokenizer=Tokenizer(),
        )  # fmt: skip
        assert torch.allclose(found, other, atol=1e-5)
    alone = encode_table(prompt_table(NAMES[:1], TAILS, templates=TEMPLATES), encode=encode, tokenizer=Tokenizer())
    assert torch.allclose(alone[0], found[0], atol=1e-5)


def test_texts_that_become_the_same_tokens(encode):
    tails = {"a": PromptEntry(object_tails=("B c", "b  c"), action_tails=("b c",), sub_action_tails=("B C",))}
    made = prompt_table(["a"], tails, templates=["{}"])
    found = encode_table(made, encode=encode, tokenizer=Tokenizer())
    assert found.shape == (1, 5, 32)
    assert torch.allclose(found[0, 1:], found[0, 1].expand(4, 32), atol=1e-6)


def test_text_that_is_too_long(encode):
    tails = {"a": PromptEntry(object_tails=("b " * 80,), action_tails=("c",), sub_action_tails=("d",))}
    with pytest.raises(ValueError, match=r"^text '.*' has 85 tokens; the context holds 77$"):
        encode_table(prompt_table(["a"], tails, templates=["{}."]), encode=encode, tokenizer=Tokenizer())


@pytest.fixture
def build(tmp_path, encode):
    """Builds a file; tells whether the texts had to be encoded."""

    def run(made, *, name="features.pt", weights="w", **options):
        calls = []

        def features():
            calls.append(0)
            return encode_table(made, encode=encode, tokenizer=Tokenizer())

        built = build_features(tmp_path / name, made, weights_sha256=weights, features=features, **options)
        assert built.kept != bool(calls)
        return built

    return run


@pytest.mark.parametrize("name", ["features.pt", "features.safetensors"])
@pytest.mark.parametrize("pad", [False, True])
def test_file_is_kept_as_long_as_prompts_and_weights_are_the_same(build, name, pad):
    made = table(pad=pad)
    assert not build(made, name=name, bare=pad).kept
    again = build(made, name=name, bare=pad)
    assert again.kept
    bank = load_feature_file(again.path, names=NAMES, embed_dim=32)
    assert (bank.mask is None) == pad
    for change in ({"weights": "other"}, {"bare": not pad}):
        with pytest.raises(ValueError, match=r"exists and holds other features, or does not say which; --force repl"):
            build(made, **{"name": name, "bare": pad, **change})
    with pytest.raises(ValueError, match="exists and holds other features"):
        build(table(pad=pad, kind="xoo"), name=name, bare=pad)
    assert not build(made, name=name, bare=pad, weights="other", force=True).kept
    assert build(made, name=name, bare=pad, weights="other").kept


def test_file_says_where_it_is_from(build):
    built = build(table())
    file = read_feature_file(built.path, what="features")
    assert file.names == tuple(NAMES)
    assert dict(file.record) == {
        "kind": "xmix", "templates": "2", "prompts_sha256": table().sha256, "weights_sha256": "w",
        "content_sha256": built.content_sha256,
    }  # fmt: skip


def test_padded_file_is_a_bare_tensor_with_a_note_beside_it(build):
    built = build(table(pad=True), bare=True)
    assert torch.load(built.path, weights_only=True).shape == (3, 14, 32)
    note = built.path.with_name("features.pt.json")
    assert json.loads(note.read_text())["names"] == NAMES
    torch.save(torch.ones(3, 14, 32), built.path)  # the note is not about this one
    with pytest.raises(ValueError, match=f"^{re.escape(str(built.path))}: exists and holds other features"):
        build(table(pad=True), bare=True)
    note.write_text("{")
    with pytest.raises(ValueError, match="exists and holds other features"):
        build(table(pad=True), bare=True)


def test_foreign_file_is_not_replaced(build, tmp_path):
    (tmp_path / "features.pt").write_bytes(b"something else")
    with pytest.raises(ValueError, match="exists and holds other features, or does not say which"):
        build(table())
    assert (tmp_path / "features.pt").read_bytes() == b"something else"
    with pytest.raises(ValueError, match=r"features\.bin: unknown suffix '\.bin'; allowed: \.pt, \.safetensors$"):
        build_features(tmp_path / "features.bin", table(), weights_sha256="w", features=lambda: torch.ones(3, 14, 32))
