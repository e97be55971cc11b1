"""What the commands in utils/ that ask a language model have in common; each of them is one stage."""

from __future__ import annotations

import argparse
import difflib
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from slowfast.text.llm.options import parse_args
from slowfast.utils.errors import USER_ERRORS, error_line

if TYPE_CHECKING:
    from slowfast.text.llm.client import Sampling
    from slowfast.text.llm.export import Store
    from slowfast.text.llm.generate import Generator, Outcome
    from slowfast.text.llm.stages import Stage, Task

Say = Callable[..., None]
"""`print`, which only a command may use."""

_EXTRA = {"openai": "openai", "pydantic": "pydantic", "dotenv": "python-dotenv"}
_INTERRUPTED = 130


@dataclass(kw_only=True, slots=True)
class Plan:
    """What a run has to do.

    Attributes:
        names: all classes in label order.
        entries: what the output holds.
        kept: classes that need no question.
        tasks: classes to ask about.
        unasked: entries that break a rule and stay as they are, with the reason.
        failures: classes that cannot be asked about, with the reason.
    """

    names: tuple[str, ...]
    entries: dict[str, Any]
    kept: list[str] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    unasked: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def main(key: str, argv: Sequence[str] | None, *, doc: str | None, say: Say) -> int:
    """Run a stage from the command line.

    Args:
        key: of the stage.
        argv: the arguments; None takes those of the process.
        doc: description of the command.
        say: `print`.

    Returns: 0, 1 if a class failed or the run did, or 130 after an interruption; a wrong command line exits with 2.
    """
    args = parse_args(key, argv, doc=doc)
    try:
        return _run(key, args, say)
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        say(f"error: {_EXTRA[error.name]} is not installed; run: pip install -e '.[llm]'", file=sys.stderr)
    except USER_ERRORS as error:
        say(" ".join(error_line(error).split()), file=sys.stderr)
    except KeyboardInterrupt:
        say(f"interrupted; run again to go on: answers so far are in {args.cache}", file=sys.stderr)
        return _INTERRUPTED
    return 1


def _run(key: str, args: argparse.Namespace, say: Say) -> int:
    from slowfast.text.llm.export import STORES
    from slowfast.text.llm.stages import DESCRIPTOR_STAGES, STAGES

    stage = DESCRIPTOR_STAGES[args.count] if key == "descriptors" else STAGES[key]
    if args.dry_run:
        _show_prompts(stage, args, say)
        return 0
    store = STORES[stage.record]
    plan = _make_plan(stage, store, args)
    outcome, num_cached = _answer(stage, plan, args)
    if outcome.records:
        entries = plan.entries | {name: store.entry(record) for name, record in outcome.records.items()}
        store.write(args.output, entries, plan.names)
    failures = plan.failures | outcome.failures
    for name, reason in plan.unasked.items():
        say(f"left as it is, though it breaks a rule: {name}: {reason}", file=sys.stderr)
    for name in [name for name in plan.names if name in failures]:
        say(f"failed: {name}: {failures[name]}", file=sys.stderr)
    if outcome.stopped is not None:
        say(f"error: stopped: {outcome.stopped}", file=sys.stderr)
    num_unanswered = len(plan.tasks) - len(outcome.records) - len(outcome.failures)
    say(
        f"{args.output}: {len(plan.kept)} classes kept, {num_cached} from the cache, "
        f"{len(outcome.records) - num_cached} answered, {len(failures)} failed"
        + (f", {num_unanswered} not asked" if num_unanswered else "")
    )
    say(_describe_usage(outcome, args))
    return 1 if failures or outcome.stopped is not None else 0


def _show_prompts(stage: Stage, args: argparse.Namespace, say: Say) -> None:
    from slowfast.text.llm.export import read_class_names

    names = read_class_names(args.label_file)
    selected = _select(names, args) if args.classes else names[:1]
    graphs = _read_graphs(stage, names, args)
    for name in selected:
        task, reason = _make_task(stage, name, graphs)
        if task is None:
            raise ValueError(f"{name}: {reason}")
        for message in stage.messages(task, response_format=args.response_format):
            say(f"--- {message['role']}\n{message['content']}\n")


