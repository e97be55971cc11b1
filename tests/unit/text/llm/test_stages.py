import json

import pytest

from slowfast.text.llm.cache import cache_key
from slowfast.text.llm.client import Sampling
from slowfast.text.llm.stages import (
    DESCRIPTOR_STAGES,
    MAX_ANSWER_CHARACTERS,
    STAGES,
    Task,
    response_format_parameter,
    stage_of,
)

ALLOWED = {"type", "additionalProperties", "required", "minItems", "maxItems", "properties", "items"}


def objects_of(schema):
    yield schema
    for child in (*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])):
        yield from objects_of(child)


@pytest.fixture(params=STAGES)
def stage(request):
    return STAGES[request.param]


def answer(stage):
    return json.loads(stage.example.model_dump_json())


def test_example_answers_its_question(stage):
    assert stage.accept(json.dumps(answer(stage)), stage.example_task) == stage.example
    assert stage_of(stage.example) is stage


def test_schema_is_strict_and_plain(stage):
    for part in objects_of(stage.schema(stage.example_task)):
        assert set(part) <= ALLOWED
        if part["type"] == "object":
            assert part["additionalProperties"] is False
            assert sorted(part["required"]) == sorted(part["properties"])


@pytest.mark.parametrize("count", DESCRIPTOR_STAGES)
def test_descriptors_by_number(count):
    stage = DESCRIPTOR_STAGES[count]
    assert stage_of(stage.example) is stage
    assert stage.accept(json.dumps(answer(stage)), stage.example_task) == stage.example
    assert f"spatial: {count} descriptors" in stage.intent
    for kind in ("spatial", "temporal"):
        entry, texts = stage.schema(stage.example_task)["properties"][kind], answer(stage)[kind]
        assert (entry["minItems"], entry["maxItems"]) == (count, count)
        for wrong in (texts[1:], [*texts, "one more thing"]):
            with pytest.raises(ValueError, match=f"{kind}: Tuple should have at (least|most) {count} items"):
                stage.accept(json.dumps(answer(stage) | {kind: wrong}), stage.example_task)


def test_answers_are_kept_by_number():
    sampling = Sampling(model="m", temperature=0.7, seed=0, max_tokens=4096)
    keys, task = {}, Task(name="surfing")
    for count, stage in DESCRIPTOR_STAGES.items():
        keys[count] = cache_key(
            stage.messages(task, response_format="json_schema"),
            sampling=sampling,
            response_format=response_format_parameter(stage, task, "json_schema"),
            schema=stage.schema(task),
        )
    assert len(set(keys.values())) == 3
    # Of four as it was before there were others, so that no answer is paid for twice.
    assert keys[4] == "136bc72ea9c37460003ec704f042197f33d37b66fe91f6c0b3ab8850fcb121f7"


def test_schema_wants_a_tail_per_triple():
    stage = STAGES["xprompt"]
    graph = stage.example_task.graph
    more = graph.model_copy(update={"object_triples": graph.object_triples * 2})
    schema = stage.schema(Task(name="x", graph=more))
    counts = {
        name: (part["minItems"], part["maxItems"]) for name, part in schema["properties"].items() if name != "name"
    }
    assert counts == {"object_tails": (10, 10), "action_tails": (5, 5), "sub_action_tails": (5, 5)}


def test_messages(stage):
    task = Task(name="surfing", graph=stage.example_task.graph)
    messages = stage.messages(task, response_format="json_schema")
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert json.loads(messages[2]["content"])["name"] == "repotting a houseplant"
    parameter = response_format_parameter(stage, task, "json_schema")
    assert parameter["json_schema"] == {"name": stage.key, "strict": True, "schema": stage.schema(task)}


@pytest.mark.parametrize(("form", "parameter"), [("json_object", {"type": "json_object"}), ("text", None)])
def test_without_json_schema_the_prompt_has_it(stage, form, parameter):
    task = stage.example_task
    assert response_format_parameter(stage, task, form) == parameter
    assert json.dumps(stage.schema(task)) in stage.messages(task, response_format=form)[0]["content"]


def test_prompts_question_lists_the_triples():
    stage = STAGES["xprompt"]
    question = stage.messages(stage.example_task, response_format="text")[3]["content"]
    assert "1. <root ball, sticks inside, old pot>" in question
    assert question.count("\n5. <") == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty"),
        (" \n", "it is empty"),
        ("{", "Invalid JSON"),
        ("I cannot do that.", "Invalid JSON"),
        ("[]", "Input should be an object"),
        ("null", "Input should be an object"),
        ("[" * 10_000, "Invalid JSON: recursion limit"),
        ('{"name": "\\ud800"}', "Invalid JSON"),
        ("x" * (MAX_ANSWER_CHARACTERS + 1), "it has 50001 characters; allowed: 50000"),
    ],
)
def test_answers_of_another_form(stage, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        stage.accept(text, stage.example_task)
    assert len(str(caught.value)) < 2500


def test_answer_about_another_class():
    stage = STAGES["rephrased"]
    text = json.dumps(answer(stage) | {"name": "Repotting a houseplant"})
    with pytest.raises(ValueError, match="name: is 'Repotting a houseplant'; expected 'repotting a houseplant'"):
        stage.accept(text, stage.example_task)


def test_answer_with_another_number_of_tails():
    stage = STAGES["xprompt"]
    content = answer(stage)
    content["object_tails"].append("with one more thing to be seen")
    with pytest.raises(ValueError, match="object_tails: has 6 entries for 5 triples"):
        stage.accept(json.dumps(content), stage.example_task)


def test_fences_are_taken_off_only_where_the_server_knows_no_json(stage):
    fenced = f"Here it is:\n```json\n{json.dumps(answer(stage))}\n```\n"
    assert stage.accept(fenced, stage.example_task, response_format="text") == stage.example
    with pytest.raises(ValueError, match="Invalid JSON"):
        stage.accept(fenced, stage.example_task, response_format="json_object")


def test_many_faults_are_told_briefly():
    content = {"name": "x", **{f"key{number}": "y" for number in range(100)}}
    with pytest.raises(ValueError, match="; and 93 faults more") as caught:
        STAGES["rephrased"].accept(json.dumps(content), Task(name="x"))
    assert len(str(caught.value)) < 2500


@pytest.mark.parametrize(
    ("key", "name", "message"),
    [
        ("ASKG", "pick up, carry", "without a comma"),
        ("ASKG", "x" * 61, "has 61 characters"),
        ("rephrased", "yoga: hot", "a colon ends the name"),
        ("descriptors", "hand " * 80, "tokens"),
        ("xprompt", "hand " * 67, "tokens"),
        ("xprompt", "x" * 100_000, "characters"),
    ],
)
def test_names_that_no_answer_could_be_right_for(key, name, message):
    with pytest.raises(ValueError, match=message) as caught:
        STAGES[key].check_name(name)
    assert len(str(caught.value)) < 2500


def test_common_names_can_be_asked_about(stage):
    for name in ("surfing", "ApplyEyeMakeup", "massaging person's head", "petting animal (not cat)", "YoYo"):
        stage.check_name(name)
