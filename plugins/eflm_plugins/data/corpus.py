"""The common form of all text sources: documents and prompt–completion pairs, with a train/held-out split.

`stdlib_text` and `user_file` create a Corpus; the language modality splits it. No held-out text is in the training
part.
"""

from __future__ import annotations

import hashlib
import json

from attrs import evolve, frozen

#: The share of the characters that is held out.
HELD_OUT_SHARE = 0.05
#: Characters. Shorter passages ("Examples:", "Return None.") are common phrases, which may occur in both parts.
SHORTEST_LEAK = 40


@frozen
class Document:
    """A text and its name; the hash of the name decides which part of the split it belongs to."""

    name: str
    text: str


@frozen
class Pair:
    """A prompt and the completion to learn; `document` is the name of its source document."""

    document: str
    prompt: str
    completion: str


@frozen
class Corpus:
    """Documents and pairs from one source."""

    name: str
    documents: tuple[Document, ...] = ()
    pairs: tuple[Pair, ...] = ()

    def sha256(self) -> str:
        """Return a hash of all names and texts, in order."""
        rows = [
            [[d.name, d.text] for d in self.documents],
            [[p.document, p.prompt, p.completion] for p in self.pairs],
        ]
        return hashlib.sha256(json.dumps(rows, ensure_ascii=True).encode("ascii")).hexdigest()


@frozen
class Split:
    """Two parts of a corpus that share no document, no pair and no passage."""

    train: Corpus
    held_out: Corpus


def split(corpus: Corpus) -> Split:
    """Split a corpus: hold out whole documents with their pairs, up to 5% of the characters.

    Documents are selected in the order of the hashes of their names. If there are at least two documents (or documents
    with pairs), at least one is held out (the smallest, if none fits into 5%) and at least one is kept for training.
    Passages and completions that also occur in the held-out part are then removed from the training part.
    """
    sizes: dict[str, int] = {}
    for document in corpus.documents:
        sizes[document.name] = sizes.get(document.name, 0) + len(document.text)
    for pair in corpus.pairs:
        sizes[pair.document] = sizes.get(pair.document, 0) + len(pair.prompt) + len(pair.completion)

    order = sorted(sizes, key=_hash)
    quota = HELD_OUT_SHARE * sum(sizes.values())
    held_out: set[str] = set()
    for name in order:
        if sizes[name] <= quota:
            held_out.add(name)
            quota -= sizes[name]
    kinds = ({d.name for d in corpus.documents}, {p.document for p in corpus.pairs})
    for kind in kinds:
        if kind and kind <= held_out:
            held_out.discard(max(kind, key=_hash))
    for kind in kinds:
        if not kind & held_out:
            spare = [n for n in order if n in kind and not any(k <= held_out | {n} for k in kinds if k)]
            held_out.update(sorted(spare, key=sizes.__getitem__)[:1])

    evaluated = _part(corpus, held_out)
    trained = _part(corpus, sizes.keys() - held_out)
    return Split(_without(trained, _passages_of(evaluated)), evaluated)


def passages(text: str) -> list[str]:
    """Return the paragraphs of a text."""
    return [passage.strip("\n") for passage in text.split("\n\n") if passage.strip()]


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def _part(corpus: Corpus, names: set[str]) -> Corpus:
    return evolve(
        corpus,
        documents=tuple(d for d in corpus.documents if d.name in names),
        pairs=tuple(p for p in corpus.pairs if p.document in names),
    )


def _passages_of(corpus: Corpus) -> set[str]:
    texts = [d.text for d in corpus.documents] + [p.completion for p in corpus.pairs]
    return {passage for text in texts for passage in passages(text) if len(passage) >= SHORTEST_LEAK}


def _without(corpus: Corpus, removed: set[str]) -> Corpus:
    documents = []
    for document in corpus.documents:
        kept = [passage for passage in passages(document.text) if passage not in removed]
        if kept:
            documents.append(evolve(document, text="\n\n".join(kept)))
    pairs = tuple(p for p in corpus.pairs if not removed.intersection(passages(p.completion)))
    return evolve(corpus, documents=tuple(documents), pairs=pairs)