def _make_plan(stage: Stage, store: Store, args: argparse.Namespace) -> Plan:
    from slowfast.text.llm.export import read_class_names

    names = read_class_names(args.label_file)
    selected = _select(names, args)
    is_folder = stage.key == "descriptors"
    if args.output.exists() and args.output.is_dir() != is_folder:
        raise ValueError(f"--output {args.output}: is {'no' if is_folder else 'a'} folder")
    plan = Plan(names=names, entries=store.read(args.output, names) if store.exists(args.output) else {})
    graphs = _read_graphs(stage, names, args)
    for name in names:
        task, reason = _make_task(stage, name, graphs)
        fault = _fault_of(stage, store, name, plan.entries[name], task) if name in plan.entries else None
        is_good = name in plan.entries and fault is None
        if name not in selected or (is_good and not args.redo):
            if is_good:
                plan.kept.append(name)
            elif fault is not None:
                plan.unasked[name] = fault
        elif task is None:
            plan.failures[name] = reason
        elif args.limit is None or len(plan.tasks) < args.limit:
            plan.tasks.append(task)
        elif fault is not None:
            plan.unasked[name] = fault
    return plan


def _select(names: tuple[str, ...], args: argparse.Namespace) -> tuple[str, ...]:
    for name in args.classes or ():
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"; the nearest is {near[0]!r}" if near else ""
            raise ValueError(f"--classes: {name!r} is not in {args.label_file}{hint}")
    return tuple(name for name in names if not args.classes or name in args.classes)


def _read_graphs(stage: Stage, names: tuple[str, ...], args: argparse.Namespace) -> dict[str, Any] | None:
    if stage.key != "xprompt":
        return None
    from slowfast.text.prompt_bank import read_graphs

    return {name: graph for name, graph in read_graphs(args.graphs).items() if name in names}


def _make_task(stage: Stage, name: str, graphs: dict[str, Any] | None) -> tuple[Task | None, str]:
    """The question about a class, or why there is none."""
    from pydantic import ValidationError

    from slowfast.text.llm.export import graph_record
    from slowfast.text.llm.stages import Task, describe_faults

    try:
        stage.check_name(name)
        if graphs is None:
            return Task(name=name), ""
        if name not in graphs:
            return None, "it has no graph; write that first"
        return Task(name=name, graph=graph_record(name, graphs[name])), ""
    except ValidationError as error:
        return None, f"its graph breaks a rule: {describe_faults(error)}"
    except ValueError as error:
        return None, str(error)


def _fault_of(stage: Stage, store: Store, name: str, entry: Any, task: Task | None) -> str | None:  # noqa: ANN401
    """What is wrong with an entry of the output; None if nothing is."""
    from pydantic import ValidationError

    from slowfast.text.llm.stages import Task, describe_faults

    try:
        stage.check(store.record(name, entry), task or Task(name=name))
    except ValidationError as error:
        return describe_faults(error)
    except ValueError as error:
        return str(error)
    return None


def _answer(stage: Stage, plan: Plan, args: argparse.Namespace) -> tuple[Outcome, int]:
    """Answers to the tasks, and how many of them were known."""
    from slowfast.text.llm.cache import AnswerCache
    from slowfast.text.llm.client import Sampling
    from slowfast.text.llm.generate import Generator, Outcome

    sampling = Sampling(
        model=args.model,
        temperature=stage.temperature if args.temperature is None else args.temperature,
        seed=args.seed,
        max_tokens=args.max_tokens,
        max_tokens_name=args.max_tokens_name,
    )
    generator = Generator(
        stage=stage,
        sampling=sampling,
        response_format=args.response_format,
        cache=AnswerCache(args.cache),
        tries=args.tries,
    )
    known = {task.name: record for task in plan.tasks if (record := generator.cached(task)) is not None}
    rest = [task for task in plan.tasks if task.name not in known]
    outcome = _ask(generator, rest, sampling, args) if rest else Outcome()
    outcome.records |= known
    return outcome, len(known)


def _ask(generator: Generator, tasks: list[Task], sampling: Sampling, args: argparse.Namespace) -> Outcome:
    from tqdm import tqdm

    from slowfast.text.llm.client import Client, Patience, server_from_environment

    if args.verbose:
        logging.basicConfig(format="%(message)s")
        logging.getLogger("slowfast.text.llm").setLevel(logging.INFO)
    server = server_from_environment(env_file=args.env_file)
    patience = Patience(timeout_seconds=args.timeout, retries=args.retries, backoff_seconds=args.backoff)
    client = Client(server, sampling, patience=patience)
    with tqdm(total=len(tasks), unit="class", disable=None) as bar:
        return generator.run(tasks, client, concurrency=args.concurrency, progress=bar.update)


def _describe_usage(outcome: Outcome, args: argparse.Namespace) -> str:
    usage = outcome.usage
    text = f"{usage.requests} answers, {usage.input_tokens} tokens in, {usage.output_tokens} out"
    if usage.uncounted:
        text += f" ({usage.uncounted} answers without a count)"
    if args.price_in is not None:
        cost = (usage.input_tokens * args.price_in + usage.output_tokens * args.price_out) / 1e6
        text += f", cost {cost:.4f}"
    return text
