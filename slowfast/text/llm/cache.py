"""Accepted answers on the disk, so that an interrupted run goes on and a repeated run asks for nothing."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slowfast.text.llm.client import Sampling
    from slowfast.text.llm.stages import Message

_log = logging.getLogger(__name__)


def cache_key(
    messages: list[Message], *, sampling: Sampling, response_format: dict[str, Any] | None, schema: dict[str, Any]
) -> str:
    """Hash everything that an answer depends on.

    Returns: 64 hexadecimal digits.
    """
    content = {
        "messages": messages,
        "parameters": sampling.parameters(),
        "response_format": response_format,
        "schema": schema,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class AnswerCache:
    """Answers by key, one JSON object per line. Threads may share it, and processes may share its file."""

    def __init__(self, path: str | Path) -> None:
        """Read what is there; lines that were cut off by an interruption are left out."""
        self.path = Path(path)
        self._lock = threading.Lock()
        self._answers: dict[str, str] = {}
        self._needs_newline = False
        if self.path.exists():
            self._load()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> str | None:
        """The answer to a request, if it is known."""
        return self._answers.get(key)

    def put(self, key: str, answer: str, *, name: str, model: str) -> None:
        """Add an answer; it is on the disk when this returns.

        Args:
            key: of `cache_key`.
            answer: an accepted one, as JSON.
            name: its class, for the reader of the file.
            model: who gave it, likewise.
        """
        line = json.dumps({"key": key, "name": name, "model": model, "answer": answer}) + "\n"
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # One write of a whole line at the end of the file: neither threads nor processes mix theirs.
            with self.path.open("ab", buffering=0) as file:
                file.write((b"\n" if self._needs_newline else b"") + line.encode())
                os.fsync(file.fileno())
            self._needs_newline = False
            self._answers[key] = answer

    def _load(self) -> None:
        content = self.path.read_bytes()
        self._needs_newline = bool(content) and not content.endswith(b"\n")
        damaged = 0
        for line in content.split(b"\n"):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                key, answer = entry["key"], entry["answer"]
            except (ValueError, KeyError, TypeError, RecursionError):
                damaged += 1
                continue
            if isinstance(key, str) and isinstance(answer, str):
                self._answers[key] = answer
            else:
                damaged += 1
        if damaged:
            _log.warning("%s: left out %d damaged lines", self.path, damaged)
