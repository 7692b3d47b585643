import subprocess
import sys

import pytest

from mengzi_mt.cli.main import app, run
from mengzi_mt.errors import InputError
from mengzi_mt.sdk.serve_settings import TOKEN_VARIABLE, check_address, is_loopback, read_token

TOKEN = "geheim-0123456789abcdef"


def test_a_token_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert read_token(None) is None
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert read_token(None) == TOKEN
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}2\n")
    assert read_token(file) == f"{TOKEN}2"


@pytest.mark.parametrize("bad", ["", "short", "two words of a token", "zu kurz\u4e2d" * 9, "a\u0000" * 20])
def test_a_token_that_is_no_good_is_refused(tmp_path, bad):
    file = tmp_path / "token"
    file.write_text(bad)
    with pytest.raises(InputError, match="token"):
        read_token(file)
    with pytest.raises(InputError, match="cannot be read"):
        read_token(tmp_path / "none")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("example.org", False),
    ],
)
def test_beyond_this_machine_only_with_a_token_or_a_word(host, loopback):
    assert is_loopback(host) is loopback
    check_address(host, TOKEN, False)
    check_address(host, None, True)
    if loopback:
        check_address(host, None, False)
    else:
        with pytest.raises(InputError, match="--token-file"):
            check_address(host, None, False)


def test_neither_the_package_nor_the_command_line_imports_the_server():
    code = (
        "import sys, mengzi_mt, mengzi_mt.cli.main\n"
        "found = {'fastapi', 'uvicorn', 'starlette', 'torch', 'prometheus_client'} & set(sys.modules)\n"
        "sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn", "prometheus_client"])
def test_a_missing_library_names_the_extra(missing, monkeypatch):
    monkeypatch.setenv("MENGZI_MT_DEBUG", "1")  # errors are raised, not printed
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=rf"needs {missing}.*pip install 'mengzi-mt\[serve\]'"):
        run(app, ["serve", "--port", "0"])


def test_a_public_address_without_a_token_is_refused(monkeypatch):
    monkeypatch.setenv("MENGZI_MT_DEBUG", "1")
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    with pytest.raises(InputError, match="--insecure"):
        run(app, ["serve", "--host", "0.0.0.0"])
