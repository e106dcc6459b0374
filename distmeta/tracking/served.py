"""The code of a registered model: MLflow copies this file into the model and runs it, to answer requests.

It is an entry point, like the command line: no other file imports it. The package is found in the model, and imported
from there unless this process has imported it before.
"""

import sys
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException


class Served(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """A learner, which learns the task of each request from its examples, or a task, which only predicts."""

    def load_context(self, context: Any) -> None:
        """Reads the learner or the task."""
        folders = context.artifacts
        if folders["package"] not in sys.path:
            sys.path.insert(0, folders["package"])
        import distmeta

        self.task = distmeta.load_task(folders["task"]) if "task" in folders else None
        self.learner = distmeta.load(folders["learner"]) if "learner" in folders else None

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> list[Any]:
        """Predictions as `Task.answers` gives them: one for each input of a task; of a learner, a list for each row.

        Args:
            context: of MLflow; not used.
            model_input: of a task, its inputs. Of a learner, a task in each row: `examples`, `queries`, and `family`
                if the learner has several.
            params: `abstain`: false asks for an answer to each input, however unsure.

        Raises:
            MlflowException: an input cannot be used. A server answers it with 400.
        """
        abstain = (params or {}).get("abstain", True)
        rows = model_input.to_dict("records")
        if self.task is not None:
            inputs = rows if len(self.task.codec.given) > 1 else model_input.iloc[:, 0].tolist()
            return _checked(lambda: list(self.task.answers(inputs, abstain)), "")
        return [
            _checked(lambda row=row: self._learned(row, abstain), f"task {number}: " if len(rows) > 1 else "")
            for number, row in enumerate(rows, 1)
        ]

    def _learned(self, row: dict[str, Any], abstain: bool) -> list[Any]:
        assert self.learner is not None
        codecs = self.learner.codecs
        family = row.get("family", next(iter(codecs)))
        if family not in codecs:
            raise MlflowException.invalid_parameter_value(f"family is {family!r}; give {' or '.join(codecs)}")
        answers = [example.get(codecs[family].answer) for example in row["examples"]]
        task = self.learner.adapt(row["examples"], answers, family=family, expect=False)
        return list(task.answers(row["queries"], abstain))


def _checked(answer: Any, where: str) -> list[Any]:
    """What `answer` returns; a user's mistake becomes MLflow's error for bad input."""
    from distmeta.errors import UserError

    try:
        found: list[Any] = answer()
    except UserError as error:
        raise MlflowException.invalid_parameter_value(f"{where}{error}") from error
    return found


mlflow.models.set_model(Served())
