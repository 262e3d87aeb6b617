from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from auto_merge.config.yaml_tree import MAX_BYTES, read_tree, read_value
from auto_merge.errors import ConfigError


def read(text: str, name: str = "x.yaml") -> dict[str, object]:
    Path(name).write_text(text)
    return read_tree(Path(name)).data


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text)
    message = str(caught.value)
    assert "\n" not in message
    return message


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=8),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text("abcxyz_", min_size=1, max_size=6), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(plain)
def test_reads_what_yaml_writes(value: object) -> None:
    assert read_value(yaml.safe_dump(value, allow_unicode=True), "value") == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e3", 1000.0),
        ("1E-2", 0.01),
        (".5", 0.5),
        ("3.", 3.0),
        ("1_000", 1000),
        ("010", 10),
        ("-7", -7),
        ("yes", True),
        ("Off", False),
        ("~", None),
        ("null", None),
        ("", ""),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("0x1f", "0x1f"),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ("!!float 1", 1.0),
        ("[a, {b: 2}]", ["a", {"b": 2}]),
    ],
)
def test_scalars(text: str, value: object) -> None:
    result = read_value(text, "value")
    assert result == value
    assert type(result) is type(value)


def test_keys_are_texts() -> None:
    assert read("on: 1\n5: 2\nnull: 3\n") == {"on": 1, "5": 2, "null": 3}


def test_lines_and_folders_are_remembered() -> None:
    Path("sub").mkdir()
    Path("sub/part.yaml").write_text("\n\nc: 1\nd: [x,\n  y]\n")
    Path("x.yaml").write_text("a: 1\nb: !include sub/part.yaml\n")
    tree = read_tree(Path("x.yaml"))
    assert tree.data == {"a": 1, "b": {"c": 1, "d": ["x", "y"]}}
    assert str(tree.place(("a",))) == "x.yaml:1"
    assert str(tree.place(("b",))) == "x.yaml:2"
    assert str(tree.place(("b", "c"))) == "sub/part.yaml:3"
    assert str(tree.place(("b", "d", 1))) == "sub/part.yaml:5"
    assert tree.place(("b", "d", 1)).folder == Path("sub")
    assert str(tree.place(("b", "c", "absent", 3))) == "sub/part.yaml:3"


def test_includes_are_relative_to_their_own_file() -> None:
    Path("one/two").mkdir(parents=True)
    Path("one/a.yaml").write_text("deeper: !include two/b.yaml\nvalue: !include v.yaml\n")
    Path("one/two/b.yaml").write_text("back: !include ../v.yaml\n")
    Path("one/v.yaml").write_text("[1, 2]\n")
    data = read("a: !include one/a.yaml\n")
    assert data == {"a": {"deeper": {"back": [1, 2]}, "value": [1, 2]}}


def test_missing_include_names_the_file() -> None:
    Path("lfs.yaml").write_text("a: 1\n")
    assert refused("s:\n  t: !include lfss.yaml\n") == (
        "x.yaml:2: s.t: included file not found: lfss.yaml; did you mean 'lfs.yaml'?"
    )
    assert refused("s: !include\n") == "x.yaml:1: s: !include needs a file name"


def test_include_cycles_are_refused() -> None:
    assert refused("a: !include x.yaml\n") == "x.yaml:1: a: x.yaml includes itself"
    Path("y.yaml").write_text("b: !include z.yaml\n")
    Path("z.yaml").write_text("c: !include y.yaml\n")
    assert refused("a: !include y.yaml\n") == "z.yaml:1: a.b.c: y.yaml includes itself"


def test_one_file_may_be_included_twice() -> None:
    Path("y.yaml").write_text("1\n")
    assert read("a: !include y.yaml\nb: !include y.yaml\n") == {"a": 1, "b": 1}


