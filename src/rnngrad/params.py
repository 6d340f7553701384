"""params.yaml as frozen, typed objects: the one configuration of the study."""

import re
import reprlib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from rnngrad.errors import InputError, needs

with needs("study"):
    from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator
    from ruamel.yaml import YAML

Item = TypeVar("Item")


def _distinct(values: list[Item]) -> list[Item]:
    if len(set(values)) < len(values):
        raise ValueError("must differ from one another")
    return values


def _one_word(text: str) -> str:
    # other characters are blanks between tokens
    if len(re.findall(r"[^\s!-&(-/:-@\[-`{-~]+", text)) != 1:
        raise ValueError("must be one word, since distances are counted in words")
    return text


Cell = Literal["rnn", "lstm", "gru"]
Padding = Literal["pre", "none"]
State = Literal["uniform", "zero"]
Share = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Several = Annotated[list[Item], Field(min_length=1), AfterValidator(_distinct)]
Size = Annotated[int, Field(ge=1, lt=2**31)]
Positive = Annotated[float, Field(gt=0)]
# it becomes a key in MLflow and stands in the report
Name = Annotated[str, Field(pattern="^[A-Za-z0-9_]{1,50}$")]


class _Section(BaseModel):
    # strict: a number in quotes is a slip, not a number
    model_config = {"frozen": True, "extra": "forbid", "strict": True, "allow_inf_nan": False}

    @classmethod
    def checked(cls, values: Any, *place: str) -> Self:
        """Make a section of what stands at this place of params.yaml."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            # an unknown key comes first: it explains the missing one beside it
            first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
            key = ".".join(str(part) for part in (*place, *first["loc"]) if part != "[key]")
            if first["type"] == "extra_forbidden":
                line = f"{key}: unknown key; remove it or correct its name"
                raise InputError(line) from error
            message, given = first["msg"].removeprefix("Value error, "), ""
            if first["type"] not in {"missing", "value_error"}:
                given = f", got {reprlib.repr(first['input'])}"
            more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
            line = f"{key or 'top level'}: {message[0].lower()}{message[1:]}{given}{more}"
            raise InputError(line) from error


class DemoParams(_Section):
    comments_per_class: Annotated[Size, Field(ge=20)]
    label_noise: Annotated[float, Field(ge=0, lt=0.5)]
    seed: Seed


class DataParams(_Section):
    source: Literal["demo", "jigsaw", "csv"]
    path: str | None
    label: str
    demo: DemoParams

    @model_validator(mode="after")
    def _csv_has_a_path(self) -> Self:
        if self.source == "csv" and not self.path:
            raise ValueError("source csv needs data.path, the CSV file to read")
        if self.source != "csv" and self.path:
            raise ValueError(f"source {self.source} reads no data.path; set it to null")
        return self


class SampleParams(_Section):
    per_class: Size | None
    replace_fraction: Annotated[float, Field(ge=0, lt=1)]
    filler: Annotated[str, AfterValidator(_one_word)]
    validation: Share
    test: Share
    seed: Seed

    def split_sizes(self, comments: tuple[int, int]) -> dict[str, int]:
        """Count those of a class in each split, of so many comments of class 0 and 1.

        InputError where a class has none or too few, or a split would have none.
        """
        rarest = min(comments)
        if rarest < (self.per_class or 0):
            raise InputError(
                f"sample.per_class asks for {self.per_class} comments of each class, but class "
                f"{comments.index(rarest)} has {rarest}; lower it, or leave it empty for all"
            )
        size = self.per_class or rarest
        validation, test = round(self.validation * size), round(self.test * size)
        sizes = {"train": size - validation - test, "validation": validation, "test": test}
        if smallest := [split for split, count in sizes.items() if count < 1]:
            raise InputError(
                f"{size} comments of each class, of {comments[0]} and {comments[1]}, leave none "
                f"for the {smallest[0]} split; give more, or change sample.validation and "
                "sample.test"
            )
        return sizes


class EmbedParams(_Section):
    vectors: Literal["corpus", "glove", "file"]
    path: str | None
    dimensions: Size
    vocabulary: Literal["sample", "train"]
    max_length: Size | None

    @model_validator(mode="after")
    def _file_has_a_path(self) -> Self:
        if self.vectors == "file" and not self.path:
            raise ValueError("vectors file needs embed.path, the vectors file to read")
        if self.vectors != "file" and self.path:
            raise ValueError(f"vectors {self.vectors} read no embed.path; set it to null")
        return self


class TrainParams(_Section):
    padding: Several[Padding]
    seeds: Several[Seed]
    hidden: Size
    initializer: Literal["keras", "torch"]
    forget_bias: float
    epochs: Size
    batch_size: Size
    learning_rate: Annotated[Positive, Field(le=1)]  # Adam moves each weight by as much
    clip_norm: Positive | None


class ProbeParams(_Section):
    comments: Size
    initial_state: State
    spectral_steps: Annotated[int, Field(ge=2, le=100_000)]
    seed: Seed


class Setting(_Section):
    """One setting of the question "why is it zero?"; conditions differ from it in one factor."""

    cells: Several[Cell]
    weights: Literal["initial", "trained"]
    trained_with: Padding
    initializer: Literal["keras", "torch", "identity", "chrono"]
    forget_bias: float
    units: Size
    state_nonlinearity: Literal["tanh", "sigmoid"]
    input: Literal["comments", "emptied_comments", "random_tokens"]
    sliced_input: bool
    padding: Padding
    steps: Annotated[Size, Field(ge=3)]
    initial_state: State
    arithmetic: Literal["log", "float64", "float32", "float32_flushed"]
    statistic: Literal["column_sum", "frobenius", "spectral"]
    halved_mean: bool

    @model_validator(mode="after")
    def _choices_fit_together(self) -> Self:
        made_for = {"identity": ["rnn"], "chrono": ["lstm"]}.get(self.initializer, self.cells)
        if self.cells != made_for:
            name, cell = self.initializer, made_for[0]
            raise ValueError(f"initializer {name} is made for {cell}: set cells: [{cell}]")
        if self.statistic != "column_sum" and self.arithmetic != "log":
            raise ValueError(f"statistic {self.statistic} is computed with arithmetic log only")
        untrained_lstm = self.cells == ["lstm"] and self.weights == "initial"
        if self.state_nonlinearity == "sigmoid" and not untrained_lstm:
            raise ValueError("state_nonlinearity sigmoid: untrained LSTMs only, cells: [lstm]")
        return self


class Case(_Section, extra="allow"):
    """The name of the factor that a case varies, and what it changes of the question's setting."""

    factor: Annotated[str, Field(pattern=r"^\w[\w ,.()-]*$")]  # it stands in the report


