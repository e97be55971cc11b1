import re

import pytest
import torch

from slowfast.text.feature_file import FeatureFile, write_feature_file
from slowfast.text.text_bank import (
    TextBank,
    context_bank,
    encode_tokens,
    load_feature_file,
    mean_features,
    rephrased_bank,
    spoken_name,
    template_bank,
)
from slowfast.text.tokenizer import Tokenizer

KEY = "DATA.TEXT_AUG_FEATURE_FILE"
NAMES = ["surfing", "pouring tea", "climbing stairs"]


def encode(tokens):
    """A stand-in for a text tower: any function of the tokens."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(49408, 8, generator=generator)
    return (table[tokens] * torch.arange(1, tokens.shape[1] + 1)[None, :, None]).sum(dim=1)


def test_templates_are_averaged_as_unit_vectors():
    names, templates = ["surfing", "pouring tea"], ["a {}.", "the {} of a person."]
    tokenizer = Tokenizer()
    bank = template_bank(names, tokenizer=tokenizer, templates=templates)
    assert len(bank) == 2
    assert bank.tokens.shape == (2, 2, 77)
    for row, name in zip(mean_features(bank.tokens, encode=encode), names, strict=True):
        total = torch.zeros(8)
        for template in templates:
            feature = encode(tokenizer([template.format(name)]))[0]
            total += feature / feature.norm()
        assert torch.allclose(row, total / total.norm(), atol=1e-5)


def test_texts_are_encoded_in_chunks_without_gradient():
    sizes = []
    weight = torch.ones(8, requires_grad=True)

    def counting(tokens):
        sizes.append(len(tokens))
        return encode(tokens).half() * weight.half()

    features = encode_tokens(Tokenizer()(["cat"] * 1100), encode=counting)
    assert sizes == [512, 512, 76]
    assert features.dtype == torch.float32
    assert not features.requires_grad
    assert torch.allclose(features.norm(dim=-1), torch.ones(1100), atol=1e-6)


@pytest.mark.parametrize("shape", [(3,), (1, 2, 3, 4)])
def test_bank_of_another_shape(shape):
    message = f"text features have shape {shape}; expected (K, E) or (K, P, E)"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        TextBank(features=torch.zeros(shape))


def test_bank_of_tokens_without_prompts():
    message = "text tokens have shape (2, 77); expected (K, P, 77)"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        TextBank(tokens=torch.zeros(2, 77, dtype=torch.long))


@pytest.mark.parametrize("content", [{}, {"features": torch.ones(1, 2), "tokens": torch.ones(1, 1, 77)}])
def test_bank_of_nothing_or_of_both(content):
    with pytest.raises(ValueError, match=r"^a text bank holds either features or tokens$"):
        TextBank(**content)


def test_rephrased_names_fill_the_templates_with_name_and_sentence():
    tokenizer, templates = Tokenizer(), ["a photo of {}.", "a {}."]
    name = "Surfing: riding a wave on a board"
    bank = rephrased_bank([name, "tea"], tokenizer=tokenizer, templates=templates)
    expected = [f"a photo of Surfing {name}.", f"a Surfing {name}.", name, "a photo of tea.", "a tea.", "tea"]
    assert torch.equal(bank.tokens.flatten(0, 1), tokenizer(expected))


def test_learned_context_stands_between_start_and_name():
    tokenizer = Tokenizer()
    tokens = context_bank(["surfing", "pouring tea"], num_context=3, tokenizer=tokenizer).tokens
    assert tokens.shape == (2, 1, 77)
    assert torch.equal(tokens[:, 0], tokenizer(["X X X surfing.", "X X X pouring tea."]))
    assert len(set(tokens[:, 0, 1:4].flatten().tolist())) == 1


@pytest.mark.parametrize(
    ("words", "count", "text"),
    [
        ("a photo of a", 4, "a photo of a surfing."),
        ("a photo of a", 6, "a photo of a X X surfing."),
        (" a  photo ", 3, "a photo X surfing."),
        ("", 2, "X X surfing."),
        ("", 0, "surfing."),
    ],
)
def test_learned_context_may_start_from_words(words, count, text):
    tokenizer = Tokenizer()
    tokens = context_bank(["surfing"], num_context=count, tokenizer=tokenizer, words=words).tokens
    assert torch.equal(tokens[:, 0], tokenizer([text]))


def test_more_words_than_places():
    message = r"^context 'a photo of a': has 4 tokens; allowed: at most 3$"
    with pytest.raises(ValueError, match=message):
        context_bank(["surfing"], num_context=3, tokenizer=Tokenizer(), words="a photo of a")


@pytest.mark.parametrize(
    ("name", "split", "verbatim"),
    [
        ("ApplyLipstick", "Apply Lipstick", "ApplyLipstick"),
        ("push_up", "push up", "push up"),
        ("YoYo", "Yo Yo", "YoYo"),
        ("riding a bike", "riding a bike", "riding a bike"),
        ("Playing Sitar", "Playing  Sitar", "Playing Sitar"),
        ("GPSRun", "G P S Run", "GPSRun"),
        ("Élan vital", "Élan vital", "Élan vital"),
        ("", "", ""),
    ],
)
def test_spoken_name(name, split, verbatim):
    assert spoken_name(name) == split
    assert spoken_name(name, split_capitals=False) == verbatim


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_feature_file_of_any_float_dtype_and_length(tmp_path, dtype):
    features = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    torch.save(5 * features, tmp_path / "features.pt")
    bank = load_feature_file(tmp_path / "features.pt", names=NAMES, embed_dim=8)
    assert bank.features.dtype == torch.float32
    expected = features.float() / features.float().norm(dim=-1, keepdim=True)
    assert torch.allclose(bank.features, expected, atol=1e-3)
    assert torch.allclose(bank.features.norm(dim=-1), torch.ones(3, 4), atol=1e-6)


def with_bad_row(value):
    features = torch.randn(3, 4, 8)
    features[1, 2] = value
    return features


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.ones(3, 8), "holds (3, 8) torch.float32; expected a float tensor [classes, prompts, width]"),
        (
            torch.ones(3, 4, 8, dtype=torch.long),
            "holds (3, 4, 8) torch.int64; expected a float tensor [classes, prompts, width]",
        ),
        ({"a": torch.ones(1)}, "holds dict; expected a float tensor [classes, prompts, width]"),
        (torch.ones(5, 4, 8), "has 5 rows, but the label set has 3 classes"),
        (torch.ones(3, 4, 9), "features have width 9, but the model's joint space has 8"),
        (
            torch.ones(3, 0, 8),
            "holds (3, 0, 8), no prompt for any class; expected a float tensor [classes, prompts, width]",
        ),
        (
            {"features": torch.ones(3, 4, 8), "names": ["surfing", "pouring milk", "climbing stairs"]},
            "has no class 'pouring tea' among its 3; nearest: 'pouring milk'",
        ),
        (
            {"features": torch.ones(3, 4, 8), "names": ["Zebra", "climbing stairs", "surfing"]},
            "has no class 'pouring tea' among its 3; nearest: 'climbing stairs', 'surfing'",
        ),
        (
            {"features": torch.ones(4, 4, 8), "names": [*NAMES, "Surfing"]},
            "rows 0 and 3 of the file are both 'surfing'; such lists fit only if they are equal, row by row",
        ),
        ({"features": torch.ones(3, 4, 8), "names": ["surfing"]}, "has 1 names for 3 rows"),
        ({"features": torch.ones(3, 4, 8), "names": [1, 2, 3]}, "names are not a list of class names"),
        (
            {"features": torch.ones(3, 4, 8), "mask": torch.ones(3, 4)},
            "mask is (3, 4) torch.float32; expected (3, 4) torch.bool",
        ),
        (
            {"features": torch.ones(3, 4, 8), "mask": torch.tensor([[True] * 4, [False] * 4, [True] * 4])},
            "the mask leaves class 1 without a prompt",
        ),
        (with_bad_row(0.0), "feature [class, prompt] [1, 2] is zero, infinite or absent"),
        (with_bad_row(float("nan")), "feature [class, prompt] [1, 2] is zero, infinite or absent"),
        (with_bad_row(float("inf")), "feature [class, prompt] [1, 2] is zero, infinite or absent"),
    ],
)
def test_feature_file_that_does_not_fit(tmp_path, content, message):
    path = tmp_path / "features.pt"
    torch.save(content, path)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{KEY}: {path}: {message}')}$"):
        load_feature_file(path, names=NAMES, embed_dim=8)


def test_no_file_is_an_error_not_a_fallback(tmp_path):
    message = f"{KEY}: is empty, but DATA.TEXT_AUG is True; give a file with a tensor [classes, prompts, width]"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_feature_file("", names=NAMES, embed_dim=8)
    path = tmp_path / "absent.pt"
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}: {KEY} not found')}$"):
        load_feature_file(path, names=NAMES, embed_dim=8)


def test_file_that_is_not_safe_to_load(tmp_path):
    path = tmp_path / "features.pt"
    torch.save({"f": print}, path)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: {re.escape(KEY)} is damaged or holds objects"):
        load_feature_file(path, names=NAMES, embed_dim=8)


def masked_file(path, *, names=NAMES):
    """Three classes with the first slot, all slots, the last two slots; what is not used is zero."""
    mask = torch.tensor([[True, False, False, False], [True] * 4, [False, False, True, True]])
    features = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0)) * mask[..., None]
    write_feature_file(path, FeatureFile(features=features, mask=mask, names=tuple(names)))
    return features, mask


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_slots_outside_the_mask_hold_the_first_prompt_of_the_class(tmp_path, suffix):
    path = tmp_path / f"features{suffix}"
    features, mask = masked_file(path)
    bank = load_feature_file(path, names=NAMES, embed_dim=8)
    assert torch.equal(bank.mask, mask)
    unit = features / features.norm(dim=-1, keepdim=True)
    assert torch.allclose(bank.features[mask], unit[mask])
    for row, first in enumerate([0, 0, 2]):
        assert torch.allclose(bank.features[row][~mask[row]], unit[row, first].expand(int((~mask[row]).sum()), 8))


@pytest.mark.parametrize(
    "names", [[name.upper() for name in NAMES], [f"{name.capitalize()}: some sentence about it" for name in NAMES]]
)
def test_names_agree_in_another_case_and_when_rephrased(tmp_path, names):
    masked_file(tmp_path / "features.pt")
    assert len(load_feature_file(tmp_path / "features.pt", names=names, embed_dim=8)) == 3


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        (["climbing stairs", "Surfing"], [2, 0]),
        (["climbing stairs", "pouring tea", "surfing"], [2, 1, 0]),
        (["Pouring tea: hot water leaves a pot"], [1]),
        (["climbing_stairs", "PouringTea"], [2, 1]),
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_rows_are_chosen_by_name(tmp_path, suffix, names, rows):
    path = tmp_path / f"features{suffix}"
    masked_file(path)
    whole = load_feature_file(path, names=NAMES, embed_dim=8)
    bank = load_feature_file(path, names=names, embed_dim=8)
    assert torch.equal(bank.features, whole.features[rows])
    assert torch.equal(bank.mask, whole.mask[rows])


@pytest.mark.parametrize(
    "names", [["climbing stairs: up", "surfing: on waves"], ["SURFING: on waves", "pouring tea", "climbing stairs: up"]]
)
def test_rows_of_rephrased_names(tmp_path, names):
    found = ["pouring tea", "Climbing stairs: up", "surfing: on waves", "surfing: on the net"]
    features = torch.randn(4, 2, 8, generator=torch.Generator().manual_seed(0))
    write_feature_file(tmp_path / "features.pt", FeatureFile(features=features, names=tuple(found)))
    bank = load_feature_file(tmp_path / "features.pt", names=names, embed_dim=8)
    rows = [[name.casefold() for name in found].index(name.casefold()) for name in names]
    assert torch.allclose(bank.features, features[rows] / features[rows].norm(dim=-1, keepdim=True))
    assert bank.mask is None


def test_what_a_file_has_beyond_the_label_set_is_not_looked_at(tmp_path):
    features = torch.ones(3, 4, 8)
    features[1] = float("nan")
    write_feature_file(tmp_path / "features.pt", FeatureFile(features=features, names=tuple(NAMES)))
    assert len(load_feature_file(tmp_path / "features.pt", names=["climbing stairs", "surfing"], embed_dim=8)) == 2


def test_two_classes_of_one_name_fit_the_list_that_the_file_was_made_for(tmp_path):
    names = ["rolling something", "lifting something", "rolling something"]
    path = tmp_path / "features.pt"
    features, _ = masked_file(path, names=names)
    bank = load_feature_file(path, names=names, embed_dim=8)
    assert torch.allclose(bank.features[2, 3], features[2, 3] / features[2, 3].norm())
    rephrased = ["Rolling something: down", "lifting something: up", "rolling something: it stays"]
    assert torch.equal(load_feature_file(path, names=rephrased, embed_dim=8).features, bank.features)
    assert len(load_feature_file(path, names=["lifting something"], embed_dim=8)) == 1
    with pytest.raises(ValueError, match=f"^{re.escape(f'{KEY}: {path}: rows 0 and 2 of the file are both ')}"):
        load_feature_file(path, names=["rolling something"], embed_dim=8)
    masked_file(path)
    message = "labels 0 and 2 of the label set are both 'surfing'; such lists fit only if they are equal, row by row"
    with pytest.raises(ValueError, match=f"^{re.escape(f'{KEY}: {path}: {message}')}$"):
        load_feature_file(path, names=["surfing", "pouring tea", "surfing: on waves"], embed_dim=8)


def test_names_that_differ_in_signs_only_are_told_apart(tmp_path):
    path = tmp_path / "features.pt"
    masked_file(path, names=["C", "C++", "C#"])
    whole = load_feature_file(path, names=["C", "C++", "C#"], embed_dim=8).features
    assert torch.equal(load_feature_file(path, names=["c#", "c", "c++"], embed_dim=8).features, whole[[2, 0, 1]])
    with pytest.raises(ValueError, match=r"rows 0 and 1 of the file are both 'C'; such lists fit only if they are"):
        load_feature_file(path, names=["C--"], embed_dim=8)


def test_file_without_names_serves_its_own_number_of_classes_only(tmp_path):
    path = tmp_path / "features.pt"
    torch.save(torch.ones(101, 4, 8), path)
    message = f"{KEY}: {path}: has 101 rows, but the label set has 51 classes"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_feature_file(path, names=[f"class {number}" for number in range(51)], embed_dim=8)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(2, 3), "text mask is (2, 3) torch.float32; expected (2, 3) torch.bool"),
        (torch.ones(2, 4, dtype=torch.bool), "text mask is (2, 4) torch.bool; expected (2, 3) torch.bool"),
        (torch.tensor([[True] * 3, [False] * 3]), "text mask leaves class 1 without a prompt"),
    ],
)
def test_bank_with_a_wrong_mask(mask, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        TextBank(features=torch.ones(2, 3, 8), mask=mask)


def test_bank_with_a_mask_but_one_feature_per_class():
    with pytest.raises(ValueError, match=r"^text mask is \(2, 1\) torch.bool; expected several features per class$"):
        TextBank(features=torch.ones(2, 8), mask=torch.ones(2, 1, dtype=torch.bool))


def test_class_whose_prompt_is_too_long_is_named():
    names = ["surfing", "tea " * 80]
    message = r"^DATA.INDEX_LABEL_MAPPING_FILE: class 1: a prompt is too long: text 'a photo of tea"
    with pytest.raises(ValueError, match=message):
        template_bank(names, tokenizer=Tokenizer())
