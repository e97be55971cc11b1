"""What a language model may say about an action: records that are checked before anything is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from slowfast.text.templates import ACTION_TEMPLATES
from slowfast.text.tokenizer import Tokenizer

CONTEXT_TOKENS = 77
"""Tokens of CLIP's text tower, start and end included."""
MAX_PART_CHARACTERS = 60
MAX_PROSE_CHARACTERS = 200
_MAX_PROMPT_CHARACTERS = 1000

_PROSE = re.compile(r"[A-Za-z0-9 ,'()/&%-]+")
_PART = re.compile(r"[A-Za-z0-9 '()/&-]+")


class Record(BaseModel):
    """A frozen record without entries of its own invention."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ClassRecord(Record):
    """A record about one class."""

    name: str
    """The class, as its label file spells it."""


def words(text: str) -> list[str]:
    """Lower-case words of a text, without punctuation."""
    return re.findall(r"[a-z0-9]+", text.lower())


def names_class(text: str, name: str) -> bool:
    """Whether a text contains the words of a class name, one after the other."""
    found, wanted = words(text), words(name)
    return any(found[start : start + len(wanted)] == wanted for start in range(len(found) - len(wanted) + 1))


def _limit(text: str, characters: int) -> None:
    if len(text) > characters:
        raise ValueError(f"{text[:40]!r}...: has {len(text)} characters; allowed: {characters}")


def _part(text: str) -> str:
    _limit(text, MAX_PART_CHARACTERS)
    if not _PART.fullmatch(text) or text != text.strip() or not words(text):
        raise ValueError(
            f"{text!r}: expected words of plain letters, digits, spaces and ' ( ) / & -, without a comma or a colon"
        )
    return text


def _prose(low: int, high: int) -> Callable[[str], str]:
    def check(text: str) -> str:
        _limit(text, MAX_PROSE_CHARACTERS)
        if not _PROSE.fullmatch(text) or text != text.strip():
            raise ValueError(
                f"{text!r}: expected plain letters, digits, spaces and , ' ( ) / & % -, without a full stop"
            )
        if text[:1].isupper():
            raise ValueError(f"{text!r}: begins with a capital letter; it continues a sentence")
        if not low <= len(words(text)) <= high:
            raise ValueError(f"{text!r}: has {len(words(text))} words; allowed: {low} to {high}")
        return text

    return check


Part = Annotated[str, AfterValidator(_part)]
"""One part of a triple: a thing, a relation or a step."""
Tail = Annotated[str, AfterValidator(_prose(4, 22))]
"""What completes "This is a video of <name>, ...", one per triple."""
Sentence = Annotated[str, AfterValidator(_prose(8, 26))]
Descriptor = Annotated[str, AfterValidator(_prose(3, 16))]


class Triple(Record):
    """Two things or steps and what relates them."""

    head: Part
    relation: Part
    tail: Part


Triples = Annotated[tuple[Triple, ...], Field(min_length=5, max_length=8)]
Tails = Annotated[tuple[Tail, ...], Field(min_length=5, max_length=8)]

Item = TypeVar("Item")


def _all_different(items: Sequence[Item], *, what: str) -> None:
    seen: list[Item] = []
    for item in items:
        if item in seen:
            raise ValueError(f"{what}: {item!r} occurs twice")
        seen.append(item)


class ActionGraph(ClassRecord):
    """Action Semantic Knowledge Graph: the things and the steps of an action, and how they relate.

    Source: STDD (AAAI 2025), action semantic knowledge graph.
    """

    objects: Annotated[tuple[Part, ...], Field(min_length=5, max_length=10)]
    object_triples: Triples
    """Between objects."""
    action_triples: Triples
    """From the action, its name in lower case, to an object."""
    sub_actions: Annotated[tuple[Part, ...], Field(min_length=4, max_length=8)]
    """Steps in temporal order."""
    sub_action_triples: Triples
    """Between steps."""

    @model_validator(mode="after")
    def check_graph(self) -> ActionGraph:
        """Refuse repetitions and triples that lead out of the graph."""
        for what in ("objects", "sub_actions", "object_triples", "action_triples", "sub_action_triples"):
            _all_different(getattr(self, what), what=what)
        ends = (
            ("object_triples", self.objects, self.objects),
            ("action_triples", (self.name.lower(),), self.objects),
            ("sub_action_triples", self.sub_actions, self.sub_actions),
        )
        for what, heads, tails in ends:
            for triple in getattr(self, what):
                for end, allowed in ((triple.head, heads), (triple.tail, tails)):
                    if end not in allowed:
                        raise ValueError(f"{what}: {end!r} is not one of {list(allowed)}")
        return self


class ExtendedPrompts(ClassRecord):
    """One sentence tail per triple of an action's graph, kind by kind and in the same order.

    Source: STDD (AAAI 2025), extended text prompts.
    """

    object_tails: Tails
    action_tails: Tails
    sub_action_tails: Tails

    @model_validator(mode="after")
    def check_tails(self) -> ExtendedPrompts:
        """Refuse repetitions, tails with the class name inside, and prompts that are too long for CLIP."""
        tails = [*self.object_tails, *self.action_tails, *self.sub_action_tails]
        _all_different(tails, what="tails")
        for tail in tails:
            if names_class(tail, self.name):
                raise ValueError(f"{tail!r}: contains the class name {self.name!r}")
            check_length(f"{self.name}, {tail}")
        return self

    def check_against(self, graph: ActionGraph) -> None:
        """Refuse another number of tails than the graph has triples of a kind.

        Raises:
            ValueError: naming the kind.
        """
        for kind in ("object", "action", "sub_action"):
            found, wanted = len(getattr(self, f"{kind}_tails")), len(getattr(graph, f"{kind}_triples"))
            if found != wanted:
                raise ValueError(f"{kind}_tails: has {found} entries for {wanted} triples")


class RephrasedName(ClassRecord):
    """One sentence that says what an action is, for somebody who does not know its name.

    Source: FROSTER (ICLR 2024), rephrased class names; TC-CLIP (ECCV 2024) uses them too.
    """

    sentence: Sentence

    @model_validator(mode="after")
    def check_sentence(self) -> RephrasedName:
        """Refuse a sentence that is too long for CLIP in a template, behind the name."""
        check_length(f"{self.name} {self.text}")
        return self

    @property
    def text(self) -> str:
        """The class list's value, ``Name: sentence``."""
        return f"{self.name}: {self.sentence}"


