from pathlib import Path

import pytest

from slowfast.datasets.repo_lists.layouts import LAYOUTS, MENTIONS, rules_of

LABEL_DB = Path(__file__).resolve().parents[4] / "label_db"
RULES = [
    pytest.param(dataset, rule, id=f"{projects.split(',')[0]}-{dataset}-{rule.name}")
    for projects, datasets in LAYOUTS.items()
    for dataset, rules in datasets.items()
    for unexpanded in rules
    for rule in unexpanded.expand()
]


@pytest.mark.parametrize(("dataset", "rule"), RULES)
def test_rules_are_expanded_and_name_our_class_files(dataset, rule):
    assert "{" not in "".join([rule.name, rule.classes, *rule.files, *rule.class_files])
    assert (LABEL_DB / dataset / rule.classes).is_file() == (rule.labels == "known")
    assert all(count > 0 for count in rule.counts)


@pytest.mark.parametrize("dataset", MENTIONS)
def test_each_list_has_one_rule_in_a_layout(dataset):
    for projects, datasets in LAYOUTS.items():
        names = [rule.name for unexpanded in datasets.get(dataset, []) for rule in unexpanded.expand()]
        assert len(names) == len(set(names)), projects


def test_unknown_dataset():
    with pytest.raises(ValueError, match="dataset 'ucf102': no lists of it can be imported; allowed: ucf101, "):
        rules_of("ucf102")


def test_numbers_are_shown_to_people():
    shown = [rule.looked_for for _, rule in rules_of("hmdb51")]
    assert "hmdb_splits/train1_few_shot_{2,4,8,16}.txt" in shown
