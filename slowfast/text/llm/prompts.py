"""What a language model is told: an intent and a worked example per stage, and the question about a class.

The intents say in words what records.py checks.
"""

from __future__ import annotations

from collections.abc import Sequence

from slowfast.text.llm.records import (
    DESCRIPTOR_RECORDS,
    ActionGraph,
    Descriptors,
    ExtendedPrompts,
    RephrasedName,
    Triple,
)

_COMMON = """\
Everything you say must be true of the action, visible in a short video of it and specific: nothing that would
fit any action. Take the name in the sense of a dataset of short clips of people. Write plain English with ASCII
letters, digits, spaces and simple punctuation only, without quotation marks, colons and full stops. Answer with
one JSON object and nothing else. Its entry "name" repeats the class name exactly as it is given."""

GRAPH_INTENT = f"""\
You know how everyday actions are carried out and what is seen while they are. For one action you write a small
knowledge graph as JSON:
- objects: 5 to 10 things, body parts or places that matter to the action, short nouns in lower case.
- object_triples: 5 to 8 relations between two of these objects; head and tail are entries of objects, letter by
  letter.
- action_triples: 5 to 8 relations from the action to an object; head is the class name in lower case, tail an
  entry of objects.
- sub_actions: 4 to 8 steps of the action in the order of time, short phrases with a verb in the -ing form.
- sub_action_triples: 5 to 8 relations between two steps, such as order, cause, repetition or simultaneity; head
  and tail are entries of sub_actions, letter by letter.
No entry and no triple occurs twice. Objects, steps and parts of triples have at most 60 characters and no
comma.
{_COMMON}"""

PROMPTS_INTENT = f"""\
You describe actions in natural sentences. You get an action and three numbered lists of triples about it. For
every triple you complete "This is a video of NAME, ..." so that the sentence says what the triple says. You
give only what follows the comma:
- object_tails: one per triple between objects, in the order of the list.
- action_tails: one per triple from the action to an object, in the order of the list.
- sub_action_tails: one per triple between steps, in the order of the list.
A tail has 4 to 22 words, begins in lower case and never contains the class name. Vary the openings (where,
with, as, which, while, starting with, before, ending with, ...); no two tails are the same.
{_COMMON}"""

REPHRASE_INTENT = f"""\
You explain actions to people who have never heard their names. For one action you write "sentence": one
sentence of 8 to 26 words that says who does what with which things and how it looks, so that somebody could
recognise a video of it. It begins in lower case and does not begin with the class name.
{_COMMON}"""


def descriptors_intent(count: int) -> str:
    """Ask for `count` descriptors of each kind."""
    return f"""\
You know what tells actions apart in videos. For one action you write two lists:
- spatial: {count} descriptors of a single frame: things, place, clothing, posture. They do not contain the class
  name.
- temporal: {count} descriptors of what happens, in the order of time.
A descriptor has 3 to 16 words and begins in lower case; no two are the same.
{_COMMON}"""


_EXAMPLE_NAME = "repotting a houseplant"


def _triples(*rows: tuple[str, str, str]) -> tuple[Triple, ...]:
    return tuple(Triple(head=head, relation=relation, tail=tail) for head, relation, tail in rows)


GRAPH_EXAMPLE = ActionGraph(
    name=_EXAMPLE_NAME,
    objects=("houseplant", "root ball", "old pot", "larger pot", "potting soil", "trowel", "watering can"),
    object_triples=_triples(
        ("root ball", "sticks inside", "old pot"),
        ("potting soil", "covers bottom of", "larger pot"),
        ("root ball", "sits in", "larger pot"),
        ("trowel", "scoops up", "potting soil"),
        ("watering can", "pours over", "potting soil"),
    ),
    action_triples=_triples(
        (_EXAMPLE_NAME, "moves", "houseplant"),
        (_EXAMPLE_NAME, "empties", "old pot"),
        (_EXAMPLE_NAME, "loosens", "root ball"),
        (_EXAMPLE_NAME, "fills gaps with", "potting soil"),
        (_EXAMPLE_NAME, "ends with use of", "watering can"),
    ),
    sub_actions=(
        "tipping the old pot on its side",
        "pulling the plant out",
        "loosening the roots",
        "setting the plant into the larger pot",
        "filling soil around the roots",
        "watering the plant",
    ),
    sub_action_triples=_triples(
        ("tipping the old pot on its side", "makes possible", "pulling the plant out"),
        ("pulling the plant out", "uncovers roots for", "loosening the roots"),
        ("loosening the roots", "happens before", "setting the plant into the larger pot"),
        ("setting the plant into the larger pot", "continues while", "filling soil around the roots"),
        ("filling soil around the roots", "is followed by", "watering the plant"),
    ),
)

