"""What holds for chats of any texts: one BOS, what is trained on, and that no text becomes markup."""

import pytest

pytest.importorskip("tokenizers")

from functools import lru_cache

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.data.chat import SPECIAL_TOKENS
from atoll.data.chat_encoder import ChatEncoder
from atoll.data.tokenizer import Tokenizer

pieces = st.one_of(
    st.sampled_from(
        [*SPECIAL_TOKENS, "<|eot", "_id|>", "assistant", "\n\n", " ", "<", "|>", "\ufdd0", "{{ x }}"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
)
texts = st.lists(pieces, min_size=1, max_size=5).map("".join).filter(str.strip)
exchanges = st.lists(st.tuples(texts, texts), min_size=1, max_size=3)


@lru_cache
def encoder(train_on: str) -> ChatEncoder:
    text = "the old sea dog sat by the fire and told of islands; assistant user system assistant "
    return ChatEncoder(Tokenizer.train([text * 3], 290), train_on)


@settings(max_examples=100, deadline=None)
@given(exchanges, st.none() | texts, st.sampled_from(["all", "last"]))
def test_what_is_trained_on_decodes_to_the_assistants_turns_whatever_the_texts_spell(said, system, train_on):
    chats = encoder(train_on)
    tokenizer = chats._tokenizer
    turns = [{"role": "system", "content": system}] if system else []
    for ask, answer in said:
        turns += [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]
    found = chats.encode(turns)
    answers = [answer.strip() + "<|eot_id|>" for _, answer in said]
    trained = tokenizer.decode(found.tokens[found.trained], skip_special_tokens=False)
    assert trained == "".join(answers if train_on == "all" else answers[-1:])
    ids = found.tokens.tolist()
    assert (ids[0], ids.count(tokenizer.bos_id)) == (tokenizer.bos_id, 1)
    assert ids.count(tokenizer.special["<|eot_id|>"]) == len(turns)
    assert ids.count(tokenizer.special["<|start_header_id|>"]) == len(turns)
    assert tokenizer.decode(ids, skip_special_tokens=False) == tokenizer.template.render(turns)


@settings(max_examples=40, deadline=None)
@given(exchanges)
def test_a_model_is_asked_with_what_the_rows_begin_with(said):
    chats = encoder("all")
    turns = [
        {"role": role, "content": text}
        for each in said
        for role, text in zip(("user", "assistant"), each, strict=True)
    ]
    found = chats.encode(turns)
    for at in range(1, len(turns), 2):
        longer = chats.encode([*turns[:at], {"role": "assistant", "content": "x"}])
        asked = longer.tokens[: int(longer.trained.nonzero()[0][-2])]  # all but the answer and its end
        assert found.tokens[: len(asked)].tolist() == asked.tolist()
        assert found.trained[len(asked)]
