"""What each from-scratch body computes, and the tokenizer they share."""

import pytest
import torch
from model_helpers import TEXTS, make_options, random_batch
from torch import nn

from distmeta.errors import ConfigError
from distmeta.models.mlp import MLP
from distmeta.models.text import build_tokenizer
from distmeta.models.text_attention import TextAttention, TextAttentionBody
from distmeta.models.text_cnn import TextCNN
from distmeta.models.text_rnn import TextRNN, TextRNNBody


def test_text_cnn_by_hand() -> None:
    body = TextCNN(embedding_size=1, filters=2, widths=(2, 3)).body({"vocab_size": 10})
    weights = {
        "embedding.weight": torch.arange(10.0).view(10, 1),
        "banks.0.weight": torch.tensor([[1.0, 1.0], [1.0, -1.0]]),
        "banks.0.bias": torch.tensor([0.0, -0.5]),
        "banks.1.weight": torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]]),
        "banks.1.bias": torch.tensor([0.0, 0.0]),
    }
    body.load_state_dict(weights)
    ids = torch.tensor([[3, 1, 4, 9, 9], [2, 9, 9, 9, 9]])
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
    # 3 1 4: pairs 31 14 4_: sums 4 5 4, differences 2 -3 4 less 0.5; triples 314 14_ 4__: sums 8 5 4, negated < 0.
    # 2: pair 2_: 2, and 2 less 0.5; triple 2__: 2, negated < 0.
    assert body(ids, mask).tolist() == [[5, 3.5, 8, 0], [2, 1.5, 2, 0]]


def test_mlp_by_hand() -> None:
    body = MLP(embedding_size=1, hidden_sizes=(2,)).body({"vocab_size": 10})
    weights = {
        "embedding.weight": torch.arange(10.0).view(10, 1),
        "hidden.0.weight": torch.tensor([[2.0], [-1.0]]),
        "hidden.0.bias": torch.tensor([1.0, 2.5]),
    }
    body.load_state_dict(weights)
    # Means 2 and 3: 2·2+1, 2.5−2; 2·3+1, and 2.5−3 is cut to 0.
    ids, mask = torch.tensor([[1, 3], [3, 9]]), torch.tensor([[1, 1], [1, 0]])
    assert body(ids, mask).tolist() == [[5, 0.5], [7, 0]]


@pytest.mark.parametrize("bidirectional", [False, True])
def test_text_rnn_equals_torch_gru_on_packed_texts(bidirectional: bool) -> None:
    body = TextRNN(embedding_size=5, hidden_size=4, bidirectional=bidirectional).body({"vocab_size": 20})
    assert isinstance(body, TextRNNBody)
    gru = nn.GRU(5, 4, batch_first=True, bidirectional=bidirectional)
    for suffix, ours in [("", body.forwards), ("_reverse", body.backwards)][: 1 + bidirectional]:
        assert ours is not None
        for theirs, layer in (("ih", ours.inputs), ("hh", ours.state)):
            getattr(gru, f"weight_{theirs}_l0{suffix}").data.copy_(layer.weight)
            getattr(gru, f"bias_{theirs}_l0{suffix}").data.copy_(layer.bias)
    inputs = random_batch((1, 6, 6), 20, seed=14).inputs
    ids, mask = inputs["input_ids"][0], inputs["attention_mask"][0]
    packed = nn.utils.rnn.pack_padded_sequence(body.embedding(ids), mask.sum(1), batch_first=True, enforce_sorted=False)
    expected = torch.cat(list(gru(packed)[1]), dim=-1)
    assert torch.allclose(body(ids, mask), expected, atol=1e-6)


