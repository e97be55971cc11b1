"""Templates and tokens, from files with the recorded descriptors."""

import torch

from slowfast.methods.ost.build import text_bank
from slowfast.methods.ost.config import OstConfig
from slowfast.text.descriptors import TEMPLATES


def test_templates(golden_ost, official):
    recorded = {kind: golden_ost["meta"]["templates"][kind].replace("{class}", "{name}") for kind in official.kinds}
    assert recorded == TEMPLATES


def test_tokens(golden_ost, official, make_cfg, ost_labels):
    text, count = golden_ost["text"], golden_ost["meta"]["dims"]["N"]
    bank = text_bank(OstConfig.from_cfg(make_cfg()), ost_labels)
    for place, kind in enumerate(official.kinds):
        own = slice(place * count, (place + 1) * count)
        assert torch.equal(bank.tokens[:, own], text[f"tokens_{kind}"].long())
        assert [list(row[own]) for row in bank.texts] == text[kind]
