"""However this project is started, ``import evaluate`` means Hugging Face's package, never the script at the root."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
CHECK = "import evaluate; assert hasattr(evaluate, 'Metric'), evaluate.__file__"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """An environment whose installed ``evaluate`` is a stand-in: importing the real one takes seconds, and one test does it."""
    package = tmp_path_factory.mktemp("installed") / "evaluate"
    package.mkdir()
    (package / "__init__.py").write_text("class Metric: ...\n", encoding="utf-8")
    return {**os.environ, "PYTHONPATH": str(package.parent)}


def launch(*command, cwd, env):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=cwd, env=env, timeout=180)


def launched(*command, cwd, env):
    done = launch(*command, cwd=cwd, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(params=["root", "elsewhere"])
def folder(request, tmp_path):
    return ROOT if request.param == "root" else tmp_path


def test_import_evaluate_from_the_root_is_the_real_package():
    launched(sys.executable, "-c", CHECK, cwd=ROOT, env=dict(os.environ))


def test_without_an_installed_package_the_import_fails_as_usual():
    done = launch(sys.executable, "-S", "-c", "import evaluate", cwd=ROOT, env=dict(os.environ))
    assert "No module named 'evaluate'" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, ROOT / "train.py"],
        [sys.executable, ROOT / "evaluate.py"],
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "1", ROOT / "evaluate.py"],
    ],
    ids=["train.py", "evaluate.py", "torchrun evaluate.py"],
)
def test_the_root_scripts_show_their_help(command, folder, environment):
    assert "Usage:" in launched(*command, "--help", cwd=folder, env=environment)


@pytest.mark.parametrize("name", ["train.py", "evaluate.py"])
def test_after_a_root_script_has_run_evaluate_is_the_package(name, folder, environment):
    code = f"""
import runpy, sys
sys.argv, sys.path[0] = [{name!r}, "--help"], {str(ROOT)!r}
try:
    runpy.run_path({str(ROOT / name)!r}, run_name="__main__")
except SystemExit:
    pass
{CHECK}
"""
    launched(sys.executable, "-c", code, cwd=folder, env=environment)


def test_the_module_and_the_console_script_show_their_help(environment, tmp_path):
    assert "Usage:" in launched(sys.executable, "-m", "mengzi_mt", "--help", cwd=ROOT, env=environment)
    script = BIN / "mengzi-mt"
    if not script.exists():
        pytest.skip("the console script is not installed")
    for folder in (ROOT, tmp_path):
        assert "Usage:" in launched(script, "--help", cwd=folder, env=environment)


@pytest.mark.parametrize("pytest_command", [[BIN / "pytest"], [sys.executable, "-m", "pytest"]], ids=["pytest", "python -m pytest"])
def test_pytest_imports_the_package(pytest_command, folder, environment, tmp_path):
    path = tmp_path / "test_import.py"
    path.write_text(f"def test_import():\n    import mengzi_mt\n    {CHECK}\n", encoding="utf-8")
    command = [*pytest_command, "-c", ROOT / "pyproject.toml", "-p", "no:cacheprovider", path]
    assert "1 passed" in launched(*command, cwd=folder, env=environment)


def test_torchrun_imports_the_package(environment, tmp_path):
    script = tmp_path / "probe.py"  # the first entry of its path is the root, as for a script that stands there
    script.write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{CHECK}\nprint('imported')\n", encoding="utf-8")
    assert "imported" in launched(BIN / "torchrun", "--nproc_per_node", "1", script, cwd=ROOT, env=environment)


def test_a_child_process_imports_the_package(environment, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        f"""
import multiprocessing
import sys

sys.path.insert(0, {str(ROOT)!r})

def child():
    {CHECK}

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=child)
    process.start()
    process.join()
    sys.exit(process.exitcode)
""",
        encoding="utf-8",
    )
    launched(sys.executable, script, cwd=ROOT, env=environment)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, unpacked into a folder."""
    out = tmp_path_factory.mktemp("wheel")
    uv = BIN / "uv"
    build = [uv, "build", "--wheel", "-o", out] if uv.exists() else [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", out]
    done = launch(*build, ROOT, cwd=out, env=dict(os.environ))
    if done.returncode and any(
        sign in done.stderr for sign in ("Failed to fetch", "No matching distribution", "No module named pip")
    ):
        pytest.skip("the build backend cannot be fetched here")
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(out / "site")
    return out / "site"


def test_the_wheel_holds_the_package_and_no_root_scripts(wheel):
    names = {path.name for path in wheel.iterdir()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"mengzi_mt"}


def test_an_installed_wheel_finds_its_tasks_suites_and_recipes(wheel, tmp_path):
    env = {**os.environ, "PYTHONPATH": str(wheel)}
    code = """
import json, sys
import mengzi_mt
from mengzi_mt.compression.distil_recipe import load_distil_recipe
from mengzi_mt.compression.pipeline_recipe import load_pipeline_recipe
from mengzi_mt.compression.pruning_recipe import load_prune_recipe
from mengzi_mt.config import load_recipe
from mengzi_mt.evaluation.suites import load_suite
from mengzi_mt.pretraining.ablation_recipe import load_ablation_recipe
from mengzi_mt.pretraining.encoder_recipe import load_encoder_recipe
from mengzi_mt.resources import resource_dir
from mengzi_mt.tasks.registry import task_names

names = {kind: sorted(path.stem for path in resource_dir(kind).glob("*.yaml")) for kind in ("suites", "recipes")}
for name in names["suites"]: load_suite(name)
loaders = {
    "pretrain-encoder": load_encoder_recipe,
    "ablate-": load_ablation_recipe,
    "distil-": load_distil_recipe,
    "prune-": load_prune_recipe,
    "compress-": load_pipeline_recipe,
}
for name in names["recipes"]: next((load for prefix, load in loaders.items() if name.startswith(prefix)), load_recipe)(name)
print(json.dumps({**names, "tasks": task_names(), "file": mengzi_mt.__file__}))
"""
    found = json.loads(launched(sys.executable, "-c", code, cwd=tmp_path, env=env))
    assert Path(found["file"]).is_relative_to(wheel)
    for kind in ("suites", "recipes"):
        assert found[kind] == sorted(path.stem for path in (ROOT / kind).glob("*.yaml"))
    assert found["tasks"] == sorted(path.parent.name for path in ROOT.glob("tasks/*/task.yaml"))
    listed = json.loads(launched(sys.executable, "-m", "mengzi_mt", "tasks", "list", "--json", cwd=tmp_path, env=env))
    assert [task["name"] for task in listed] == found["tasks"]
    assert len(listed) >= 18
