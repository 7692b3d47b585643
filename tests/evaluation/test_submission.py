import json
import zipfile

import pytest

from mengzi_mt.errors import InputError
from mengzi_mt.evaluation.submission import combine_templates, validate_submission, write_submission
from mengzi_mt.evaluation.suites import load_suite
from mengzi_mt.tasks.registry import get_task
from mengzi_mt.tasks.rows import DataSource, load_rows

TASKS = [get_task(name) for name in load_suite("zeroclue").tasks]
# FewCLUE's leaderboard: file, key, type of the id, an answer that it accepts, lines of the test file.
FORMAT = {
    "bustm": ("bustm_predict.json", "label", int, {"0", "1"}, 2000),
    "chid": ("chidf_predict.json", "answer", int, set(range(7)), 2000),
    "cluewsc": ("cluewscf_predict.json", "label", int, {"true", "false"}, 290),
    "csl": ("cslf_predict.json", "label", int, {"0", "1"}, 3000),
    "csldcp": ("csldcp_predict.json", "label", int, {"材料科学与工程", "作物学", "口腔医学"}, 2999),
    "eprstmt": ("eprstmt_predict.json", "label", int, {"Positive", "Negative"}, 753),
    "iflytek": ("iflytekf_predict.json", "label", int, {str(number) for number in range(119)}, 2600),
    "ocnli": ("ocnlif_predict.json", "label", int, {"entailment", "neutral", "contradiction"}, 3000),
    "tnews": ("tnewsf_predict.json", "label", str, {"100", "101", "102"}, 1500),
}
SIZES = {name: fields[4] for name, fields in FORMAT.items()}


