"""Asking a language model over HTTP: any server that speaks OpenAI's chat completions."""

from __future__ import annotations

import json
import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import openai

    from slowfast.text.llm.stages import Message

KEY_VARIABLE = "OPENAI_API_KEY"
BASE_VARIABLES = ("OPENAI_BASE_URL", "OPENAI_API_BASE")
LONGEST_WAIT_SECONDS = 120.0
"""A server that asks for a longer pause counts as one that does not answer."""

_NO_KEY = "none"  # local servers want no key, the SDK wants some
_LEAST_SECRET_CHARACTERS = 8  # shorter ones are placeholders such as EMPTY, and ordinary words
_SHOWN_CHARACTERS = 300
_RETRIED_STATUS = (408, 409, 429)
_log = logging.getLogger(__name__)


class ServerFailureError(RuntimeError):
    """The server gave no answer to this request, however often it was asked."""


class ServerRefusalError(RuntimeError):
    """The server will refuse every request of this run: the key, the model or a parameter is wrong."""


class StoppedError(RuntimeError):
    """The run ends; nothing more is asked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """Where to ask and with which secret.

    Attributes:
        base_url: None is OpenAI's own.
        api_key: never shown, logged or saved.
    """

    base_url: str | None = field(repr=False)
    api_key: str = field(repr=False)

    def redact(self, text: str) -> str:
        """Take the secrets out of a text: the key, and a password in the address."""
        password = urlsplit(self.base_url or "").password or ""
        for secret in (self.api_key, password):
            if len(secret) >= _LEAST_SECRET_CHARACTERS:
                text = text.replace(secret, "***")
        return text


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """What changes an answer.

    Attributes:
        model: name of the model on the server.
        temperature: of the sampling.
        seed: of the sampling; servers follow it as well as they can.
        max_tokens: limit of an answer.
        max_tokens_name: which of its two names the request uses; OpenAI's newer models know only the second.
    """

    model: str
    temperature: float
    seed: int
    max_tokens: int
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"

    def parameters(self) -> dict[str, Any]:
        """The arguments of a request."""
        return {
            "model": self.model,
            "temperature": self.temperature,
            "seed": self.seed,
            self.max_tokens_name: self.max_tokens,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long to wait and how often to try.

    Attributes:
        timeout_seconds: for one request.
        retries: after a request that failed for a reason that may pass.
        backoff_seconds: the first pause; each further one is twice as long, with jitter.
    """

    timeout_seconds: float = 120.0
    retries: int = 6
    backoff_seconds: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """An answer and what it took. Token counts are None where the server does not tell.

    Attributes:
        complete: whether the model came to its end; otherwise the text is cut off.
    """

    text: str
    complete: bool
    input_tokens: int | None
    output_tokens: int | None


def server_from_environment(environment: Mapping[str, str] | None = None, *, env_file: str | Path = ".env") -> Server:
    """Read key and address from the environment or, where it does not have them, from a file.

    The file's values are not put into the environment, where other programs would inherit them.

    Raises:
        ValueError: if there is no key for OpenAI's own server, or two different addresses.
    """
    from dotenv import dotenv_values

    known = {name: value for name, value in dotenv_values(env_file, interpolate=False).items() if value}
    given = {name: value for name, value in (os.environ if environment is None else environment).items() if value}
    bases = [source[name] for source in (given, known) for name in BASE_VARIABLES if name in source]
    own = [given[name] for name in BASE_VARIABLES if name in given] or bases
    if len(set(own)) > 1:
        raise ValueError(f"{' and '.join(BASE_VARIABLES)} name different servers; set one of them")
    base_url = own[0].strip() if own else None
    if base_url is not None and not _is_address(base_url):
        raise ValueError(f"{' or '.join(BASE_VARIABLES)}: expected an address such as http://localhost:8000/v1")
    key = (given.get(KEY_VARIABLE) or known.get(KEY_VARIABLE) or "").strip()
    if not re.fullmatch(r"[!-~]*", key):
        raise ValueError(f"{KEY_VARIABLE} holds a character that no key has; a key is plain letters, digits and signs")
    if not key and base_url is None:
        raise ValueError(f"{KEY_VARIABLE} is not set, neither in the environment nor in {env_file}")
    return Server(base_url=base_url, api_key=key or _NO_KEY)


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


