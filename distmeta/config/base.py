"""Value types and base class of the configuration's sections."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Ways = Annotated[int, Field(ge=2)]
Sample = Annotated[int, Field(ge=2)]  # one episode has no confidence interval
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Patterns = str | list[str]


class Section(BaseModel):
    """A section that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