class ConditionsParams(_Section):
    seeds: Several[Seed]
    comments: Size
    streams: Size
    seed: Seed
    question: Setting
    cases: Annotated[dict[Name, Case], Field(min_length=1)]

    @model_validator(mode="after")
    def _the_question_is_read_as_it_is(self) -> Self:
        # the answer compares the true values of untrained models with everything else
        read = {"weights": "initial", "arithmetic": "log", "statistic": "column_sum"}
        for name, value in {**read, "halved_mean": False}.items():
            if getattr(self.question, name) != value:
                raise ValueError(f"question.{name} is {value}; set another one in a case")
        return self

    def setting_of(self, case: str) -> Setting:
        """Give the question's setting with the case's own block on top."""
        changes = self.cases[case].model_dump(exclude={"factor"})
        setting = Setting.checked(self.question.model_dump() | changes, "conditions", "cases", case)
        trained, own = setting.weights == "trained", setting.initializer
        # keys, where they change nothing, and why
        ignored = (
            ("initializer forget_bias units", trained, "trained weights have that of training"),
            ("trained_with", not trained, "initial weights are not trained"),
            ("sliced_input", trained, "trained models read all features"),
            ("padding", setting.input != "comments", f"of input {setting.input} nothing is padded"),
            ("forget_bias", own != "keras", f"initializer {own} takes none"),
            ("forget_bias", "lstm" not in setting.cells, "it is the LSTM's alone"),
        )
        for keys, here, why in ignored:
            if here and (given := changes.keys() & keys.split()):
                raise InputError(f"conditions.cases.{case}.{min(given)}: {why}; remove it")
        return setting


class Params(_Section):
    data: DataParams
    sample: SampleParams
    embed: EmbedParams
    train: TrainParams
    cells: Annotated[dict[Cell, dict[str, Any]], Field(min_length=1)]
    probe: ProbeParams
    conditions: ConditionsParams

    def has(self, cell: str) -> bool:
        """Say whether models of ``cell`` are trained; InputError where there is no such cell."""
        if cell not in get_args(Cell):
            raise InputError(f"{cell}: no such cell; use one of {', '.join(get_args(Cell))}")
        return cell in self.cells

    def train_of(self, cell: str) -> TrainParams:
        """Give the training settings of ``cell``: the shared ones with its own block on top."""
        block = self.cells[cell]  # type: ignore[index]
        if "forget_bias" in block and cell != "lstm":
            raise InputError(f"cells.{cell}.forget_bias: it is the LSTM's alone; remove it")
        if "padding" in block:
            raise InputError(f"cells.{cell}.padding: all cells have train.padding; remove it")
        settings = TrainParams.checked(self.train.model_dump() | block, "cells", cell)
        own = settings.initializer
        if "forget_bias" in block and own != "keras":
            raise InputError(f"cells.{cell}.forget_bias: initializer {own} takes none; remove it")
        return settings


def read_params(path: str | Path = "params.yaml") -> Params:
    """Read and check a params.yaml, see :func:`check_params`."""
    try:
        return check_params(Path(path).read_bytes(), path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def check_params(content: str | bytes, path: str | Path) -> Params:
    """Check what a params.yaml holds, every cell's and every condition's settings as well.

    An InputError names the file ``path`` and the key that is unknown, missing or ill-typed.
    """
    try:
        # YAML 1.2, as DVC reads it: 1e-3 is a number
        values = YAML(typ="safe", pure=True).load(content)
    except Exception as error:  # !!int x, 5,000 digits or 500 brackets raise other errors
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    try:
        params = Params.checked(values)
        for cell in params.cells:
            params.train_of(cell)
        for case in params.conditions.cases:
            params.conditions.setting_of(case)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return params
