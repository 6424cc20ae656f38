"""What every source of text is turned into: documents and prompt–completion pairs, split so that nothing leaks.

`stdlib_text` and `user_file` make a Corpus; the language modality splits it.
"""

from __future__ import annotations

import hashlib
import json

from attrs import evolve, frozen

#: The share of the characters that is kept from training.
HELD_OUT_SHARE = 0.05
#: Shorter passages ("Examples:", "Return None.") recur everywhere; to find one on both sides is no leak.
SHORTEST_LEAK = 40


@frozen
class Document:
    """A text and the name it is split by."""

    name: str
    text: str


@frozen
class Pair:
    """A prompt and the completion to learn; `document` names the document it came from."""

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
        """A hash of every name and character, in order."""
        rows = [
            [[d.name, d.text] for d in self.documents],
            [[p.document, p.prompt, p.completion] for p in self.pairs],
        ]
        return hashlib.sha256(json.dumps(rows, ensure_ascii=True).encode("ascii")).hexdigest()


@frozen
class Split:
    """A corpus in two parts that share no document, no pair and no passage."""

    train: Corpus
    held_out: Corpus


def split(corpus: Corpus) -> Split:
    """Hold out whole documents with their pairs: those whose names hash lowest, up to 5% of the characters.

    Of documents and of pairs at least one, the smallest, is held out and one left, where there are two of them. What
    is held out is then taken from the training part wherever it recurs: a passage elsewhere, the same completion.
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

    judged = _part(corpus, held_out)
    trained = _part(corpus, sizes.keys() - held_out)
    return Split(_without(trained, _passages_of(judged)), judged)


def passages(text: str) -> list[str]:
    """The paragraphs of a text."""
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


def _without(corpus: Corpus, taken: set[str]) -> Corpus:
    documents = []
    for document in corpus.documents:
        kept = [passage for passage in passages(document.text) if passage not in taken]
        if kept:
            documents.append(evolve(document, text="\n\n".join(kept)))
    pairs = tuple(p for p in corpus.pairs if not taken.intersection(passages(p.completion)))
    return evolve(corpus, documents=tuple(documents), pairs=pairs)
