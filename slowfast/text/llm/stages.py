"""The four texts about an action that a language model writes: how each is asked for and when it is accepted."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from slowfast.text.llm import prompts
from slowfast.text.llm.records import (
    DESCRIPTOR_RECORDS,
    ActionGraph,
    ClassRecord,
    ExtendedPrompts,
    RephrasedName,
    Triple,
    check_length,
)

Message = dict[str, str]
ResponseFormat = Literal["json_schema", "json_object", "text"]

MAX_ANSWER_CHARACTERS = 50_000
"""A good answer takes less than a tenth of it."""
_SHOWN_FAULTS = 8
_SHOWN_CHARACTERS = 300
# Servers differ in what else they accept; the record itself checks everything.
_SCHEMA_KEYS = ("type", "additionalProperties", "required", "minItems", "maxItems")
_FENCED = re.compile(r"```(?:json)?\s*\n(.*?)\n\s*```", re.DOTALL)
_TAILS = {
    "object_tails": "object_triples",
    "action_tails": "action_triples",
    "sub_action_tails": "sub_action_triples",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One class to ask about, with its graph where the stage builds on graphs."""

    name: str
    graph: ActionGraph | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One kind of text.

    Attributes:
        key: name of the stage, in its cache and in the schema that a server sees.
        record: what an answer must be.
        intent: the system message.
        example: an accepted answer, shown to the model.
        example_task: the question that it answers.
        temperature: of the sampling, unless the user says another.
    """

    key: str
    record: type[ClassRecord]
    intent: str
    example: ClassRecord
    example_task: Task
    temperature: float

    def messages(self, task: Task, *, response_format: ResponseFormat) -> list[Message]:
        """Intent, worked example, question."""
        intent = self.intent
        if response_format != "json_schema":
            intent += prompts.schema_note(json.dumps(self.schema(task)))
        return [
            {"role": "system", "content": intent},
            {"role": "user", "content": _question(self.example_task)},
            {"role": "assistant", "content": json.dumps(self.example.model_dump(mode="json"))},
            {"role": "user", "content": _question(task)},
        ]

    def schema(self, task: Task) -> dict[str, Any]:
        """JSON schema of the answer, without references and with as many tails as the graph has triples."""
        full = self.record.model_json_schema()
        schema = _plain(full, full.get("$defs", {}))
        if task.graph is not None:
            for tails, triples in _TAILS.items():
                count = len(getattr(task.graph, triples))
                schema["properties"][tails] |= {"minItems": count, "maxItems": count}
        return schema

    def accept(self, answer: str, task: Task, *, response_format: ResponseFormat = "json_schema") -> ClassRecord:
        """Read and check an answer.

        Raises:
            ValueError: saying what is wrong with it, in words that the model can act on and of limited length.
        """
        if not answer.strip():
            raise ValueError("it is empty")
        if len(answer) > MAX_ANSWER_CHARACTERS:
            raise ValueError(f"it has {len(answer)} characters; allowed: {MAX_ANSWER_CHARACTERS}")
        if response_format == "text" and (fenced := _FENCED.search(answer)):
            answer = fenced[1]
        try:
            record = self.record.model_validate_json(answer)
        except ValidationError as error:
            raise ValueError(describe_faults(error)) from error
        self.check(record, task)
        return record

    def check(self, record: ClassRecord, task: Task) -> None:
        """Refuse a record of another class or one that does not go with the graph.

        Raises:
            ValueError: saying what is wrong.
        """
        if record.name != task.name:
            raise ValueError(f"name: is {_short(repr(record.name))}; expected {task.name!r}, letter by letter")
        if isinstance(record, ExtendedPrompts) and task.graph is not None:
            record.check_against(task.graph)

    def check_name(self, name: str) -> None:
        """Refuse a class name to which no answer could be right.

        Raises:
            ValueError: naming the class.
        """
        try:
            if self.record is ActionGraph:
                Triple(head=name.lower(), relation="uses", tail="hand")
            check_length(f"{name}, with many people" if self.record is ExtendedPrompts else name)
        except ValueError as error:
            reason = describe_faults(error) if isinstance(error, ValidationError) else str(error)
            raise ValueError(f"class {_short(repr(name))} cannot be asked about: {reason}") from error
        if self.record is RephrasedName and ":" in name:
            raise ValueError(f"class {name!r} cannot be asked about: a colon ends the name in the rephrased texts")


DESCRIPTOR_STAGES: dict[int, Stage] = {
    count: Stage(
        key="descriptors",
        record=record,
        intent=prompts.descriptors_intent(count),
        example=prompts.DESCRIPTORS_EXAMPLES[count],
        example_task=Task(name=prompts.DESCRIPTORS_EXAMPLES[count].name),
        temperature=0.7,
    )
    for count, record in DESCRIPTOR_RECORDS.items()
}
"""Descriptors of each kind -> the stage that asks for as many; the usual one, of four, is in STAGES."""

STAGES: dict[str, Stage] = {
    stage.key: stage
    for stage in (
        Stage(
            key="ASKG",
            record=ActionGraph,
            intent=prompts.GRAPH_INTENT,
            example=prompts.GRAPH_EXAMPLE,
            example_task=Task(name=prompts.GRAPH_EXAMPLE.name),
            temperature=0.0,
        ),
        Stage(
            key="xprompt",
            record=ExtendedPrompts,
            intent=prompts.PROMPTS_INTENT,
            example=prompts.PROMPTS_EXAMPLE,
            example_task=Task(name=prompts.GRAPH_EXAMPLE.name, graph=prompts.GRAPH_EXAMPLE),
            temperature=0.7,
        ),
        Stage(
            key="rephrased",
            record=RephrasedName,
            intent=prompts.REPHRASE_INTENT,
            example=prompts.REPHRASE_EXAMPLE,
            example_task=Task(name=prompts.REPHRASE_EXAMPLE.name),
            temperature=0.7,
        ),
        DESCRIPTOR_STAGES[4],
    )
}


def stage_of(record: ClassRecord) -> Stage:
    """The stage that writes records of this type."""
    return next(stage for stage in (*STAGES.values(), *DESCRIPTOR_STAGES.values()) if stage.record is type(record))


def describe_faults(error: ValidationError) -> str:
    """The faults of a record in one line of limited length, whatever the answer was."""
    faults = []
    for fault in error.errors(include_url=False, include_input=False, include_context=False):
        where = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        faults.append(_short(f"{where}: {message}" if where else message))
    rest = len(faults) - _SHOWN_FAULTS
    return "; ".join(faults[:_SHOWN_FAULTS]) + (f"; and {rest} faults more" if rest > 0 else "")


def response_format_parameter(stage: Stage, task: Task, response_format: ResponseFormat) -> dict[str, Any] | None:
    """What goes into the request as ``response_format``; None leaves it out."""
    if response_format == "json_schema":
        return {
            "type": "json_schema",
            "json_schema": {"name": stage.key, "strict": True, "schema": stage.schema(task)},
        }
    return {"type": "json_object"} if response_format == "json_object" else None


def _question(task: Task) -> str:
    return prompts.name_question(task.name) if task.graph is None else prompts.prompts_question(task.graph)


def _plain(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A schema without references, titles, descriptions and whatever else some servers refuse."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    plain = {key: schema[key] for key in _SCHEMA_KEYS if key in schema}
    if "properties" in schema:
        plain["properties"] = {name: _plain(entry, definitions) for name, entry in schema["properties"].items()}
    if "items" in schema:
        plain["items"] = _plain(schema["items"], definitions)
    return plain


def _short(text: str) -> str:
    """A text of one line without its middle, if it is long: what is wrong stands at the end."""
    text, half = " ".join(text.split()), _SHOWN_CHARACTERS // 2
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:half]} ... {text[-half:]}"
