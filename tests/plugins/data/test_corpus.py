"""Splitting: no held-out text is in the training part."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from eflm_plugins.data.corpus import SHORTEST_LEAK, Corpus, Document, Pair, passages, split

#: Only a few different sentences, so that the same passage often occurs in several documents.
_SENTENCES = [f"sentence number {i} " + "is repeated in several places " * 2 for i in range(6)] + ["short"]
_TEXTS = st.lists(st.sampled_from(_SENTENCES), min_size=1, max_size=4).map("\n\n".join)


@st.composite
def corpora(draw):
    names = [f"document {i}" for i in range(draw(st.integers(2, 12)))]
    documents = tuple(Document(name, draw(_TEXTS)) for name in names)
    pairs = tuple(
        Pair(draw(st.sampled_from(names)), "prompt", draw(_TEXTS)) for _ in range(draw(st.integers(0, 9)))
    )
    return Corpus("drawn", documents, pairs)


@given(corpora())
def test_the_parts_share_no_document_no_pair_and_no_passage(corpus):
    parts = split(corpus)
    assert parts.held_out.documents
    names = [
        {d.name for d in part.documents} | {p.document for p in part.pairs}
        for part in (parts.train, parts.held_out)
    ]
    assert not names[0] & names[1]

    def long_passages(part):
        texts = [d.text for d in part.documents] + [p.completion for p in part.pairs]
        return {passage for text in texts for passage in passages(text) if len(passage) >= SHORTEST_LEAK}

    assert not long_passages(parts.train) & long_passages(parts.held_out)


@given(corpora(), st.randoms(use_true_random=False))
def test_the_split_does_not_depend_on_the_order_of_documents(corpus, random):
    documents = list(corpus.documents)
    random.shuffle(documents)
    shuffled = Corpus("drawn", tuple(documents), corpus.pairs)
    assert {d.name for d in split(shuffled).held_out.documents} == {
        d.name for d in split(corpus).held_out.documents
    }


def test_about_5_percent_is_held_out():
    corpus = Corpus("many", tuple(Document(f"d{i}", f"text {i:04d} " * 10) for i in range(1000)))
    assert 30 <= len(split(corpus).held_out.documents) <= 50


def test_of_two_documents_one_is_held_out():
    parts = split(Corpus("two", (Document("a", "some text"), Document("b", "another text"))))
    assert len(parts.train.documents) == len(parts.held_out.documents) == 1


def test_two_pairs_among_many_documents_are_in_both_parts():
    documents = tuple(Document(f"d{i}", "text " * 20 + str(i)) for i in range(50))
    pairs = (Pair("p0", "prompt", "completion zero"), Pair("p1", "prompt", "completion one"))
    parts = split(Corpus("mixed", documents, pairs))
    assert len(parts.train.pairs) == len(parts.held_out.pairs) == 1


def test_the_hash_covers_all_names_and_texts():
    corpus = Corpus("c", (Document("a", "text"),), (Pair("a", "p", "c"),))
    others = [
        Corpus("c", (Document("a", "text!"),), corpus.pairs),
        Corpus("c", (Document("b", "text"),), corpus.pairs),
        Corpus("c", corpus.documents, (Pair("a", "p!", "c"),)),
        Corpus("c", corpus.documents, (Pair("a", "p", "c!"),)),
    ]
    assert len({c.sha256() for c in (corpus, *others)}) == 5


@given(st.lists(st.integers(1, 5000), min_size=3, max_size=30), st.integers(0, 999))
def test_a_large_document_is_never_held_out(sizes, salt):
    documents = tuple(Document(f"{salt}-{i}", chr(97 + i % 26) * size) for i, size in enumerate(sizes))
    held_out = split(Corpus("sizes", documents)).held_out.documents
    characters = sum(len(document.text) for document in held_out)
    # Within the 5%, or the smallest document if none fits into it.
    assert characters <= max(0.05 * sum(sizes), min(sizes))
    assert characters > 0
