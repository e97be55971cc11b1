import json

import pytest

from slowfast.text.llm.cache import AnswerCache
from slowfast.text.llm.generate import FAILURES_IN_A_ROW, Generator
from slowfast.text.llm.prompts import GRAPH_EXAMPLE
from slowfast.text.llm.stages import STAGES, Task

NAMES = ("surfing", "pouring tea", "climbing stairs", "flying kite", "juggling", "fencing", "skating", "whistling")


@pytest.fixture
def run(fake_llm, make_client, tmp_path):
    """Asks about classes in order, one request at a time unless told otherwise."""

    def ask(names=NAMES[:3], *, key="rephrased", tries=3, response_format="json_schema", concurrency=1, **options):
        client = make_client(**options)
        generator = Generator(
            stage=STAGES[key],
            sampling=client.sampling,
            response_format=response_format,
            cache=AnswerCache(tmp_path / "cache.jsonl"),
            tries=tries,
        )
        graphs = dict.fromkeys(names, GRAPH_EXAMPLE if key == "xprompt" else None)
        tasks = [Task(name=name, graph=graph) for name, graph in graphs.items()]
        steps = []
        known = [task.name for task in tasks if generator.cached(task)]
        rest = [task for task in tasks if task.name not in known]
        outcome = generator.run(rest, client, concurrency=concurrency, progress=lambda: steps.append(1))
        return outcome, known, len(steps)

    return ask


def bad(**changes):
    return {"content": json.dumps({"name": "surfing", "sentence": "somebody does something"} | changes)}


@pytest.mark.parametrize("key", ["ASKG", "rephrased", "descriptors"])
@pytest.mark.parametrize("response_format", ["json_schema", "json_object", "text"])
def test_good_answers(fake_llm, run, key, response_format):
    outcome, _, steps = run(key=key, response_format=response_format, concurrency=3)
    assert (set(outcome.records), outcome.failures, outcome.stopped) == (set(NAMES[:3]), {}, None)
    assert all(outcome.records[name].name == name for name in NAMES[:3])
    assert (outcome.usage.requests, outcome.usage.input_tokens, outcome.usage.output_tokens) == (3, 300, 30)
    assert steps == len(fake_llm.requests) == 3


def test_a_repeated_run_asks_nothing(fake_llm, run):
    run(NAMES[:2])
    outcome, known, _ = run(NAMES[:3])
    assert known == list(NAMES[:2])
    assert list(outcome.records) == [NAMES[2]]
    assert len(fake_llm.requests) == 3
    assert run(NAMES[:3], seed=4)[1] == []


def test_tails_for_a_graph(fake_llm, run):
    fake_llm.plans["repotting a houseplant"] = [
        {"content": json.dumps(fake_llm.good_answer("xprompt", "repotting a houseplant", (6, 5, 5)))}
    ]
    outcome, _, _ = run([GRAPH_EXAMPLE.name], key="xprompt")
    assert len(outcome.records[GRAPH_EXAMPLE.name].object_tails) == 5
    assert "object_tails: has 6 entries for 5 triples" in fake_llm.requests[1]["messages"][-1]["content"]


BAD_ANSWERS = {
    "wrong class": (
        bad(name="pouring tea", sentence="a b c d e f g h"),
        "name: is 'pouring tea'; expected 'surfing', letter by letter",
    ),
    "too short": (bad(), "sentence: 'somebody does something': has 3 words; allowed: 8 to 26"),
    "extra key": (bad(note="x"), "note: Extra inputs are not permitted"),
    "malformed": ({"content": '{"name": "surfing", '}, "Invalid JSON"),
    "empty": ({"content": ""}, "it is empty"),
    "null": ({"content": None}, "it is empty"),
    "prose": ({"content": "I am sorry."}, "Invalid JSON"),
    "cut off": ({"content": '{"name"', "finish_reason": "length"}, "it is cut off after 500 tokens"),
    "huge": (bad(sentence="x" * 1_000_000), "it has 1000035 characters; allowed: 50000"),
    "anchor": (bad(sentence="a: &x somebody does something in the usual way"), "expected plain letters"),
    "tag": (bad(sentence="!!python/object somebody does something in the usual way"), "expected plain letters"),
    "newline": (bad(sentence="somebody does something\nand then something in another way"), "expected plain letters"),
    "control": (bad(sentence="somebody does something\u0007 and then something in another way"), "plain letters"),
    "surrogate": ({"content": '{"name": "\ud800"}'}, "sentence: Field required"),
}


