"""Fits a corpus to the stages of a run: text to pretrain on and judge by, pairs to fine-tune on. For `llm`."""

from __future__ import annotations

from collections.abc import Collection

from attrs import evolve

from eflm.errors import DataError
from eflm_plugins.data.corpus import Corpus, Document, Pair, Split, split
from eflm_schemas import Flag


def split_for_stages(corpus: Corpus, stages: Collection[str], flags: list[Flag]) -> Split:
    """The corpus split, with text made of pairs or pairs made of text where it brings only one; `flags` then say so.

    Raises DataError when there is too little of what a stage needs to train on one part and judge by another.
    """
    parts = split(corpus)
    if not corpus.documents:
        parts = Split(_with_text(parts.train), _with_text(parts.held_out))
        if "pretrain" in stages:
            detail = (
                f"{corpus.name} holds pairs only; pretraining reads each prompt and completion as one text"
            )
            flags.append(Flag(name="data_without_text", detail=detail, stage="pretrain"))
    if not corpus.pairs:
        parts = Split(_with_pairs(parts.train), _with_pairs(parts.held_out))
        if "finetune" in stages:
            detail = f"{corpus.name} holds no prompts; fine-tuning takes each text as a completion of nothing"
            flags.append(Flag(name="data_without_pairs", detail=detail, stage="finetune"))

    for stage in stages:
        train, held_out = (
            part.pairs if stage == "finetune" else part.documents for part in (parts.train, parts.held_out)
        )
        if not train or not held_out:
            what = "rows with a prompt and a completion" if stage == "finetune" else "rows of text"
            raise DataError(
                f"{corpus.name} has too few different {what}: {stage} needs at least two,"
                " one to train on and one held out; give more data, or leave the stage out with --stage"
            )
    return parts


def texts_of(corpus: Corpus) -> list[str]:
    """The documents' texts."""
    return [document.text for document in corpus.documents]


def _with_text(corpus: Corpus) -> Corpus:
    return evolve(
        corpus, documents=tuple(Document(p.document, p.prompt + p.completion) for p in corpus.pairs)
    )


def _with_pairs(corpus: Corpus) -> Corpus:
    return evolve(corpus, pairs=tuple(Pair(d.name, "", d.text) for d in corpus.documents))
