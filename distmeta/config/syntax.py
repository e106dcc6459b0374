"""Safe YAML, read and written, whose plain scalars stay as typed until it is known what their key takes.

`yes`, `2024-11-22` and `1:30` are text, as in YAML 1.2; PyYAML follows YAML 1.1, where they are not.
"""

import re
from typing import Any

import yaml

from distmeta.errors import ConfigError

MAX_NODES = 100_000  # with aliases written out; a file of a hundred lines may stand for billions
_PLAIN, _STRING, _MERGE = "plain", "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
_TAGS = {_PLAIN, _STRING, "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"}
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}
_WHOLE = re.compile(r"[-+]?[0-9][0-9_]*|0x[0-9a-fA-F]+|0o[0-7]+")
_NUMBER = re.compile(r"[-+]?(\.[0-9][0-9_]*|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_TWO_MEANINGS = re.compile(r"[-+]?0[0-9_]*[1-9][0-9_]*")  # 010 is 8 in YAML 1.1, and 10 in YAML 1.2


class Plain(str):
    """A value as typed, without quotes: text, or what `scalar` makes of it."""

    __slots__ = ()


def scalar(text: str, key: str, may_be_text: bool = True) -> Any:
    """None, true, false, a number or text, by the core schema of YAML 1.2.

    Args:
        text: the plain value.
        key: for messages.
        may_be_text: the key might take a number or text: a message says how to write text.

    Raises:
        ConfigError: a number with a leading 0, or with too many digits.
    """
    if text in (word := text.lower(), word.upper(), word.capitalize()) and word in _WORDS:
        return _WORDS[word]
    digits = text.replace("_", "")
    try:
        if _TWO_MEANINGS.fullmatch(text):
            octal = [int(digits, 8)] if not set(digits) & set("89") else []
            numbers = " or ".join(dict.fromkeys(f"{number}" for number in (int(digits), *octal)))
            remedy = f"write {numbers}" + (f", or for text {quoted(key, text)}" if may_be_text else "")
            raise ConfigError(key, f"{text} with its leading 0 can mean {numbers}", remedy)
        if _WHOLE.fullmatch(text):
            return int(digits, 0)
    except ValueError as error:
        raise ConfigError(key, f"a number of {len(text)} digits", "give one of fewer digits") from error
    if _NUMBER.fullmatch(text):
        return float(digits)
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return str(text)


def quoted(key: str, text: str) -> str:
    """How to set a key to text that looks like something else, in a shell and in a file."""
    return f"""'{key}="{text}"' in a shell, {key.rpartition(".")[2]}: "{text}" in a file"""


def parse_setting(key: str, text: str) -> Any:
    """The value of ``key=text``: YAML if it begins with a bracket or a quote, else as typed."""
    if text.lstrip()[:1] not in ("[", "{", '"', "'"):
        return Plain(text.strip())
    return parse_yaml(text, key, f"fix the YAML, or for text write {quoted(key, 'TEXT')}")


class _Loader(yaml.SafeLoader):
    """Composes nodes; marks plain scalars and refuses a key given twice."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode and implicit[0]:
            return _MERGE if value == "<<" else _PLAIN
        return str(super().resolve(kind, value, (False, True)))  # type: ignore[no-untyped-call]

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            where = f"line {node.start_mark.line + 1}"
            raise ConfigError(twice, f"given twice in the mapping at {where}", "keep one")
        return node


def parse_yaml(text: str, source: str, remedy: str = "fix the YAML") -> Any:
    """Parses safe YAML into dictionaries, lists and strings; an error names its line.

    Aliases become copies, so that a later change of one section leaves the others as they are.

    Args:
        text: one document.
        source: where it is from, for messages.
        remedy: for what is not valid YAML.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
        return None if node is None else _Tree(source).of(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source} line {mark.line + 1}" if mark else source
        raise ConfigError(where, f"not valid YAML ({getattr(error, 'problem', error)})", remedy) from error
    except (ValueError, OverflowError) as error:  # of a character that does not exist, such as "\UFFFFFFFF"
        raise ConfigError(source, f"not valid YAML ({error})", remedy) from error
    except RecursionError as error:
        found = "not valid YAML (nested too deeply, or an alias stands for what it is in)"
        raise ConfigError(source, found, remedy) from error


class _Tree:
    """What the nodes of a document stand for."""

    def __init__(self, source: str) -> None:
        self.source, self.nodes = source, 0

    def of(self, node: yaml.Node) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise self._fault(node, f"its aliases stand for over {MAX_NODES:,} values", "use fewer aliases")
        if node.tag not in _TAGS and node.tag != _MERGE:
            raise self._fault(node, f"the tag {node.tag!r} is not for settings", "leave the tag out")
        if isinstance(node, yaml.SequenceNode):
            return [self.of(item) for item in node.value]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node)
        if node.tag != _STRING:
            return Plain(node.value)
        # JSON escapes a character such as 😀 in two halves.
        return node.value.encode("utf-16", "surrogatepass").decode("utf-16")

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        """Its own keys count, then those of the first merged mapping that has them."""
        own, merged = dict[str, Any](), dict[str, Any]()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._fault(key, "a key that is not text", "give a name and a colon")
            if key.tag != _MERGE:
                own[key.value] = self.of(value)
                continue
            for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if not isinstance(part, yaml.MappingNode):
                    raise self._fault(part, "'<<' takes a mapping or a list of mappings", "give an alias of one")
                merged = {**self.of(part), **merged}
        return {**merged, **own}

    def _fault(self, node: yaml.Node, found: str, remedy: str) -> ConfigError:
        return ConfigError(f"{self.source} line {node.start_mark.line + 1}", found, remedy)


class _Dumper(yaml.SafeDumper):
    """Puts text in quotes that would be read back as something else."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    try:
        is_text = isinstance(scalar(text, ""), str)
    except ConfigError:
        is_text = False
    return dumper.represent_scalar(_STRING, text, style=None if is_text else "'")


_Dumper.add_representer(str, _text)


def dump_yaml(content: dict[str, Any]) -> str:
    """Settings as YAML that `parse_yaml` reads back as they are."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