def write_predictions(folder, sizes=None, ids=None):
    """Predictions of one template, as an evaluation writes them, that favour the first choices in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (_, _, kind, _, size) in FORMAT.items():
        numbers = ids[name] if ids else [kind(number) for number in range((sizes or {}).get(name, size))]
        choices = 7 if name == "chid" else len(get_task(name).labels)
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for place, number in enumerate(numbers):
                scores = [-1.0 if choice == place % min(choices, 3) else -5.0 for choice in range(choices)]
                record = {"template": "first", "row_id": f"test.json:{place + 1}", "id": number, "log_probabilities": scores}
                file.write(json.dumps(record) + "\n")
    return folder


def read_zip(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name).decode("utf-8") for name in archive.namelist()}


def write_zip(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("submission")
    counts = write_submission(TASKS, write_predictions(folder / "predictions"), folder / "submission.zip")
    return folder / "submission.zip", counts


@pytest.fixture
def files(whole):
    return read_zip(whole[0])


def test_names_keys_types_and_counts_of_all_nine_tasks(whole, files):
    assert whole[1] == {fields[0]: fields[4] for fields in FORMAT.values()}
    assert set(files) == set(whole[1])
    for file, key, kind, answers, size in FORMAT.values():
        assert files[file].endswith("\n")
        records = [json.loads(line) for line in files[file].splitlines()]
        assert len(records) == size
        for record in records:
            assert list(record) == ["id", key]
            assert type(record["id"]) is kind
            assert record[key] in answers
            assert not isinstance(record[key], bool)


def test_chinese_labels_are_written_as_they_are(files):
    assert "材料科学与工程" in files["csldcp_predict.json"]


def test_a_whole_submission_has_no_problems(whole):
    assert validate_submission(whole[0], TASKS) == []


def change_line(files, name, **values):
    first, rest = files[name].split("\n", 1)
    files[name] = json.dumps({**json.loads(first), **values}, ensure_ascii=False) + "\n" + rest


def drop_key(files, name, key):
    first, rest = files[name].split("\n", 1)
    record = json.loads(first)
    del record[key]
    files[name] = json.dumps(record) + "\n" + rest


SPOILED = {
    "wrong file name": (
        lambda f: f.update({"tnews_predict.json": f.pop("tnewsf_predict.json")}),
        ["tnews_predict.json: no task of the leaderboard has a file of this name", "tnewsf_predict.json is missing"],
    ),
    "missing file": (lambda f: f.pop("bustm_predict.json"), ["bustm_predict.json is missing"]),
    "too few lines": (
        lambda f: f.update({"cluewscf_predict.json": f["cluewscf_predict.json"].split("\n", 1)[1]}),
        ["cluewscf_predict.json: it has 289 lines, expected 290"],
    ),
    "duplicate id": (lambda f: change_line(f, "eprstmt_predict.json", id=1), ["eprstmt_predict.json: an id occurs twice"]),
    "id as text": (
        lambda f: change_line(f, "eprstmt_predict.json", id="0"),
        ["eprstmt_predict.json: the id '0' must be int, not str"],
    ),
    "id as number": (
        lambda f: change_line(f, "tnewsf_predict.json", id=0),
        ["tnewsf_predict.json: the id 0 must be str, not int"],
    ),
    "label as number": (
        lambda f: change_line(f, "tnewsf_predict.json", label=100),
        ["tnewsf_predict.json: line 1: the label 100 must be text, not int"],
    ),
    "unknown label": (
        lambda f: change_line(f, "tnewsf_predict.json", label="105"),
        ["tnewsf_predict.json: line 1: '105' is no label of the task"],
    ),
    "answer as text": (lambda f: change_line(f, "chidf_predict.json", answer="3"), ["chidf_predict.json: line 1: '3' is no index"]),
    "answer below zero": (
        lambda f: change_line(f, "chidf_predict.json", answer=-1),
        ["chidf_predict.json: line 1: -1 is no index"],
    ),
    "answer as boolean": (
        lambda f: change_line(f, "chidf_predict.json", answer=True),
        ["chidf_predict.json: line 1: True is no index"],
    ),
    "missing key": (
        lambda f: drop_key(f, "csldcp_predict.json", "label"),
        ['csldcp_predict.json: line 1 must have exactly the keys "id" and "label"', "it has 2,998 lines"],
    ),
    "surplus key": (
        lambda f: change_line(f, "csldcp_predict.json", score=1),
        ['csldcp_predict.json: line 1 must have exactly the keys "id" and "label"'],
    ),
    "no JSON": (
        lambda f: f.update({"ocnlif_predict.json": "[" + f["ocnlif_predict.json"]}),
        ["ocnlif_predict.json: line 1 is no JSON object"],
    ),
    "empty file": (lambda f: f.update({"ocnlif_predict.json": ""}), ["ocnlif_predict.json: line 1 is no JSON object"]),
    "no UTF-8": (
        lambda f: f.update({"csldcp_predict.json": "材料".encode("gb18030")}),
        ["csldcp_predict.json: it is no UTF-8 text"],
    ),
}


@pytest.mark.parametrize("name", SPOILED)
def test_the_validator_rejects_with_a_reason(files, tmp_path, name):
    spoil, reasons = SPOILED[name]
    spoil(files)
    problems = validate_submission(write_zip(tmp_path / "spoiled.zip", files), TASKS)
    assert problems
    assert all(any(reason in problem for problem in problems) for reason in reasons), problems


def test_many_problems_are_counted_not_listed(files, tmp_path):
    files["bustm_predict.json"] = files["bustm_predict.json"].replace('"label": "', '"label": "x')
    problems = validate_submission(write_zip(tmp_path / "spoiled.zip", files), TASKS)
    assert len(problems) == 11
    assert problems[-1] == "bustm_predict.json: and 1990 more"


@pytest.mark.parametrize("content", [b"", b"not a zip", None])
def test_what_is_no_zip_is_rejected(tmp_path, content):
    path = tmp_path / "submission.zip"
    if content is not None:
        path.write_bytes(content)
    (problem,) = validate_submission(path, TASKS)
    assert problem.startswith(f"{path} is no zip file")


@pytest.fixture
def three_rows(tmp_path):
    """A data root whose test file of eprstmt has the ids 5, 6 and 7."""
    folder = tmp_path / "root/fewclue/eprstmt"
    folder.mkdir(parents=True)
    (folder / "test.json").write_text("".join(f'{{"id": {n}, "sentence": "好"}}\n' for n in (5, 6, 7)), encoding="utf-8")
    return DataSource("files", tmp_path / "root")


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        ([5, 6, 7], None),
        ([7, 5, 6], None),
        ([5, 6], "1 missing, 0 foreign, e.g. 7"),
        ([5, 6, 7, 8], "0 missing, 1 foreign, e.g. 8"),
        ([5, 6, 9], "1 missing, 1 foreign"),
        ([5, 6, 6], "an id occurs twice"),
        (["5", "6", "7"], "the id '5' must be int, not str"),
    ],
)
def test_ids_are_compared_with_the_test_file(tmp_path, three_rows, ids, reason):
    lines = "\n".join(json.dumps({"id": identifier, "label": "Positive"}) for identifier in ids)
    path = write_zip(tmp_path / "one.zip", {"eprstmt_predict.json": lines})
    problems = validate_submission(path, [get_task("eprstmt")], three_rows)
    assert (problems == []) if reason is None else any(reason in problem for problem in problems), problems


def test_the_mean_over_templates_is_of_probabilities(tmp_path):
    path = tmp_path / "eprstmt.jsonl"
    sure, unsure = [-0.001, -7.0], [-5.2, -5.0]
    lines = [("one", sure), ("two", unsure), ("three", unsure)]
    path.write_text(
        "\n".join(json.dumps({"template": t, "row_id": "test.json:1", "id": 4, "log_probabilities": p}) for t, p in lines),
        encoding="utf-8",
    )
    task = get_task("eprstmt")
    assert combine_templates(task, path) == [(4, 0)]
    assert combine_templates(task, path, "two") == [(4, 1)]
    with pytest.raises(InputError, match="no predictions of the template 'four'"):
        combine_templates(task, path, "four")


def test_missing_predictions_generated_answers_and_tasks_without_leaderboard_are_input_errors(tmp_path):
    with pytest.raises(InputError, match="no predictions for the task 'eprstmt'"):
        write_submission([get_task("eprstmt")], tmp_path, tmp_path / "out.zip")
    (tmp_path / "eprstmt.jsonl").write_text('{"template": "free", "row_id": "1", "id": 1, "prediction": "好"}\n', encoding="utf-8")
    with pytest.raises(InputError, match="'free' ranks no choices"):
        write_submission([get_task("eprstmt")], tmp_path, tmp_path / "out.zip")
    with pytest.raises(InputError, match="'lcqmc' has no leaderboard"):
        write_submission([get_task("lcqmc")], tmp_path, tmp_path / "out.zip")
    assert not list(tmp_path.glob("out*"))


def test_the_real_test_files_have_the_published_counts_and_a_submission_over_their_ids_validates(data_root, tmp_path):
    source = DataSource("files", data_root)
    ids = {task.name: [row.values[task.submission.id] for row in load_rows(task, "test", source)] for task in TASKS}
    assert {name: len(numbers) for name, numbers in ids.items()} == SIZES
    target = tmp_path / "submission.zip"
    counts = write_submission(TASKS, write_predictions(tmp_path / "predictions", ids=ids), target)
    assert counts == {FORMAT[name][0]: size for name, size in SIZES.items()}
    assert validate_submission(target, TASKS, source) == []
