"""Scores of pairs equal the plain model's, whatever they are batched with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llmlaunch.worker.engine.reranker import Reranker
from llmlaunch.worker.errors import StartupError
from llmlaunch.worker.tokenization.tokenizer import Pair, Tokenizer
from tests.unit.worker import tiny


def model(**settings: Any) -> Any:
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_labels=1, **settings,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.BertForSequenceClassification(config).eval()


PAIRS = [Pair([1, 2, 3, 4], [0, 0, 1, 1]), Pair([5, 6], [0, 1]), Pair([7] * 9, [0] * 4 + [1] * 5)]


@pytest.mark.parametrize(
    ("settings", "activation"),
    [
        ({}, torch.sigmoid),
        (
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
            lambda score: score,
        ),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"}, torch.sigmoid),
    ],
    ids=["by default", "as sentence-transformers says", "as the older key says"],
)
def test_scores_are_the_models(settings: dict[str, Any], activation: Any) -> None:
    plain = model(**settings)
    scores = Reranker(plain, tiny.never_lost).score(PAIRS)
    for pair, score in zip(PAIRS, scores, strict=True):
        with torch.inference_mode():
            out = plain(torch.tensor([pair.tokens]), token_type_ids=torch.tensor([pair.types]))
        assert score == pytest.approx(float(activation(out.logits[0, 0])), abs=1e-5)


def test_an_activation_that_is_not_known_is_refused() -> None:
    with pytest.raises(StartupError, match="Swish"):
        Reranker(model(sentence_transformers={"activation_fn": "Swish"}), tiny.never_lost)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder of its own, with a tokenizer that marks which text a word is from."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "what", "is", "paris", "a", "city", "stone"]
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip
    place = tmp_path_factory.mktemp("cross")
    model(max_position_embeddings=24).save_pretrained(place)
    wrapped.save_pretrained(place)
    return place


def test_pairs_are_marked_and_cut_where_asked(folder: Path) -> None:
    tokenizer = Tokenizer(AutoTokenizer.from_pretrained(folder))
    pair = tokenizer.encode_pair("what is paris", "a city")
    assert pair == Pair([2, 4, 5, 6, 3, 7, 8, 3], [0, 0, 0, 0, 0, 1, 1, 1])
    cut = tokenizer.encode_pair("what", "city " * 50, 10)
    assert len(cut.tokens) == len(cut.types) == 10
    assert len(tokenizer.encode_pair("what", "city " * 50).tokens) == 54
    assert len(tokenizer.encode("city " * 50)) == 52


def test_a_worker_reranks(folder: Path) -> None:
    from tests.e2e.worker.server import started

    with started(str(folder), "--model-names", "cross") as worker:
        documents: list[Any] = ["a city", {"text": "stone"}, "what is a city"]
        ask = {"model": "cross", "query": "what is paris", "documents": documents}
        answer = worker.post("/v1/rerank", **ask).json()
        scores = [result["relevance_score"] for result in answer["results"]]
        assert scores == sorted(scores, reverse=True)
        assert sorted(result["index"] for result in answer["results"]) == [0, 1, 2]
        assert {result["document"]["text"] for result in answer["results"]} == {
            "a city",
            "stone",
            "what is a city",
        }
        assert answer["usage"]["total_tokens"] == 8 + 7 + 10
        short = worker.post("/rerank", **ask, top_n=1, return_documents=False).json()
        assert short["results"] == [{key: answer["results"][0][key] for key in ("index", "relevance_score")}]
        scored = worker.post(
            "/v1/score", model="cross", text_1="what is paris", text_2=["a city", "stone"]
        ).json()
        by_index = {result["index"]: result["relevance_score"] for result in answer["results"]}
        assert [item["score"] for item in scored["data"]] == pytest.approx(
            [by_index[0], by_index[1]], abs=1e-5
        )
        for path, wrong, param in (
            ("/v1/rerank", ask | {"documents": []}, "documents"),
            ("/v1/rerank", ask | {"documents": [5]}, "documents"),
            ("/v1/rerank", ask | {"documents": [{"title": "x"}]}, "documents"),
            ("/v1/rerank", ask | {"documents": ["city " * 50]}, "documents"),
            ("/v1/rerank", ask | {"query": ""}, "query"),
            ("/v1/rerank", ask | {"top_n": 0}, "top_n"),
            ("/v1/score", {"model": "cross", "text_1": ["a", "b"], "text_2": ["a"]}, "text_2"),
            ("/v1/embeddings", {"model": "cross", "input": "x"}, "model"),
        ):
            refused = worker.post(path, **wrong)
            assert refused.status_code == 400, refused.text
            assert refused.json()["error"]["param"] == param
        for cut, tokens in (
            ({"truncate": True}, 24),
            ({"truncate_prompt_tokens": -1}, 24),
            ({"truncate_prompt_tokens": 12}, 12),
            ({"truncate_prompt_tokens": 4}, 4),
        ):
            found = worker.post("/v1/rerank", **ask | {"documents": ["city " * 50]} | cut)
            assert found.status_code == 200, found.text
            assert found.json()["usage"]["total_tokens"] == tokens
        for length in (0, 1, 2, -2, 25, "4"):
            refused = worker.post("/v1/rerank", **ask | {"truncate_prompt_tokens": length})
            assert refused.status_code == 400, refused.text
            assert refused.json()["error"]["param"] == "truncate_prompt_tokens"
