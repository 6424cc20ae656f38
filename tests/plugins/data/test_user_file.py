"""Reading the user's own files, and the errors for files that cannot be read."""

from __future__ import annotations

import json

import pytest

from eflm import DataError
from eflm_plugins.data import user_file


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def test_paragraphs_of_a_text_file_are_documents(tmp_path):
    corpus = user_file.load(write(tmp_path, "a.txt", "one\ntwo\n\n\n\nthree\n"))
    assert [d.text for d in corpus.documents] == ["one\ntwo", "three"]
    assert corpus.pairs == ()


def test_rows_are_documents_and_pairs(tmp_path):
    rows = [
        {"text": "some text"},
        {"prompt": "2+2=", "completion": "4", "id": 7},
        {"prompt": "", "completion": "x"},
    ]
    corpus = user_file.load(write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n"))
    assert [d.text for d in corpus.documents] == ["some text"]
    assert [(p.prompt, p.completion) for p in corpus.pairs] == [("2+2=", "4"), ("", "x")]


def test_equal_rows_share_a_name_so_that_no_split_separates_them(tmp_path):
    corpus = user_file.load(write(tmp_path, "a.txt", "same\n\nother\n\nsame"))
    names = [d.name for d in corpus.documents]
    assert names[0] == names[2] != names[1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "x", r"'\.csv'.*\.txt.*\.jsonl"),
        ("a", "x", r"without a suffix.*\.txt.*\.jsonl"),
        ("a.txt", "", r"a\.txt: .*two different paragraphs.*\b0;"),
        ("a.txt", "only one paragraph", r"a\.txt: .*two different paragraphs.*\b1;"),
        ("a.txt", "twice\n\ntwice", r"a\.txt: .*two different paragraphs.*\b1;"),
        ("a.txt", b"fine\n\nnot \xff utf-8", r"a\.txt, line 3: .*UTF-8"),
        ("a.jsonl", '{"text": "a"}\n{"text": ', r"a\.jsonl, line 2: .*JSON"),
        ("a.jsonl", '{"text": "a"}\n\n["a"]', r"a\.jsonl, line 3: .*\blist\b.*\bobject\b"),
        ("a.jsonl", '{"txt": "a"}', r"a\.jsonl, line 1: .*'txt'.*\"text\".*\"prompt\".*\"completion\""),
        ("a.jsonl", '{"prompt": "a"}', r"a\.jsonl, line 1: .*'prompt'.*\"completion\""),
        ("a.jsonl", '{"text": 5}', r"a\.jsonl, line 1: 'text'.*\bint\b.*\bstring\b"),
        ("a.jsonl", '{"prompt": "a", "completion": " "}', r"a\.jsonl, line 1: 'completion'.*\bempty\b"),
    ],
)
def test_errors_name_the_file_and_the_line(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        user_file.load(write(tmp_path, name, content))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"missing\.txt.*does not exist"):
        user_file.load(str(tmp_path / "missing.txt"))
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(DataError, match=r"folder\.txt.*cannot be read"):
        user_file.load(str(tmp_path / "folder.txt"))