@pytest.mark.parametrize("case", BAD_ANSWERS)
def test_bad_answers_go_back_with_the_reason(fake_llm, run, case):
    step, reason = BAD_ANSWERS[case]
    fake_llm.plans["surfing"] = [step]
    outcome, _, _ = run(["surfing"])
    first, second = (request["messages"] for request in fake_llm.requests)
    assert second[: len(first)] == first
    assert [message["role"] for message in second[len(first) :]] == ["assistant", "user"]
    assert reason in second[-1]["content"]
    assert len(json.dumps(second)) < 40_000
    assert outcome.usage.requests == 2
    assert list(outcome.records) == ["surfing"]


def test_tries_are_limited_and_bad_answers_are_not_kept(fake_llm, run, tmp_path):
    fake_llm.plans["surfing"] = [bad()] * 5
    outcome, _, steps = run()
    assert set(outcome.records) == {"pouring tea", "climbing stairs"}
    assert outcome.failures == {
        "surfing": "3 answers were not accepted; the last one: sentence: 'somebody does something': has 3 words; "
        "allowed: 8 to 26"
    }
    assert (len(fake_llm.requests), steps) == (5, 3)
    assert "somebody does something" not in (tmp_path / "cache.jsonl").read_text()


def test_a_correction_holds_the_last_answer_only(fake_llm, run):
    fake_llm.plans["surfing"] = [bad()] * 2
    run(["surfing"])
    assert [len(request["messages"]) for request in fake_llm.requests] == [4, 6, 6]


def test_cached_answers_are_checked_again(fake_llm, run, tmp_path):
    run(["surfing"])
    path = tmp_path / "cache.jsonl"
    path.write_text(path.read_text().replace("somebody moves about", "Somebody moves about"))
    assert run(["surfing"])[1] == []
    assert len(fake_llm.requests) == 2
    assert run(["surfing"])[1] == ["surfing"]


def test_one_class_without_an_answer_does_not_stop_the_others(fake_llm, run):
    fake_llm.plans["surfing"] = [{"status": 500, "body": "oops"}] * 3
    outcome, _, _ = run()
    assert outcome.failures == {"surfing": "no answer after 3 requests: 500 oops"}
    assert (set(outcome.records), outcome.stopped) == ({"pouring tea", "climbing stairs"}, None)


def test_a_server_that_is_gone_ends_the_run(fake_llm, run):
    for name in NAMES[1:]:
        fake_llm.plans[name] = [{"status": 500, "body": "oops"}]
    outcome, _, _ = run(NAMES, retries=0)
    assert list(outcome.records) == ["surfing"]
    assert outcome.stopped == f"{FAILURES_IN_A_ROW} classes in a row without an answer"
    assert len(fake_llm.requests) < len(NAMES)


def test_a_refusal_ends_the_run(fake_llm, run):
    fake_llm.plans["pouring tea"] = [{"status": 401, "body": '{"error": {"message": "wrong key"}}'}]
    outcome, _, _ = run(NAMES)
    assert "surfing" in outcome.records
    assert outcome.stopped == "the server refuses: 401 wrong key"
    assert outcome.failures == {}
    assert len(fake_llm.requests) <= 3


def test_token_counts_that_the_server_does_not_tell(fake_llm, run):
    fake_llm.usage = {"prompt_tokens": "many"}
    outcome, _, _ = run()
    assert (outcome.usage.uncounted, outcome.usage.input_tokens) == (3, 0)
