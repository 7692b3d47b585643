"""Giving a model to others: uploading it to the Hugging Face hub, or laying it out for ModelScope."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from mengzi_mt.errors import InputError, RunError, first_line

LEFT_OUT = ("trainer_state", "optimizer", "__pycache__")
"""Folders that serve training alone."""
NEEDED = ("config.json", "README.md", "mengzi_mt.json")
MODELSCOPE = {"framework": "pytorch", "task": "text2text-generation", "model": {"type": "t5"}}
"""``configuration.json``, by which ModelScope knows what a repository holds."""
MODELSCOPE_CARD = ["frameworks:", "  - Pytorch", "tasks:", "  - text2text-generation", "domain:", "  - nlp"]


def files_of(model: Path) -> list[Path]:
    """What is given to others of a model's folder, by relative path.

    Raises:
        InputError: no model, or one without card.
    """
    for name in NEEDED:
        if not (model / name).is_file():
            fix = "write it: mengzi-mt card MODEL --write" if name == "README.md" else "give a checkpoint or an export"
            raise InputError(f"The folder has no {name}", where=str(model), fix=fix)
    return sorted(_walk(model, model))


def _walk(folder: Path, root: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name in LEFT_OUT:
            continue
        if path.is_dir():
            yield from _walk(path, root)
        else:
            yield path.relative_to(root)


def push(
    model: Path,
    repository: str,
    *,
    endpoint: str | None = None,
    token: str | None = None,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
) -> str:
    """Upload a model in one commit; what the repository held beside stays. Returns the commit's address.

    Args:
        model: the folder.
        repository: ``owner/name``; made where there is none.
        endpoint: of the hub; by default the library's (``HF_ENDPOINT``).
        token: by default the one that ``hf auth login`` or ``HF_TOKEN`` left.
        private: of a repository that is made.
        revision: branch to commit to.
        message: of the commit.

    Raises:
        InputError: an incomplete folder, a malformed name, or no right to write there.
        RunError: the hub cannot be reached or fails; nothing was committed.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError  # of whichever client it uses

    names = [str(path) for path in files_of(model)]
    api = HfApi(endpoint=endpoint, token=token)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository, folder_path=model, revision=revision, allow_patterns=names, ignore_patterns=[],
            commit_message=message or f"Upload {model.name} with mengzi-mt",
        )  # fmt: skip
    except HFValidationError as error:
        raise InputError(
            f"The repository's name is malformed: {first_line(error)}", where=repository, fix="give owner/name"
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in (401, 403):
            raise InputError(
                "The hub does not let you write there", where=f"{api.endpoint}, {repository}",
                fix="log in (hf auth login, or HF_TOKEN) with a token that may write",
            ) from error  # fmt: skip
        raise RunError(
            f"The hub refused the upload: {first_line(error)}", where=f"{api.endpoint}, {repository}", fix="try again"
        ) from error
    except (HTTPError, OSError) as error:
        raise RunError(
            f"The hub cannot be reached: {first_line(error)}", where=api.endpoint, fix="check the network and try again"
        ) from error
    return str(commit.commit_url)


def lay_out_for_modelscope(model: Path, out: Path) -> list[Path]:
    """Copy a model into a folder as ModelScope wants it; ``modelscope upload`` takes it from there. Returns the files.

    Raises:
        InputError: an incomplete model, or a folder that holds something.
    """
    names = files_of(model)
    if out.exists() and any(out.iterdir()):
        raise InputError("The folder is not empty", where=str(out), fix="give another one, or remove it")
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model / name, out / name)
    (out / "configuration.json").write_text(json.dumps(MODELSCOPE, indent=2) + "\n", encoding="utf-8")
    card = (out / "README.md").read_text(encoding="utf-8")
    (out / "README.md").write_text(_with_front_matter(card), encoding="utf-8")
    return sorted([*names, Path("configuration.json")])


def _with_front_matter(card: str) -> str:
    """The card with ModelScope's keys in its front matter; where it has none, in front of it."""
    start, separator, rest = card.partition("---\n")
    if start or not separator:
        return "\n".join(["---", *MODELSCOPE_CARD, "---", "", card])
    return separator + "\n".join(MODELSCOPE_CARD) + "\n" + rest
