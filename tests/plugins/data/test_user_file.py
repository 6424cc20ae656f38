"""Files of the user's own: what is read, and what is said of those that cannot be."""

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


def test_equal_rows_share_a_name_so_that_no_split_parts_them(tmp_path):
    corpus = user_file.load(write(tmp_path, "a.txt", "same\n\nother\n\nsame"))
    names = [d.name for d in corpus.documents]
    assert names[0] == names[2] != names[1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "x", r"only \.txt and \.jsonl files are read, not '\.csv'"),
        ("a.txt", "", r"at least two different paragraphs .*; the file has 0"),
        ("a.txt", "only one paragraph", r"at least two different paragraphs .*; the file has 1"),
        ("a.txt", "twice\n\ntwice", r"at least two different paragraphs"),
        ("a.txt", b"fine\n\nnot \xff utf-8", r"a\.txt, line 3: this is not UTF-8"),
        ("a.jsonl", '{"text": "a"}\n{"text": ', r"a\.jsonl, line 2: not JSON"),
        ("a.jsonl", '{"text": "a"}\n\n["a"]', r"line 3: list instead of an object"),
        ("a.jsonl", '{"txt": "a"}', r"line 1: the row has 'txt'; a row holds"),
        ("a.jsonl", '{"prompt": "a"}', r"line 1: the row has 'prompt'; a row holds"),
        ("a.jsonl", '{"text": 5}', r"line 1: 'text' is int, it must be a string"),
        ("a.jsonl", '{"prompt": "a", "completion": " "}', r"line 1: 'completion' is empty"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        user_file.load(write(tmp_path, name, content))


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(DataError, match="there is no such file"):
        user_file.load(str(tmp_path / "missing.txt"))
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        user_file.load(str(tmp_path / "folder.txt"))
