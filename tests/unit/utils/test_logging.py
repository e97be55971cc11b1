import json
import logging

import pytest

from slowfast.utils import logging as log


@pytest.fixture(autouse=True)
def _restore():
    logger = logging.getLogger("slowfast")
    handlers, level = list(logger.handlers), logger.level
    logger.handlers = []
    yield
    for handler in logger.handlers:
        handler.close()
    logger.handlers, logger.level = handlers, level


def test_get_logger_stays_below_the_project():
    assert log.get_logger("slowfast.engine.x").name == "slowfast.engine.x"
    assert log.get_logger("__main__").name == "slowfast.__main__"


def test_rank_zero_writes_console_and_file(tmp_path, capsys):
    log.setup_logging(tmp_path / "out", rank=0)
    log.setup_logging(tmp_path / "out", rank=0)
    log.get_logger("slowfast.a").info("hello %d", 3)
    assert capsys.readouterr().out.count("hello 3") == 1
    assert (tmp_path / "out" / "stdout.log").read_text().count("hello 3") == 1


def test_other_ranks_only_write_their_file(tmp_path, capsys):
    log.setup_logging(tmp_path, rank=2)
    log.get_logger("slowfast.a").info("hello")
    assert capsys.readouterr().out == ""
    assert "hello" in (tmp_path / "stdout_rank2.log").read_text()
    assert not (tmp_path / "stdout.log").exists()


def test_secrets_are_removed_from_messages_arguments_and_tracebacks(tmp_path, capsys):
    log.setup_logging(tmp_path, rank=0)
    logger = log.get_logger("slowfast.a")
    logger.info("key sk-abcdef123456 and %s", "hf_ABCDEFGH12345")
    try:
        raise RuntimeError("Authorization: Bearer abc.def-123456")
    except RuntimeError:
        logger.exception("request failed")
    log.log_json_stats({"note": "sk-abcdef123456"}, tmp_path)
    text = capsys.readouterr().out + (tmp_path / "stdout.log").read_text() + (tmp_path / "json_stats.log").read_text()
    for secret in ("abcdef123456", "ABCDEFGH12345", "abc.def-123456"):
        assert secret not in text
    assert "sk-***" in text
    assert "Bearer ***" in text


def test_ordinary_words_are_not_secrets():
    text = "task-oriented mask-rate bearer of news, hf_ x"
    assert log.redact(text) == text


def test_json_stats_lines(tmp_path):
    log.log_json_stats({"b": 1.5, "a": "x", "lr": 3.33e-6, "n": 2, "zero": 0.0, "bad": float("nan")}, tmp_path)
    log.log_json_stats({"loss": 2 / 3}, tmp_path)
    first, second = (tmp_path / "json_stats.log").read_text().splitlines()
    assert second == 'json_stats: {"loss": 0.66667}'
    assert first.startswith('json_stats: {"a": "x", "b": 1.50000, "bad": null, "lr": ')
    assert json.loads(first.removeprefix("json_stats: "))["lr"] == pytest.approx(3.33e-6)


def test_tiny_numbers_stay_valid_json():
    assert json.loads(log.format_json_stats({"lr": -3.33e-12}))["lr"] == pytest.approx(-3.33e-12)


def test_a_log_file_on_a_full_disk_says_so_once(tmp_path, capsys, monkeypatch):
    class Full:
        def write(self, text):
            raise OSError(28, "No space left on device")

        flush = close = lambda self: self.write("")

    log.setup_logging(tmp_path)
    (handler,) = [h for h in logging.getLogger("slowfast").handlers if isinstance(h, logging.FileHandler)]
    monkeypatch.setattr(handler, "stream", Full())
    for number in range(3):
        log.get_logger("slowfast.x").info("line %d", number)
    captured = capsys.readouterr()
    assert captured.err == (
        f"warning: {tmp_path / 'stdout.log'}: cannot be written any more ([Errno 28] No space left on device)\n"
    )
    assert captured.out.count("line ") == 3  # the console goes on
    log.setup_logging(None)  # closes it without a word