def test_duplicate_keys_are_refused() -> None:
    assert refused("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n") == (
        "x.yaml:5: b.c: key given twice, first at x.yaml:3"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !function tasks.f\n", "a: !function is refused, configuration files cannot run code"),
        (
            "a: !!python/object/apply:os.system ['true']\n",
            "a: tag !!python/object/apply:os.system is refused; only !include is known",
        ),
        ("a: !!binary aGk=\n", "a: tag !!binary is refused; only !include is known"),
        ("a: !!set {x}\n", "a: tag !!set is refused; only !include is known"),
        ("a: !mine 1\n", "a: tag !mine is refused; only !include is known"),
        ("a: !!int many\n", "a: 'many' cannot be read as int"),
        (f"a: {'9' * 5000}\n", "a: '999"),
        ("? [a, b]\n: 1\n", "a key must be a word"),
        ("a: {<<: 3}\n", "a: << needs a section"),
    ],
)
def test_only_plain_data(text: str, message: str) -> None:
    assert refused(text).startswith(f"x.yaml:1: {message}")


def test_merge_keys() -> None:
    text = "base: &b {x: 1, y: 2}\nother: &o {y: 5, z: 6}\nc:\n  y: 3\n  <<: [*b, *o]\n"
    assert read(text)["c"] == {"x": 1, "y": 3, "z": 6}


def test_aliases_give_separate_values() -> None:
    data = read("a: &a [1]\nb: *a\n")
    assert data == {"a": [1], "b": [1]}
    assert data["a"] is not data["b"]


@pytest.mark.parametrize("merge", [False, True])
def test_alias_bombs_are_refused_quickly(merge: bool) -> None:
    lines = ["a0: &a0 {x: 1}"]
    for level in range(1, 30):
        inner = ", ".join([f"*a{level - 1}"] * 9)
        value = f"{{<<: [{inner}]}}" if merge else f"[{inner}]"
        lines.append(f"a{level}: &a{level} {value}")
    start = time.perf_counter()
    assert re.search(r"more than 20000 values; use fewer aliases$", refused("\n".join(lines)))
    assert time.perf_counter() - start < 2


def test_self_reference_and_depth_are_refused() -> None:
    assert refused("a: &a [*a]\n").endswith("nested more than 40 levels deep")
    assert refused("a: " + "[" * 60 + "]" * 60).endswith("nested more than 40 levels deep")
    assert refused("a: " + "[" * 3000 + "]" * 3000).endswith("nested more than 40 levels deep")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.yaml: the file is empty"),
        ("# only a comment\n", "x.yaml: the file is empty"),
        ("- a\n- b\n", "x.yaml: a configuration must be a section of keys, got a list"),
        ("hello\n", "x.yaml: a configuration must be a section of keys, got 'hello'"),
        ("a: 1\nb: c: 2\n", "x.yaml:2: not valid YAML: mapping values are not allowed here"),
        ("a: *b\n", "x.yaml:1: not valid YAML: found undefined alias 'b'"),
        ("a: 1\n---\nb: 2\n", "x.yaml:2: not valid YAML: expected a single document"),
        ("a: \x07\n", "x.yaml: not valid YAML: unacceptable character"),
    ],
)
def test_bad_documents(text: str, message: str) -> None:
    assert refused(text).startswith(message)


def test_bad_files() -> None:
    with pytest.raises(ConfigError, match=r"^absent.yaml: no such file$"):
        read_tree(Path("absent.yaml"))
    Path("config.yaml").write_text("a: 1")
    with pytest.raises(ConfigError, match=r"^confg.yaml: no such file; did you mean 'config.yaml'"):
        read_tree(Path("confg.yaml"))
    Path("folder").mkdir()
    with pytest.raises(ConfigError, match=r"^folder: is a folder, not a file"):
        read_tree(Path("folder"))
    Path("x.yaml").write_bytes(b"\x80PK\x03")
    with pytest.raises(ConfigError, match=r"^x.yaml: not a text file in UTF-8"):
        read_tree(Path("x.yaml"))
    Path("x.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match=r"^x.yaml: 1048577 bytes; a configuration has at most"):
        read_tree(Path("x.yaml"))


def test_byte_order_mark_is_skipped() -> None:
    Path("x.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_tree(Path("x.yaml")).data == {"a": 1}
