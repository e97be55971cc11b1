"""A stage over many classes: several at a time, each asked until its answer is right or its tries are used up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field

from slowfast.text.llm.cache import AnswerCache, cache_key
from slowfast.text.llm.client import Client, Reply, Sampling, ServerFailureError, ServerRefusalError, StoppedError
from slowfast.text.llm.prompts import correction
from slowfast.text.llm.records import ClassRecord
from slowfast.text.llm.stages import ResponseFormat, Stage, Task, response_format_parameter

FAILURES_IN_A_ROW = 5
"""Classes without any answer, one after the other, that end a run: the server is gone."""
_ECHOED_CHARACTERS = 20_000


@dataclass(kw_only=True, slots=True)
class Usage:
    """Requests and tokens of a run; threads may share it.

    Attributes:
        uncounted: answers for which the server told no token counts.
    """

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    uncounted: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, reply: Reply) -> None:
        """Count an answer, accepted or not."""
        with self._lock:
            self.requests += 1
            self.input_tokens += reply.input_tokens or 0
            self.output_tokens += reply.output_tokens or 0
            self.uncounted += reply.input_tokens is None or reply.output_tokens is None


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What became of the classes.

    Attributes:
        records: accepted answers by class.
        failures: why there is none, by class.
        stopped: why the run ended early; None if it did not.
        usage: what it took.
    """

    records: dict[str, ClassRecord] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    stopped: str | None = None
    usage: Usage = field(default_factory=Usage)


class BadAnswerError(ValueError):
    """All tries of a class gave answers that were not accepted."""


@dataclass(frozen=True, kw_only=True)
class Generator:
    """A stage, a form of answer, and the cache of what was answered before.

    Attributes:
        stage: what is asked for.
        sampling: model and parameters.
        response_format: how the server is told the form of the answer.
        cache: accepted answers.
        tries: answers per class before it is given up.
    """

    stage: Stage
    sampling: Sampling
    response_format: ResponseFormat
    cache: AnswerCache
    tries: int = 3

    def cached(self, task: Task) -> ClassRecord | None:
        """The answer of an earlier run, if it is still accepted."""
        answer = self.cache.get(self._key(task))
        if answer is None:
            return None
        try:
            return self.stage.accept(answer, task)
        except ValueError:
            return None

    def ask(self, task: Task, client: Client, usage: Usage) -> ClassRecord:
        """Ask about one class; a wrong answer goes back with what is wrong with it.

        Raises:
            BadAnswerError: if no answer was accepted.
            ServerFailureError: if there was none.
            ServerRefusalError: if the server does not take such requests.
            StoppedError: if the run ended meanwhile.
        """
        base = self.stage.messages(task, response_format=self.response_format)
        form = response_format_parameter(self.stage, task, self.response_format)
        messages, reason = base, ""
        for _ in range(self.tries):
            reply = client.complete(messages, response_format=form)
            usage.add(reply)
            try:
                if not reply.complete:
                    raise ValueError(f"it is cut off after {self.sampling.max_tokens} tokens")
                record = self.stage.accept(reply.text, task, response_format=self.response_format)
            except ValueError as error:
                reason = str(error)
                messages = [
                    *base,
                    {"role": "assistant", "content": reply.text[:_ECHOED_CHARACTERS] or "(nothing)"},
                    {"role": "user", "content": correction(reason)},
                ]
                continue
            self.cache.put(self._key(task), record.model_dump_json(), name=task.name, model=self.sampling.model)
            return record
        raise BadAnswerError(f"{self.tries} answers were not accepted; the last one: {reason}")

    def run(
        self, tasks: Iterable[Task], client: Client, *, concurrency: int, progress: Callable[[], object]
    ) -> Outcome:
        """Ask about all classes.

        Args:
            tasks: what to ask.
            client: whom to ask.
            concurrency: requests at the same time.
            progress: called after every class.

        Returns: records and failures; classes that an early end left unasked are in neither.
        """
        outcome = Outcome()
        silent = 0
        with ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix="llm") as pool:
            futures = {pool.submit(self.ask, task, client, outcome.usage): task.name for task in tasks}
            try:
                for future in as_completed(futures):
                    name = futures[future]
                    try:
                        outcome.records[name] = future.result()
                        silent = 0
                    except BadAnswerError as error:
                        outcome.failures[name] = str(error)
                        silent = 0
                    except ServerFailureError as error:
                        outcome.failures[name] = str(error)
                        silent += 1
                        if silent >= FAILURES_IN_A_ROW and outcome.stopped is None:
                            outcome.stopped = f"{silent} classes in a row without an answer"
                    except ServerRefusalError as error:
                        outcome.stopped = outcome.stopped or str(error)
                    except StoppedError:
                        continue
                    progress()
                    if outcome.stopped is not None and not client.stop.is_set():
                        client.stop.set()
            finally:
                # An interruption, too, ends the pauses and lets the queue run empty without a request.
                client.stop.set()
        return outcome

    def _key(self, task: Task) -> str:
        return cache_key(
            self.stage.messages(task, response_format=self.response_format),
            sampling=self.sampling,
            response_format=response_format_parameter(self.stage, task, self.response_format),
            schema=self.stage.schema(task),
        )