class Client:
    """Asks one model and waits for servers that are busy. Threads may share it."""

    def __init__(
        self,
        server: Server,
        sampling: Sampling,
        *,
        patience: Patience | None = None,
        stop: threading.Event | None = None,
        jitter: Callable[[], float] | None = None,
    ) -> None:
        """Open a connection pool; nothing is asked yet.

        Args:
            server: where to ask.
            sampling: model and parameters.
            patience: time-outs and retries.
            stop: ends all pauses and requests to come.
            jitter: a number between 0 and 1 per pause. Unlike all other random numbers these need no seed: they keep
                clients apart that were refused at the same moment.
        """
        import openai

        self.sampling = sampling
        self.stop = stop or threading.Event()
        self._server = server
        self._patience = patience or Patience()
        self._jitter = jitter or random.SystemRandom().random
        self._sdk = openai.OpenAI(
            api_key=server.api_key,
            # Not None, which would let the SDK look into the environment once more.
            base_url=server.base_url or "https://api.openai.com/v1",
            timeout=self._patience.timeout_seconds,
            max_retries=0,
        )

    def complete(self, messages: list[Message], *, response_format: dict[str, Any] | None) -> Reply:
        """Ask until there is an answer.

        Raises:
            ServerFailureError: if there is none after all retries.
            ServerRefusalError: if the server does not take such requests.
            StoppedError: if the run ended meanwhile.
        """
        for attempt in range(self._patience.retries + 1):
            if self.stop.is_set():
                raise StoppedError
            reply, reason, wait_seconds = self._try(messages, response_format)
            if reply is not None:
                return reply
            pause = self._pause(attempt) if wait_seconds is None else wait_seconds
            if attempt == self._patience.retries or pause > LONGEST_WAIT_SECONDS:
                break
            _log.info("%s; trying again in %.1f s", reason, pause)
            if self.stop.wait(pause):
                raise StoppedError
        raise ServerFailureError(f"no answer after {attempt + 1} requests: {reason}")

    def _try(
        self, messages: list[Message], response_format: dict[str, Any] | None
    ) -> tuple[Reply | None, str, float | None]:
        """One request: its reply, or why there is none and how long the server wants to be left alone."""
        import openai

        arguments: dict[str, Any] = {**self.sampling.parameters(), "messages": messages}
        if response_format is not None:
            arguments["response_format"] = response_format
        create: Any = self._sdk.chat.completions.with_raw_response.create
        try:
            body = create(**arguments).http_response.text
        except openai.APIStatusError as error:
            reason = self._describe(_message_of(error))
            if _is_final(error):
                raise ServerRefusalError(f"the server refuses: {reason}") from None
            return None, reason, _retry_after(error.response.headers)
        except openai.APITimeoutError:
            return None, f"no answer within {self._patience.timeout_seconds:g} s", None
        except openai.APIConnectionError as error:
            return None, f"no connection ({self._describe(error.__cause__ or error)})", None
        except openai.OpenAIError as error:
            raise ServerRefusalError(self._describe(error)) from None
        try:
            return _read_reply(self._server.redact(body)), "", None
        except ValueError as error:
            return None, self._describe(error), None

    def _pause(self, attempt: int) -> float:
        pause = self._patience.backoff_seconds * 2.0**attempt * (0.5 + 0.5 * self._jitter())
        return min(pause, LONGEST_WAIT_SECONDS / 2)

    def _describe(self, what: BaseException | str) -> str:
        return " ".join(self._server.redact(str(what)).split())[:_SHOWN_CHARACTERS] or type(what).__name__


def _message_of(error: openai.APIStatusError) -> str:
    """Status and message of a response, or its first words where the message is not in the usual place."""
    body = error.body
    message = body.get("message") if isinstance(body, dict) else None
    return f"{error.status_code} {message if isinstance(message, str) else error.response.text}"


def _is_final(error: openai.APIStatusError) -> bool:
    """Whether asking once more can only give the same; a used-up budget comes as "too many requests"."""
    if error.code == "insufficient_quota":
        return True
    return error.status_code < 500 and error.status_code not in _RETRIED_STATUS


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait; None if it does not, or not in a known form."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _read_reply(body: str) -> Reply:
    """Take the answer out of a response.

    Raises:
        ValueError: if the response has another form than a chat completion.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("the response is not JSON") from None
    choices = content.get("choices") if isinstance(content, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise ValueError("the response holds no message")
    text = message.get("content")
    usage = content.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    return Reply(
        # Half a surrogate pair, which JSON can spell, could not be sent back or printed.
        text=text.encode("utf-8", "replace").decode() if isinstance(text, str) else "",
        complete=choice.get("finish_reason") != "length",
        input_tokens=_count(counts.get("prompt_tokens")),
        output_tokens=_count(counts.get("completion_tokens")),
    )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