def test_text_attention_equals_torch_transformer() -> None:
    options = TextAttention(embedding_size=8, heads=2, hidden_size=6, layers=2)
    body = options.body({"vocab_size": 20, "max_length": 10})
    assert isinstance(body, TextAttentionBody)
    for value in body.parameters():
        nn.init.normal_(value, std=0.5)
    theirs = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 6, 0.0, "gelu", batch_first=True, norm_first=True),
        num_layers=2,
        norm=nn.LayerNorm(8),
        enable_nested_tensor=False,
    )
    names = {
        "attention_norm": "norm1",
        "hidden_norm": "norm2",
        "queries_keys_values": "self_attn.in_proj",
        "mix": "self_attn.out_proj",
        "up": "linear1",
        "down": "linear2",
    }
    state = {}
    for name, value in body.state_dict().items():
        for ours, their in names.items():
            name = name.replace(f".{ours}.", f".{their}.")  # noqa: PLW2901
        state[name.replace("blocks.", "layers.").replace("in_proj.", "in_proj_")] = value
    tables = {key: state.pop(f"{key}.weight") for key in ("embedding", "positions")}
    theirs.load_state_dict(state)
    inputs = random_batch((1, 6, 7), 20, seed=15).inputs
    ids, mask = inputs["input_ids"][0], inputs["attention_mask"][0]
    hidden = theirs(tables["embedding"][ids] + tables["positions"][:7], src_key_padding_mask=mask == 0)
    expected = torch.stack([hidden[i, : mask[i].sum()].mean(0) for i in range(6)])
    assert torch.allclose(body(ids, mask), expected, atol=1e-5)


def test_text_attention_names_the_key_of_what_does_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"^model\.heads: 3 heads"):
        make_options("text_attention", embedding_size=8, heads=3)
    options = TextAttention(embedding_size=8, max_length=4)
    body = options.body(options.prepare(None, TEXTS)[1])
    ids = torch.ones(1, 5, dtype=torch.long)
    with pytest.raises(ConfigError, match=r"^data\.max_length: a text of 5 tokens; .* at most 4"):
        body(ids, ids)


def test_words_are_numbered_by_frequency() -> None:
    texts = ["Pay my bill", "pay THE bill", "pay, now"]
    tokenizer = build_tokenizer(texts, "words", vocab_size=100, min_count=2)
    assert tokenizer.get_vocab() == {"[PAD]": 0, "[UNK]": 1, "pay": 2, "bill": 3}
    assert tokenizer.encode("PAY the Bill").ids == [2, 1, 3]
    assert len(build_tokenizer(texts, "words", vocab_size=3, min_count=1).get_vocab()) == 3


def test_special_tokens_in_a_text_are_text() -> None:
    tokenizer = build_tokenizer(["pad [PAD] pad"] * 2, "words", vocab_size=100, min_count=1)
    assert 0 not in tokenizer.encode("[PAD]").ids


def test_a_word_beyond_all_length_teaches_no_pieces() -> None:
    """A megabyte without a blank; what stands beside it, and punctuation in it, is learned as ever."""
    texts = ["low lower lowest"] * 5
    there = build_tokenizer([*texts, f"newer {'qz' * 500_000} (newer)"] * 2, "wordpieces", 80, 2)
    assert "##qz" not in there.get_vocab()
    assert there.encode("newer").tokens == ["newer"]
    long = build_tokenizer([*texts, "qz" * 100] * 2, "wordpieces", 80, 2)
    assert "##qz" in long.get_vocab() or "##qzqz" in long.get_vocab()


@pytest.mark.parametrize("vocabulary", ["words", "wordpieces"])
def test_a_tokenizer_is_the_same_every_time(vocabulary: str) -> None:
    texts = [f"{a}{b} {b}{a}{b}" for a in "déjàvucontest" for b in "wörterbuch"]
    first, *others = [build_tokenizer(texts, vocabulary, 60, 1).to_str() for _ in range(6)]
    assert all(other == first for other in others)


def test_word_pieces_spell_unseen_words() -> None:
    tokenizer = build_tokenizer(["low lower lowest new newer"] * 5, "wordpieces", vocab_size=80, min_count=2)
    assert tokenizer.token_to_id("[PAD]") == 0
    encoding = tokenizer.encode("Newest")
    assert "[UNK]" not in encoding.tokens
    assert "".join(token.removeprefix("##") for token in encoding.tokens) == "newest"
    assert tokenizer.get_vocab_size() <= 80


@pytest.mark.parametrize("name", ["mlp", "text_attention", "text_cnn", "text_rnn"])
def test_models_from_scratch_refuse_a_path(name: str) -> None:
    options = make_options(name)
    assert options.pretrained(None) is None
    with pytest.raises(ConfigError, match=r"^model\.path: 'some/folder' given"):
        options.prepare("some/folder", TEXTS)


def test_prepare_reads_texts_once() -> None:
    tokenizer, architecture = TextCNN(vocabulary="wordpieces", vocab_size=60).prepare(None, iter(TEXTS))
    assert architecture == {"vocab_size": tokenizer.get_vocab_size(), "pad_id": 0}
    assert tokenizer.get_vocab_size() > 20
