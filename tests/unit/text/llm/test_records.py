import pytest
from pydantic import ValidationError

from slowfast.text.llm.prompts import DESCRIPTORS_EXAMPLES, GRAPH_EXAMPLE, PROMPTS_EXAMPLE, REPHRASE_EXAMPLE
from slowfast.text.llm.records import check_length, names_class
from slowfast.text.llm.stages import describe_faults

DESCRIPTORS_EXAMPLE = DESCRIPTORS_EXAMPLES[4]
EXAMPLES = {"graph": GRAPH_EXAMPLE, "prompts": PROMPTS_EXAMPLE, "name": REPHRASE_EXAMPLE, "texts": DESCRIPTORS_EXAMPLE}


def changed(record, **changes):
    """The record with other entries, checked anew."""
    return type(record).model_validate({name: getattr(record, name) for name in type(record).model_fields} | changes)


def triple(head, relation, tail):
    return {"head": head, "relation": relation, "tail": tail}


@pytest.mark.parametrize("record", EXAMPLES.values(), ids=EXAMPLES)
def test_examples_are_accepted(record):
    assert changed(record) == record
    assert type(record).model_validate_json(record.model_dump_json()) == record


FAULTS = [
    ("graph", {"extra": 1}, "extra: Extra inputs are not permitted"),
    ("graph", {"objects": ("pot",)}, "at least 5 items"),
    ("graph", {"objects": tuple("abcdefghijk")}, "at most 10 items"),
    ("graph", {"objects": (*GRAPH_EXAMPLE.objects, "trowel")}, "objects: 'trowel' occurs twice"),
    ("graph", {"objects": (*GRAPH_EXAMPLE.objects, "a: &x")}, "'a: &x': expected words of plain letters"),
    ("graph", {"objects": (*GRAPH_EXAMPLE.objects, "!!python/object")}, "expected words of plain letters"),
    ("graph", {"objects": (*GRAPH_EXAMPLE.objects, "pot\n")}, "expected words of plain letters"),
    ("graph", {"objects": (*GRAPH_EXAMPLE.objects, "pot\x00")}, "expected words of plain letters"),
    ("graph", {"objects": (*GRAPH_EXAMPLE.objects, "")}, "expected words of plain letters"),
    ("graph", {"objects": (*GRAPH_EXAMPLE.objects, " pot")}, "expected words of plain letters"),
    ("graph", {"objects": (*GRAPH_EXAMPLE.objects, "pot\u202e")}, "expected words of plain letters"),
    ("graph", {"objects": (*GRAPH_EXAMPLE.objects, "- -")}, "expected words of plain letters"),
    ("graph", {"objects": (*GRAPH_EXAMPLE.objects, "x" * 61)}, "has 61 characters; allowed: 60"),
    ("graph", {"objects": (*GRAPH_EXAMPLE.objects, 3)}, "Input should be a valid string"),
    ("graph", {"sub_actions": ("a", "b", "c")}, "at least 4 items"),
    ("graph", {"name": "other"}, "action_triples: 'repotting a houseplant' is not one of ['other']"),
    ("prompts", {"object_tails": PROMPTS_EXAMPLE.action_tails}, "occurs twice"),
    ("prompts", {"object_tails": PROMPTS_EXAMPLE.object_tails[:4]}, "at least 5 items"),
    ("prompts", {"name": "fresh soil"}, "contains the class name 'fresh soil'"),
    ("prompts", {"name": "a very long name " * 14}, "makes a prompt of"),
    ("prompts", {"name": "x" * 100_000}, "characters; allowed: 1000"),
    ("name", {"sentence": "Somebody does it in the way that one does"}, "begins with a capital letter"),
    ("name", {"sentence": "somebody does it"}, "has 3 words; allowed: 8 to 26"),
    ("name", {"sentence": "word " * 26 + "word"}, "has 27 words"),
    ("name", {"sentence": "somebody does it in the way that one does."}, "without a full stop"),
    ("name", {"sentence": "x" * 1_000_000}, "has 1000000 characters; allowed: 200"),
    ("texts", {"spatial": DESCRIPTORS_EXAMPLE.spatial[:3]}, "at least 4 items"),
    ("texts", {"spatial": (*DESCRIPTORS_EXAMPLE.spatial, "a fifth descriptor")}, "at most 4 items"),
    ("texts", {"temporal": DESCRIPTORS_EXAMPLE.temporal[:1] * 4}, "temporal: 'tipping"),
    (
        "texts",
        {"name": "flower pots"},
        "spatial: 'two flower pots of different size on a table' contains the class name",
    ),
]


@pytest.mark.parametrize(("kind", "changes", "message"), FAULTS)
def test_faults(kind, changes, message):
    with pytest.raises(ValidationError) as caught:
        changed(EXAMPLES[kind], **changes)
    text = describe_faults(caught.value)
    assert message in text
    assert "\n" not in text
    assert len(text) < 2600


@pytest.mark.parametrize(
    ("kind", "edge", "message"),
    [
        ("object_triples", ("trowel", "scoops up", "gravel"), "object_triples: 'gravel' is not one of"),
        ("action_triples", ("repotting", "uses", "trowel"), "action_triples: 'repotting' is not one of"),
        ("sub_action_triples", ("resting", "ends with", "watering the plant"), "'resting' is not one of"),
        ("object_triples", ("trowel", "", "potting soil"), "expected words of plain letters"),
        ("object_triples", ("trowel", "a, b", "potting soil"), "without a comma"),
        ("object_triples", ("trowel", "scoops up", "potting soil"), "occurs twice"),
    ],
)
def test_triples_that_lead_out_of_the_graph(kind, edge, message):
    triples = [triple(t.head, t.relation, t.tail) for t in getattr(GRAPH_EXAMPLE, kind)]
    with pytest.raises(ValidationError) as caught:
        changed(GRAPH_EXAMPLE, **{kind: (*triples, triple(*edge))})
    assert message in describe_faults(caught.value)


def test_tails_go_with_triples():
    PROMPTS_EXAMPLE.check_against(GRAPH_EXAMPLE)
    longer = changed(PROMPTS_EXAMPLE, action_tails=(*PROMPTS_EXAMPLE.action_tails, "with one tail too many here"))
    with pytest.raises(ValueError, match="action_tails: has 6 entries for 5 triples"):
        longer.check_against(GRAPH_EXAMPLE)


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("a man is Surfing, fast", "surfing", True),
        ("a windsurfing man", "surfing", False),
        ("catch or throw frisbee now", "catching or throwing frisbee", False),
        ("they play a guitar", "playing guitar", False),
        ("Tai-Chi in a park", "tai chi", True),
    ],
)
def test_names_class_by_whole_words(text, name, expected):
    assert names_class(text, name) is expected


def test_length_in_tokens():
    check_length(" ".join(["hand"] * 68))
    with pytest.raises(ValueError, match="makes a prompt of 78 tokens; CLIP's text tower takes 77"):
        check_length(" ".join(["hand"] * 69))


def test_a_rephrased_name_as_text():
    assert REPHRASE_EXAMPLE.text.startswith("repotting a houseplant: somebody lifts")
