import os.path

import pytest

from slowfast.config.paths import escape_of, is_plain_name

pytest.importorskip("hypothesis")

from hypothesis import given
from hypothesis import strategies as st

parts = st.sampled_from(["a", "b.mp4", "..", ".", "", "~", "C:", "...", "a b"]) | st.text(max_size=3)
paths = st.lists(parts, max_size=6).flatmap(lambda names: st.sampled_from("/\\").map(lambda mark: mark.join(names)))


@given(paths)
def test_a_path_without_escape_stays_inside(path):
    if not escape_of(path):
        for posix in (path, path.replace("\\", "/")):
            inside = os.path.normpath(os.path.join("/base/folder", posix))  # noqa: PTH118
            assert inside == "/base/folder" or inside.startswith("/base/folder/")


@given(paths)
def test_a_plain_name_is_a_child(name):
    if is_plain_name(name):
        assert not escape_of(name)
        assert os.path.dirname(os.path.normpath(f"/base/{name}")) == "/base"  # noqa: PTH120
