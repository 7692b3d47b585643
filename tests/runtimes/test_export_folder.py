import json

import pytest

from mengzi_mt.errors import InputError
from mengzi_mt.runtimes.export_folder import Export, describe_files, is_export, read_export, write_export


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "encoder.onnx").write_bytes(b"12345")
    write_export(tmp_path, Export("onnx", "int8", 7, {"name": "a"}, describe_files(tmp_path, "onnx"), {"torch": "2"}))
    return tmp_path


def changed(folder, **keys):
    path = folder / "export.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def test_what_is_written_is_read(folder):
    found = read_export(folder)
    assert (found.runtime, found.precision, found.parameters, found.runtime_version) == ("onnx", "int8", 7, 1)
    assert is_export(folder) and not is_export(folder / "onnx")
    again = found.hash
    (folder / "onnx" / "encoder.onnx").write_bytes(b"12346")
    assert Export("onnx", "int8", 7, {}, describe_files(folder, "onnx"), {}).hash != again


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"format": "mengzi-mt/export/2"}, "reads exports of format"),
        ({"runtime_version": 2}, "of version 2 of the runtime onnx; here is version 1"),
        ({"runtime": "onx"}, "Did you mean 'onnx'"),
        ({"precision": "int4"}, "Unknown precision 'int4'"),
        ({"surprise": 1}, "damaged"),
    ],
)
def test_what_this_version_does_not_know_is_refused(folder, keys, words):
    changed(folder, **keys)
    with pytest.raises(InputError, match=words):
        read_export(folder)


def test_damage_is_named(folder):
    (folder / "onnx" / "encoder.onnx").write_bytes(b"1234")
    with pytest.raises(InputError, match="has 4 bytes instead of 5"):
        read_export(folder)
    (folder / "onnx" / "encoder.onnx").unlink()
    with pytest.raises(InputError, match=r"encoder\.onnx is missing"):
        read_export(folder)
    (folder / "export.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        read_export(folder)
