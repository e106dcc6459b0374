"""What all sections of a configuration are made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Ways = Annotated[int, Field(ge=2)]
Sample = Annotated[int, Field(ge=2)]  # one episode has no interval
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Patterns = str | list[str]


class Section(BaseModel):
    """A section whose keys are all known."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
