import pytest

from slowfast.config.paths import is_plain_name


@pytest.mark.parametrize("name", ["test", "split1", "half9", "a b", "x..y", "...", "TRAIN_FILE", "~"])
def test_plain_names(name):
    assert is_plain_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\\b", "C:", "C:a", "a\0"])
def test_names_that_are_paths(name):
    assert not is_plain_name(name)
