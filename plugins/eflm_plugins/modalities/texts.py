"""Prepares a corpus for the stages: text for pretraining and evaluation, pairs for fine-tuning. Used by `llm`."""

from __future__ import annotations

from collections.abc import Collection

from attrs import evolve

from eflm.errors import DataError
from eflm_plugins.data.corpus import Corpus, Document, Pair, Split, split
from eflm_schemas import Flag


def split_for_stages(corpus: Corpus, stages: Collection[str], flags: list[Flag]) -> Split:
    """Split the corpus. If it has only pairs, create text from them; if it has only text, create pairs from it.

    Appends a flag to `flags` in these cases. Raises DataError if a stage has too little data for both parts of the
    split.
    """
    parts = split(corpus)
    if not corpus.documents:
        parts = Split(_with_text(parts.train), _with_text(parts.held_out))
        if "pretrain" in stages:
            detail = f"{corpus.name} contains only pairs; pretraining uses each prompt with its completion as one text"
            flags.append(Flag(name="data_without_text", detail=detail, stage="pretrain"))
    if not corpus.pairs:
        parts = Split(_with_pairs(parts.train), _with_pairs(parts.held_out))
        if "finetune" in stages:
            detail = f"{corpus.name} contains no prompts; fine-tuning uses each text as a completion of an empty prompt"
            flags.append(Flag(name="data_without_pairs", detail=detail, stage="finetune"))

    for stage in stages:
        train, held_out = (
            part.pairs if stage == "finetune" else part.documents for part in (parts.train, parts.held_out)
        )
        if not train or not held_out:
            what = "rows with a prompt and a completion" if stage == "finetune" else "rows of text"
            raise DataError(
                f"{corpus.name} has too few different {what}: the stage {stage} needs at least two,"
                " one for training and one held out; provide more data, or omit the stage with --stage"
            )
    return parts


def texts_of(corpus: Corpus) -> list[str]:
    """Return the texts of the documents."""
    return [document.text for document in corpus.documents]


def _with_text(corpus: Corpus) -> Corpus:
    return evolve(
        corpus, documents=tuple(Document(p.document, p.prompt + p.completion) for p in corpus.pairs)
    )


def _with_pairs(corpus: Corpus) -> Corpus:
    return evolve(corpus, pairs=tuple(Pair(d.name, "", d.text) for d in corpus.documents))
