import pytest

from mengzi_mt.errors import InputError
from mengzi_mt.yaml_io import load_mapping, load_yaml, read_text


def write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "file.yaml"
    path.write_text(text, encoding=encoding)
    return path


def test_mapping_is_read_with_chinese_anchors_and_merge_keys(tmp_path):
    path = write(tmp_path, "a: &base {词: 好}\nb:\n  <<: *base\n  c: 2\n")
    assert load_mapping(path) == {"a": {"词": "好"}, "b": {"词": "好", "c": 2}}


def test_byte_order_mark_is_dropped(tmp_path):
    assert load_mapping(write(tmp_path, "a: 1\n", "utf-8-sig")) == {"a": 1}


@pytest.mark.parametrize(
    ("text", "problem", "line"),
    [
        ("a: 1\nb: 2\na: 3\n", "'a' stands twice", 3),
        ("a:\n  x: 1\n  x: 2\n", "'x' stands twice", 3),
        ("a: 1\nb: !!python/object/apply:os.system ['true']\n", "python/object/apply:os.system", 2),
        ("a: 1\nb: !!python/name:os.system\n", "python/name", 2),
        ("a: !Template {}\n", "!Template", 1),
        ("a: 1\n  b: 2\n", "mapping values are not allowed", 2),
        ("a: [1\nb: 2\n", "Not valid YAML", 2),
        ("? [a]\n: 1\n", "plain value", 1),
        ("a: *nowhere\n", "alias", 1),
        ("[" * 100_000, "levels of nesting", 1),
    ],
)
def test_bad_yaml_names_file_and_line(tmp_path, text, problem, line):
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        load_yaml(path)
    assert problem in caught.value.what
    assert caught.value.where.startswith(f"{path}, line {line}")


@pytest.mark.parametrize("text", ["a: 2001-13-45\n", "a: !!int abc\n", "a: \x00\n"])
def test_malformed_values_are_input_errors(tmp_path, text):
    with pytest.raises(InputError, match="Not valid YAML"):
        load_yaml(write(tmp_path, text))


def test_top_level_must_be_a_mapping(tmp_path):
    with pytest.raises(InputError, match="mapping at its top level"):
        load_mapping(write(tmp_path, "- a\n"))


def test_other_encoding_missing_file_and_folder_are_input_errors(tmp_path):
    with pytest.raises(InputError, match="no UTF-8 text"):
        read_text(write(tmp_path, "词: 好\n", "gb18030"))
    with pytest.raises(InputError, match="does not exist"):
        read_text(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        read_text(tmp_path)
