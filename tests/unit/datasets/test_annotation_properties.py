import pytest

pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from slowfast.datasets.annotation import read_annotations

# A fixture of a file that each example writes anew.
ONE_FILE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

characters = st.characters(codec="utf-8", exclude_characters="\r\n\0\ufeff")
separators = st.sampled_from([" ", ",", ";", "\t", "|", "::", ", "]) | st.text(characters, min_size=1, max_size=3)
names = st.text(characters, min_size=1, max_size=30).filter(lambda name: name == name.strip())
rows = st.lists(st.tuples(names, st.integers(0, 999)), min_size=1, max_size=8)


def is_legal(row, separator):
    """Whether a row says what it means: no quotes, the separator once, and nothing at its ends is stripped."""
    text = f"{row[0]}{separator}{row[1]}"
    return text == text.strip() and text.split(separator) == [row[0], str(row[1])] and not text.startswith('"')


@ONE_FILE
@given(rows, separators, st.sampled_from(["\n", "\r\n", "\n\n", "\n \n"]), st.booleans())
def test_rows_come_back(tmp_path, rows, separator, end, mark):
    assume(all(is_legal(row, separator) for row in rows))
    assume(len({name for name, _ in rows}) == len(set(rows)))  # a video has one label
    path = tmp_path / "list.csv"
    text = "".join(f"{name}{separator}{label}{end}" for name, label in rows)
    path.write_text("\ufeff" * mark + text, encoding="utf-8", newline="")
    records = read_annotations(path, separator=separator, num_classes=1000)
    assert [(record.path, record.label) for record in records] == rows
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    assert [lines[record.line - 1].strip() for record in records] == [f"{n}{separator}{k}" for n, k in rows]


texts = st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=200)
lines = st.lists(
    st.sampled_from(["a.mp4", "../a", "/a", "", " ", "1", "-1", "1.5", "x", ",", ",,", "\0", "C:\\a", "9" * 5000]),
    max_size=12,
).map(lambda parts: "\n".join(",".join(parts[i : i + 3]) for i in range(0, len(parts), 3)).encode())


@ONE_FILE
@given(texts | lines, separators, st.none() | st.integers(1, 9), st.sampled_from(["", "videos"]), st.booleans())
def test_any_file_is_read_or_refused_in_one_line(tmp_path, content, separator, num_classes, prefix, allow_outside):
    path = tmp_path / "list.csv"
    path.write_bytes(content)
    options = {"separator": separator, "prefix": prefix, "num_classes": num_classes, "allow_outside": allow_outside}
    records, refusal = [], ""
    try:
        records = read_annotations(path, **options)
    except ValueError as error:
        refusal = str(error)
    assert bool(records) != bool(refusal)
    assert not refusal or refusal.startswith(str(path))
    assert "\n" not in refusal
    assert all(record.label >= 0 and record.path and "\0" not in record.path for record in records)
    if prefix and not allow_outside:
        assert all((tmp_path / record.path).is_relative_to(tmp_path / prefix) for record in records)
