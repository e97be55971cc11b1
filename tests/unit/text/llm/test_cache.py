import json
import threading

from slowfast.text.llm.cache import AnswerCache, cache_key
from slowfast.text.llm.client import Sampling

SAMPLING = Sampling(model="fake", temperature=0.0, seed=0, max_tokens=10)
REQUEST = {
    "messages": [{"role": "user", "content": "a"}],
    "sampling": SAMPLING,
    "response_format": None,
    "schema": {"type": "object"},
}


def key(**changes):
    arguments = REQUEST | changes
    return cache_key(arguments.pop("messages"), **arguments)


def test_key_depends_on_everything_that_changes_an_answer():
    others = [
        {"messages": [{"role": "user", "content": "b"}]},
        {"response_format": {"type": "json_object"}},
        {"schema": {"type": "array"}},
        *(
            {"sampling": Sampling(**{"model": "fake", "temperature": 0.0, "seed": 0, "max_tokens": 10} | change)}
            for change in ({"model": "b"}, {"temperature": 0.1}, {"seed": 1}, {"max_tokens": 11})
        ),
    ]
    keys = [key(), *(key(**change) for change in others)]
    assert len(set(keys)) == len(keys)
    assert key() == keys[0]
    assert len(key()) == 64


def test_answers_survive(tmp_path):
    path = tmp_path / "new" / "cache.jsonl"
    cache = AnswerCache(path)
    assert cache.get("a") is None
    cache.put("a", '{"x": "é\n"}', name="surfing", model="fake")
    assert AnswerCache(path).get("a") == cache.get("a") == '{"x": "é\n"}'
    cache.put("a", "2", name="surfing", model="fake")
    assert (AnswerCache(path).get("a"), len(cache)) == ("2", 1)
    assert json.loads(path.read_text().splitlines()[0])["name"] == "surfing"


def test_every_truncation_of_the_last_line(tmp_path, caplog):
    path = tmp_path / "cache.jsonl"
    cache = AnswerCache(path)
    cache.put("a", "1", name="surfing", model="fake")
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole + whole[:length].replace(b'"a"', b'"b"'))
        again = AnswerCache(path)
        assert again.get("a") == "1"
        again.put("c", "3", name="surfing", model="fake")
        last = AnswerCache(path)
        assert (last.get("a"), last.get("c")) == ("1", "3")
    assert "left out 1 damaged lines" in caplog.text


def test_foreign_lines_are_left_out(tmp_path):
    path = tmp_path / "cache.jsonl"
    lines = ["1", "[]", "{}", '{"key": 1, "answer": "x"}', "\xff", "[" * 100_000, "", '{"key": "a", "answer": "x"}']
    path.write_bytes("\n".join(lines).encode("latin-1"))
    assert len(AnswerCache(path)) == 1


def test_threads_do_not_mix_lines(tmp_path):
    path = tmp_path / "cache.jsonl"
    caches = [AnswerCache(path), AnswerCache(path)]

    def write(number):
        for step in range(20):
            caches[number % 2].put(f"{number}-{step}", "x" * 5000, name="n", model="m")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(AnswerCache(path)) == 80