class Descriptors(ClassRecord):
    """What an action looks like in a frame, and what happens in it over time: four descriptors of each kind.

    Source: OST (CVPR 2024), spatio and temporal descriptors.
    """

    spatial: Annotated[tuple[Descriptor, ...], Field(min_length=4, max_length=4)]
    temporal: Annotated[tuple[Descriptor, ...], Field(min_length=4, max_length=4)]

    @model_validator(mode="after")
    def check_descriptors(self) -> Descriptors:
        """Refuse repetitions, spatial descriptors with the class name inside, and texts too long for CLIP."""
        _all_different(self.spatial, what="spatial")
        _all_different(self.temporal, what="temporal")
        for descriptor in self.spatial:
            if names_class(descriptor, self.name):
                raise ValueError(f"spatial: {descriptor!r} contains the class name {self.name!r}")
        for descriptor in (*self.spatial, *self.temporal):
            check_length(f"{self.name} usually includes {descriptor}")
        return self


class TwoDescriptors(Descriptors):
    """Two descriptors of each kind."""

    spatial: Annotated[tuple[Descriptor, ...], Field(min_length=2, max_length=2)]
    temporal: Annotated[tuple[Descriptor, ...], Field(min_length=2, max_length=2)]


class EightDescriptors(Descriptors):
    """Eight descriptors of each kind."""

    spatial: Annotated[tuple[Descriptor, ...], Field(min_length=8, max_length=8)]
    temporal: Annotated[tuple[Descriptor, ...], Field(min_length=8, max_length=8)]


DESCRIPTOR_RECORDS: dict[int, type[Descriptors]] = {2: TwoDescriptors, 4: Descriptors, 8: EightDescriptors}
"""Descriptors of each kind -> the record that has as many; the numbers of OST's ablation."""


@lru_cache(maxsize=1)
def _tokenizer() -> Tokenizer:
    return Tokenizer()


def check_length(text: str) -> None:
    """Refuse a text that does not fit into CLIP's context inside the longest template.

    Raises:
        ValueError: if it is too long.
    """
    prompt = max(ACTION_TEMPLATES, key=len).format(text)
    _limit(prompt, _MAX_PROMPT_CHARACTERS)  # 77 tokens never have as many, and a tokenizer takes its time over them
    tokens = int(_tokenizer()([prompt], context_length=4 * CONTEXT_TOKENS).argmax()) + 1
    if tokens > CONTEXT_TOKENS:
        raise ValueError(f"{text!r}: makes a prompt of {tokens} tokens; CLIP's text tower takes {CONTEXT_TOKENS}")
