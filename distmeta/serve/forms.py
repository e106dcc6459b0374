"""What requests hold and what answers hold, for this learner and these limits. OpenAPI shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Union

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, create_model

from distmeta.protocols import Codec
from distmeta.report.certainty import WRONG
from distmeta.serve.limits import Limits

STRICT = ConfigDict(extra="forbid", strict=True)
EXAMPLES = [
    {"text": "I want my money back", "label": "refund"},
    {"text": "please return what I paid", "label": "refund"},
    {"text": "where is my parcel", "label": "delivery"},
    {"text": "it has not arrived yet", "label": "delivery"},
]
INPUTS = ["has my parcel been sent?", "give me a refund"]


class Expected(BaseModel):
    """What a task expects of itself: `right` of `tested` examples that were left out got their label."""

    right: int
    tested: int
    accuracy: float
    low: float = Field(description="Lower end of the accuracy's 95 % interval.")
    high: float = Field(description="Upper end of the accuracy's 95 % interval.")


class ExpectedF1(BaseModel):
    """F1 of `tested` texts with several labels that were left out."""

    micro_f1: float
    macro_f1: float
    low: float = Field(description="Lower end of the 95 % interval of micro F1.")
    high: float = Field(description="Upper end of the 95 % interval of micro F1.")
    tested: int


class TaskAbout(BaseModel):
    """A learned task."""

    id: str
    name: str | None
    family: str
    classes: list[str]
    examples: int
    cut: int | None = Field(description="Examples that are longer than the learner reads. Null: not counted.")
    version: int = Field(description="1, and one more each time that it grows.")
    threshold: float = Field(description="Answers that are less certain are not given.")
    expected: Expected | None
    thresholds: dict[str, float] | None = Field(description="Least probability of each class, if texts have several.")
    expected_f1: ExpectedF1 | None
    changed: str = Field(description="When it was learned or last grew, in UTC.")


class BrokenTask(BaseModel):
    """A task whose files cannot be read."""

    id: str
    error: str


class TaskPage(BaseModel):
    """Some of the tasks, by id."""

    tasks: list[TaskAbout | BrokenTask]
    total: int
    next: str | None = Field(description="Give it as `after` for those that follow. None: these are the last.")


class ClassPrediction(BaseModel):
    """The class of a text."""

    label: str | list[str] | None = Field(
        description="Null if the learner is not sure enough. A list if the task's texts have several labels."
    )
    certainty: float
    probabilities: dict[str, float]


class Predictions(BaseModel):
    """The predictions of the inputs, in their order."""

    predictions: list[ClassPrediction | dict[str, Any]]


class Health(BaseModel):
    """Whether the service answers."""

    status: str
    replicas: int
    tasks: int


class Problem(BaseModel):
    """Why a request was refused."""

    where: str = Field(description="The field at fault.")
    found: str
    remedy: str


class ProblemOut(BaseModel):
    """An error."""

    error: Problem


@dataclass(frozen=True)
class Forms:
    """The models of the bodies of requests."""

    new_task: type[BaseModel]
    more: type[BaseModel]
    query: type[BaseModel]


def make_forms(codecs: Mapping[str, Codec], limits: Limits) -> Forms:
    """The forms for a learner's families. What families other than classes of texts take is left to their codecs."""
    examples = tuple(_example(name, codec, limits) for name, codec in codecs.items())
    inputs = tuple(_input(name, codec, limits) for name, codec in codecs.items())
    texts = all(codec.reads == "text" and codec.has_classes for codec in codecs.values())
    example_list = Annotated[
        list[Union[examples]],  # type: ignore[valid-type]  # noqa: UP007  they are known only now
        Field(min_length=1, max_length=limits.examples, description="What the task is learned from."),
    ]
    input_list = Annotated[
        list[Union[inputs]],  # type: ignore[valid-type]  # noqa: UP007
        Field(max_length=limits.texts, description="What is to be predicted of."),
    ]
    wrong = Annotated[
        float | None,
        Field(
            description=f"Answers are withheld where more than this share would be wrong: one of {list(WRONG)}.",
            json_schema_extra={"enum": [None, *WRONG]},
        ),
    ]
    name = Annotated[str | None, Field(max_length=limits.label_characters, description="For people; need not differ.")]
    family = Annotated[str | None, Field(json_schema_extra={"enum": [None, *codecs]}, description="The task's family.")]
    abstain: Any = Annotated[bool, Field(description="Whether answers that are not certain are withheld.")]
    shown = {"examples": EXAMPLES} if texts else {}
    return Forms(
        create_model(
            "NewTask",
            __config__=_config({"name": "requests", **shown}),
            examples=(example_list, ...),
            name=(name, None),
            wrong=(wrong, None),
            family=(family, None),
        ),
        create_model("MoreExamples", __config__=_config(shown), examples=(example_list, ...)),
        create_model(
            "Query",
            __config__=_config({"inputs": INPUTS} if texts else {}),
            inputs=(input_list, ...),
            abstain=(abstain, True),
        ),
    )


def _config(example: Mapping[str, Any]) -> ConfigDict:
    return ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": [dict(example)]} if example else {})


def _example(name: str, codec: Codec, limits: Limits) -> Any:
    if not (codec.reads == "text" and codec.has_classes):
        return dict[str, Any]
    fields: dict[str, Any] = {key: (_text(limits.characters), ...) for key in codec.given}
    label = _text(limits.label_characters)
    several = Annotated[list[label], Field(max_length=limits.classes)]  # type: ignore[valid-type]
    fields[codec.answer] = (Annotated[label | several, Field(description="A list: a text may have several.")], ...)
    return create_model(f"Example of {name}", __config__=STRICT, **fields)


def _input(name: str, codec: Codec, limits: Limits) -> Any:
    if not (codec.reads == "text" and codec.has_classes):
        return Any
    if len(codec.given) == 1:
        return _text(limits.characters)
    fields: dict[str, Any] = {key: (_text(limits.characters), ...) for key in codec.given}
    return create_model(f"Input of {name}", __config__=STRICT, **fields)


def _text(characters: int) -> Any:
    return Annotated[str, StringConstraints(min_length=1, max_length=characters)]
