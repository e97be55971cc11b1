import pytest

from slowfast.utils.errors import USER_ERRORS, describe_error


@pytest.mark.parametrize("error", [ValueError("KEY: 3"), FloatingPointError("KEY: 3")])
def test_message(error):
    assert isinstance(error, USER_ERRORS)
    assert describe_error(error) == "KEY: 3"


def test_the_file_of_an_operating_system_error_comes_first(tmp_path):
    with pytest.raises(USER_ERRORS) as caught:
        (tmp_path / "absent" / "file").write_text("x", encoding="utf-8")
    assert describe_error(caught.value) == f"{tmp_path / 'absent' / 'file'}: No such file or directory"
    assert describe_error(OSError("disk full")) == "disk full"


def test_defects_keep_their_traceback():
    assert not isinstance(AssertionError(), USER_ERRORS)
    assert not isinstance(KeyError("x"), USER_ERRORS)


def test_always_one_line():
    assert describe_error(ValueError("a\nb\x1b[1m\udce9 ü 踊")) == "a\\nb\\x1b[1m\\udce9 ü 踊"
    assert describe_error(FileNotFoundError(2, "No such file", "a\rb")) == "a\\rb: No such file"
