"""The page of an exported task, in the form of the Hugging Face hub's model cards.

https://huggingface.co/docs/hub/model-cards: metadata in YAML, then Markdown.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from distmeta.errors import printable, shortened
from distmeta.report.certainty import ALWAYS
from distmeta.use.task import Task

CLASSES, LETTERS = 100, 200  # most classes that the page lists, and most letters of each
USE = {
    "hf": """With transformers, 4.57 or later:

```python
from transformers import pipeline

classify = pipeline("text-classification", model="path/to/this/folder", truncation=True)
classify("a text")              # the best class and its probability
classify("a text", top_k=None)  # all classes
```

`truncation=True` cuts longer texts to {max_length} tokens, as in meta-training; without it they are an error.""",
    "onnx": """```python
import json
import numpy as np, onnxruntime
from tokenizers import Tokenizer

labels = json.load(open("labels.json", encoding="utf-8"))["labels"]
tokens = Tokenizer.from_file("tokenizer.json").encode_batch(["a text"])  # padded, and cut to {max_length} tokens
inputs = {{
    "input_ids": np.array([text.ids for text in tokens]),
    "attention_mask": np.array([text.attention_mask for text in tokens]),
}}
logits, probabilities = onnxruntime.InferenceSession("model.onnx").run(None, inputs)
print(labels[probabilities[0].argmax()], probabilities[0].max())
```""",
}


def card(task: Task, form: str, name: str, max_length: int) -> str:
    """The page.

    Args:
        task: what was exported.
        form: hf or onnx.
        name: of the model.
        max_length: the most tokens of a text.
    """
    answers = [example[task.codec.answer] for example in task.examples]
    counts = Counter(label for answer in answers for label in (answer if isinstance(answer, list) else [answer]))
    classes = [f"- {literal(label)}: {counts[label]}" for label in task.names[:CLASSES]]
    if len(task.names) > CLASSES:
        classes.append(f"- and {len(task.names) - CLASSES} more")
    parts = [
        f"---\n{_metadata(task, form, name)}\n---",
        f"# {literal(name)}",
        f"A classifier of texts into {len(task.names)} classes. A meta-trained learner learned it from "
        f"{len(task.examples)} labelled examples with distmeta, which is not "
        "needed to use it.",
        "## Use",
        USE[form].format(max_length=max_length),
        *_abstention(task),
        "## Classes and their number of examples",
        "\n".join(classes),
        "## Figures",
        *_figures(task),
        "## Data",
        _data(task),
        "## Limits",
        "\n".join(f"- {limit}" for limit in _limits(task, form, max_length)),
    ]
    return "\n\n".join(parts) + "\n"


def literal(text: str) -> str:
    """A user's text in Markdown, as it stands: code, between more backticks than it has in a row."""
    text = shortened(printable(text), LETTERS)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"


def _metadata(task: Task, form: str, name: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = []
    if task.expected:
        results = [
            EvalResult(
                task_type="text-classification",
                dataset_type="private",
                dataset_name="the examples, left out in turn",
                metric_type="accuracy",
                metric_value=round(task.expected.accuracy, 4),
            )
        ]
    data = ModelCardData(
        model_name=name,
        library_name={"hf": "transformers", "onnx": "onnx"}[form],
        pipeline_tag="text-classification",
        tags=["text-classification", "few-shot", "meta-learning", "distmeta"],
        eval_results=results or None,
    )
    return str(data.to_yaml())


def _abstention(task: Task) -> list[str]:
    if task.limits:
        listed = "\n".join(f"- {literal(name)}: {limit:.4f}" for name, limit in list(task.limits.items())[:CLASSES])
        return [f"A text has the classes whose probability reaches their threshold, `label_thresholds`:\n\n{listed}"]
    if not task.threshold:
        return []
    if task.threshold >= ALWAYS:
        return ["No certainty was found at which answers are right often enough: none should be trusted."]
    wrong = next((share for share, its in _thresholds(task) if its == task.threshold), None)
    promise = (
        ""
        if wrong is None
        else f": then {wrong:.0%} of the answers that were given to meta-validation tasks were wrong"
    )
    return [f"Give no answer if its probability is below {task.threshold:.4f}, `abstention_threshold`{promise}."]


def _thresholds(task: Task) -> list[Any]:
    return list(task.calibration["thresholds"]) if task.calibration else []


def _figures(task: Task) -> list[str]:
    lines = ["- It was not tested: no class has two examples, of which one could be left out."]
    if (found := task.expected) is not None:
        share = f"{found.accuracy:.1%} (95 % interval {found.low:.1%} to {found.high:.1%})"
        lines = [f"- Accuracy on examples that it had not learned from: {share}, {found.right} of {found.tested}."]
    if (f1 := task.expected_f1) is not None:
        interval = f"95 % interval {f1.low:.3f} to {f1.high:.3f}"
        lines = [f"- F1 on {f1.tested} examples that it had not learned from: micro {f1.micro_f1:.3f} ({interval}), "]
        lines[0] += f"macro {f1.macro_f1:.3f}."
    if (its := task.calibration) is None:
        return ["\n".join([*lines, "- The learner was not calibrated: do not take its probabilities for frequencies."])]
    shape = ", ".join(f"{value:g} {name}" for name, value in its["shape"].items())
    error = f"{its['after']:.3f}, and {its['before']:.3f} without it"
    lines.append(
        f"- Expected calibration error, with the temperature {its['temperature']:.3f} that is part of the model: "
        f"{error}. Both are of {its['episodes']} meta-validation tasks ({shape}), not of this task."
    )
    return ["\n".join(lines)]


def _data(task: Task) -> str:
    about = task.learner.about
    family, model = about["families"][task.family], about["model"]
    body = f"{model['name']} {model['architecture'].get('model_type', '')}".strip()
    return (
        f"The learner: {literal(about['algorithm']['name'])} on {literal(body)}, "
        f"meta-trained for {about['outer_steps']} steps on {len(family['meta_train'])} classes of texts with the hash "
        f"{literal(family['source'][:16])}. Its meta-parameters have the hash "
        f"{literal(about['meta_params_sha256'][:16])}. The examples are not part of this folder."
    )


def _limits(task: Task, form: str, max_length: int) -> list[str]:
    limits = [
        "It knows these classes only. A text of another class gets one of them, unless its probability is too low.",
        f"It was learned from {len(task.examples)} examples. On texts that differ from them its accuracy does too.",
        f"It reads the first {max_length} tokens of a text.",
        "What its encoder was trained on is not known here; see its own card, and its licence.",
    ]
    if form == "hf":
        limits.append(
            "It computes in float32. Its class takes the first token's state and a tanh; the mean of the states and "
            "unit length are expressed by one more layer and by states that are kept twice, so it is larger and slower "
            "than the encoder. Half precision gives other numbers, and training it further is not meant."
        )
    return limits
