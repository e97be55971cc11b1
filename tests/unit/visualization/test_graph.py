import itertools
import re

import pytest

from slowfast.text.prompt_bank import GraphEntry, PromptEntry, write_graphs, write_prompts
from slowfast.visualization.graph import describe_class, draw_graph, find_class, layout_graph

NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight"]


@pytest.fixture
def crowded():
    """Eight objects and eight long steps with eight relations of every kind."""
    things = tuple(f"object number {word}" for word in NUMBERS)
    steps = tuple(f"performing the rather long step of kind {word} with both hands" for word in NUMBERS)
    return GraphEntry(
        objects=things,
        object_triples=tuple((things[i], "is fastened very tightly to", things[(3 * i + 2) % 8]) for i in range(8)),
        action_triples=tuple(("juggling", f"makes use {i} of", things[i]) for i in range(8)),
        sub_actions=steps,
        sub_action_triples=tuple((steps[i], "is repeated until", steps[(5 * i + 1) % 8]) for i in range(8)),
    )


@pytest.fixture
def small():
    return GraphEntry(
        objects=("ball", "hand"),
        object_triples=(("hand", "throws", "ball"),),
        action_triples=(("juggling", "needs", "ball"),),
        sub_actions=("throwing", "catching"),
        sub_action_triples=(("throwing", "precedes", "catching"),),
    )


@pytest.fixture
def folder(tmp_path, small, crowded):
    prompts = PromptEntry(object_tails=("as a hand throws",), action_tails=("with balls",), sub_action_tails=("then",))
    write_graphs(tmp_path / "classes_ASKG_b.yml", {"juggling": crowded})
    write_graphs(tmp_path / "classes_ASKG_a.yml", {"Juggling": small, "surfing": small})
    write_prompts(tmp_path / "classes_xprompt_a.yml", {"Juggling": prompts})
    return tmp_path


def test_a_class_is_found_in_any_case_in_the_first_dataset(folder, small, crowded):
    assert find_class("JUGGLING", folder).graph == small
    found = find_class("Juggling", folder, dataset="b")
    assert (found.dataset, found.name, found.graph, found.prompts) == ("b", "juggling", crowded, None)


def test_unknown_classes_and_folders_are_named(folder):
    message = "class 'jugling': in none of classes_ASKG_a.yml, classes_ASKG_b.yml; nearest: juggling"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        find_class("jugling", folder)
    with pytest.raises(ValueError, match=r"has no file classes_ASKG_c\.yml$"):
        find_class("juggling", folder, dataset="c")


def test_description_has_each_triple_with_its_tail(folder):
    text = describe_class(find_class("juggling", folder, dataset="a"))
    assert text.startswith("Juggling (a)\n")
    assert "  <hand, throws, ball>\n      Juggling, as a hand throws\n" in text
    assert "1. throwing\n             2. catching" in text
    assert text.endswith("4 prompts per template: the name alone, and with each tail once")
    assert "prompts per template" not in describe_class(find_class("surfing", folder))


def test_boxes_neither_overlap_nor_leave_the_picture(crowded):
    pytest.importorskip("matplotlib")
    layout = layout_graph("demonstrating a very long action name (sport)", crowded)
    assert len(layout.boxes) == 8 + 8 + 1 + 3 * 8
    for box in layout.boxes:
        assert 0 <= box.x - box.width / 2 <= box.x + box.width / 2 <= layout.width
        assert 0 <= box.y - box.height / 2 <= box.y + box.height / 2 <= layout.height
    for one, other in itertools.combinations(layout.boxes, 2):
        apart_x = abs(one.x - other.x) - (one.width + other.width) / 2
        apart_y = abs(one.y - other.y) - (one.height + other.height) / 2
        assert max(apart_x, apart_y) > 0, (one, other)
    action = [box for box in layout.boxes if box.kind == "action"]
    assert max(box.x for box in layout.boxes if box.kind == "object") < action[0].x
    steps = [box for box in layout.boxes if box.kind == "step"]
    assert [box.y for box in steps] == sorted((box.y for box in steps), reverse=True)


def test_every_relation_joins_its_ends(small):
    pytest.importorskip("matplotlib")
    layout = layout_graph("juggling", small)
    pairs = {(layout.boxes[a].text, layout.boxes[b].text) for a, b, kind in layout.links if kind != "part"}
    assert pairs == {
        ("hand", "throws"), ("throws", "ball"), ("juggling", "needs"), ("needs", "ball"),
        ("1. throwing", "precedes"), ("precedes", "2. catching"),
    }  # fmt: skip
    assert [layout.boxes[b].text for _, b, kind in layout.links if kind == "part"] == ["1. throwing", "2. catching"]


def test_an_end_outside_the_graph_is_left_open(small):
    pytest.importorskip("matplotlib")
    foreign = GraphEntry(
        objects=small.objects, sub_actions=small.sub_actions, object_triples=(("wind", "moves", "ball"),),
        action_triples=small.action_triples, sub_action_triples=small.sub_action_triples,
    )  # fmt: skip
    layout = layout_graph("juggling", foreign)
    assert [layout.boxes[b].text for a, b, _ in layout.links if layout.boxes[a].text == "moves"] == ["ball"]


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_picture_is_the_same_file_each_time(tmp_path, small, suffix):
    pytest.importorskip("matplotlib")
    files = [draw_graph(tmp_path / str(number) / f"graph{suffix}", "juggling", small) for number in range(2)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].stat().st_size > 1000


def test_unknown_kind_of_picture(tmp_path, small):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match=r"graph\.bmp: unknown suffix '\.bmp'; allowed: \.svg, \.png, \.pdf$"):
        draw_graph(tmp_path / "graph.bmp", "juggling", small)