PROMPTS_EXAMPLE = ExtendedPrompts(
    name=_EXAMPLE_NAME,
    object_tails=(
        "where a tangle of pale roots has grown tight against the walls of its old pot",
        "with a layer of dark soil spread over the bottom of a bigger pot",
        "showing the roots lowered into the middle of a pot that leaves room around them",
        "as a small trowel lifts fresh soil out of a bag",
        "where water runs from a can and darkens the new soil",
    ),
    action_tails=(
        "which takes a leafy green plant from one container to another",
        "leaving an empty pot with crumbs of dry soil behind",
        "in which fingers tease a matted clump of roots apart",
        "pressing fresh soil into the space between roots and pot",
        "finished off with a good drink from a watering can",
    ),
    sub_action_tails=(
        "starting with a tap on a tilted pot so that the plant slides free",
        "then baring the roots and picking old soil out of them",
        "spreading the roots before they go down into the bigger pot",
        "holding the stem upright while handfuls of soil go in all around",
        "ending with firm soil that is soaked at last",
    ),
)

REPHRASE_EXAMPLE = RephrasedName(
    name=_EXAMPLE_NAME,
    sentence="somebody lifts a leafy plant with its roots out of a small pot, moves it to a bigger one and adds soil",
)

_SPATIAL_EXAMPLES = (
    "green leafy plant with its roots and soil exposed",
    "two flower pots of different size on a table",
    "open bag of dark potting soil with a trowel",
    "hands in gardening gloves covered with dirt",
    "crumbs of soil scattered over old newspaper",
    "watering can standing beside the pots",
    "person in an apron bent over a workbench",
    "balcony or garden shed with more plants behind",
)
_TEMPORAL_EXAMPLES = {
    2: (
        "sliding the plant out of its old pot and loosening the roots",
        "setting it into the bigger pot, adding soil and watering it",
    ),
    4: (
        "tipping the old pot and sliding the plant out",
        "loosening matted roots with the fingers",
        "setting the plant into the bigger pot and adding soil",
        "pressing the soil down and pouring water over it",
    ),
    8: (
        "scooping fresh soil into the bigger pot",
        "tipping the old pot on its side",
        "sliding the plant out with its root ball",
        "loosening matted roots with the fingers",
        "setting the plant into the bigger pot",
        "filling soil around the roots with a trowel",
        "pressing the soil down with both hands",
        "pouring water over it at last",
    ),
}
DESCRIPTORS_EXAMPLES: dict[int, Descriptors] = {
    count: record(name=_EXAMPLE_NAME, spatial=_SPATIAL_EXAMPLES[:count], temporal=_TEMPORAL_EXAMPLES[count])
    for count, record in DESCRIPTOR_RECORDS.items()
}
"""Descriptors of each kind -> an example with as many."""


def name_question(name: str) -> str:
    """Ask about a class by its name alone."""
    return f"Class name: {name}"


def prompts_question(graph: ActionGraph) -> str:
    """Ask for sentence tails to the triples of a graph."""
    lists = (
        ("Triples between objects", graph.object_triples),
        ("Triples from the action to an object", graph.action_triples),
        ("Triples between steps", graph.sub_action_triples),
    )
    return "\n\n".join((name_question(graph.name), *(f"{title}:\n{_numbered(rows)}" for title, rows in lists)))


def correction(reason: str) -> str:
    """Ask once more after an answer that was not accepted."""
    return f"This answer cannot be used: {reason}\nGive the whole JSON object again with this repaired."


def schema_note(schema: str) -> str:
    """Tell a server that takes no JSON schema what to answer."""
    return f"\nThe JSON object follows this JSON schema:\n{schema}"


def _numbered(triples: Sequence[Triple]) -> str:
    return "\n".join(f"{number}. <{t.head}, {t.relation}, {t.tail}>" for number, t in enumerate(triples, start=1))
