import json

import pytest

pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slowfast.datasets.label_set import LabelSet

ONE_FILE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(str.strip)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(st.sampled_from("0123x") | st.text(max_size=2), values | names, max_size=4)


@ONE_FILE
@given(st.lists(names, min_size=1, max_size=12), st.randoms(use_true_random=False), st.booleans())
def test_names_come_back_whatever_the_order_of_the_keys(tmp_path, listed, random, ascii_only):
    pairs = [(str(number), name) for number, name in enumerate(listed)]
    random.shuffle(pairs)
    path = tmp_path / "classes.json"
    path.write_text(json.dumps(dict(pairs), ensure_ascii=ascii_only), encoding="utf-8")
    found = LabelSet.from_json(path)
    assert (found.names, found.ids) == (tuple(listed), tuple(range(len(listed))))


@ONE_FILE
@given((values | objects).map(json.dumps).map(str.encode) | st.binary(max_size=60) | st.text(max_size=60).map(
    lambda text: text.encode("utf-8", "surrogatepass")))  # fmt: skip
def test_any_file_is_read_or_refused_in_one_line(tmp_path, content):
    path = tmp_path / "classes.json"
    path.write_bytes(content)
    names, refusal = (), ""
    try:
        names = LabelSet.from_json(path).names
    except ValueError as error:
        refusal = str(error)
    assert bool(names) != bool(refusal)
    assert not refusal or refusal.startswith(f"{path}: ")
    assert "\n" not in refusal
    assert all(name.strip() and name.encode() for name in names)
