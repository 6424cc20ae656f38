"""The language modality: it creates the workload of the three stages from a decoder and text.

`LlmModality.prepare` finds the model and reads the data; `LlmWorkload` combines the modules of this package and of the
`data` package.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen2ForCausalLM

from eflm.errors import ModelError
from eflm.registry.contracts import Batch, Generated, Phase, WorkloadRequest
from eflm_plugins.data import stdlib_text, user_file
from eflm_plugins.data.batches import (
    TokenPair,
    collate,
    packed,
    prompts,
    sequences,
    shuffled,
    token_pairs,
)
from eflm_plugins.data.corpus import Corpus
from eflm_plugins.data.token_cache import cached_token_stream
from eflm_plugins.hosts.decoder import DecoderHost
from eflm_plugins.hosts.positions import set_positions
from eflm_plugins.modalities.context import clip_to_context
from eflm_plugins.modalities.generation import generate_greedily
from eflm_plugins.modalities.nano import nano_config
from eflm_plugins.modalities.options import LlmOptions
from eflm_plugins.modalities.perplexity import evaluated, floor, perplexity, rows_at_once
from eflm_plugins.modalities.pretrained import Pretrained, find
from eflm_plugins.modalities.texts import split_for_stages, texts_of
from eflm_plugins.modalities.vocabulary import choose_vocabulary
from eflm_plugins.saving.transformers_models import save_model
from eflm_schemas import Flag, Metric


class LlmModality:
    """Decoder language models on text."""

    def __init__(self, options: LlmOptions | None = None) -> None:
        self.options = options or LlmOptions()

    def prepare(self, request: WorkloadRequest) -> LlmWorkload:
        """See `eflm.registry.contracts.Modality`. Raises DataError or ModelError."""
        # Find the model first, so that a misspelled name fails before the data is read.
        pretrained = None if request.model == "nano" else find(request.model)
        corpus = stdlib_text.load() if request.data is None else user_file.load(request.data)
        return LlmWorkload(request, self.options, corpus, pretrained)


class LlmWorkload:
    """The workload of a decoder; see `eflm.registry.contracts.Workload`."""

    def __init__(
        self, request: WorkloadRequest, options: LlmOptions, corpus: Corpus, pretrained: Pretrained | None
    ) -> None:
        self.host = DecoderHost()
        self._request, self._options, self._pretrained = request, options, pretrained
        flags: list[Flag] = []
        self._split = split_for_stages(corpus, request.stages, flags)
        self._vocabulary = choose_vocabulary(pretrained, texts_of(self._split.train), flags)
        config = self._nano_config() if pretrained is None else pretrained.config.get_text_config()
        self._context: int | None = getattr(config, "max_position_embeddings", None)
        self._stages = clip_to_context(request.stages, self._context, flags)
        self.flags = tuple(flags)
        self.facts = {
            "data": corpus.name,
            "data_sha256": corpus.sha256(),
            "data_python": platform.python_version() if request.data is None else None,
            "data_documents": len(corpus.documents),
            "data_pairs": len(corpus.pairs),
            "tokenizer": self._vocabulary.name,
            "architecture": config.model_type,
            **({"preset": request.model} if pretrained is None else pretrained.facts()),
        }

    # --- the model ------------------------------------------------------------------------------------

    def build_model(self, *, from_scratch: bool, load_kwargs: Mapping[str, Any]) -> nn.Module:
        """Build the preset or the pretrained model; random weights depend only on the request's seed."""
        positions = self._options.positions
        if positions != "rope" and not (from_scratch or self._pretrained is None):
            raise ModelError(
                f"llm.positions={positions} cannot be used with the trained weights of --model {self._request.model}, "
                "which depend on the encoding they were trained with; leave it out, or add --stage pretrain to train "
                "the architecture from random weights"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._request.seed)
            if self._pretrained is None:
                model: nn.Module = Qwen2ForCausalLM(self._nano_config())
            else:
                model = self._pretrained.build(
                    from_scratch=from_scratch, load_kwargs=load_kwargs, host=self.host
                )
            set_positions(model, positions)
        return self._with_padding_token(model)

    def outline(self) -> nn.Module:
        """Build the model that `build_model` loads, but read no weights; see `eflm.registry.contracts.HasOutline`."""
        if self._pretrained is None:
            return self.build_model(from_scratch=True, load_kwargs={})
        return self._with_padding_token(self._pretrained.outline())

    def save(self, model: nn.Module, folder: str) -> None:
        """Write the model and its tokenizer to `folder`, which `AutoModelForCausalLM.from_pretrained` loads.

        A model with techniques names the plugins that it needs; eflm loads it with `--model FOLDER`.
        """
        save_model(model, folder)
        self._vocabulary.tokenizer.save_pretrained(folder)

    def _with_padding_token(self, model: nn.Module) -> nn.Module:
        for config in (model.config, model.generation_config):
            if config is not None and config.pad_token_id is None:
                config.pad_token_id = self._vocabulary.pad_token_id
        return model

    def _nano_config(self) -> Any:
        tokenizer = self._vocabulary.tokenizer
        return nano_config(
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )

    # --- training -------------------------------------------------------------------------------------

    def batches(self, stage: str) -> Iterator[Batch]:
        """Yield packed text for "pretrain" or padded pairs for "finetune", on the request's device."""
        options = self._stages[stage]
        device, seed = self._request.device, self._request.seed
        if stage == "pretrain":
            rows = packed(
                self._train_stream, batch_size=options.batch_size, length=options.sequence_length, seed=seed
            )
            for input_ids in (row.to(device) for row in rows):
                inputs = {"input_ids": input_ids, "labels": input_ids}
                yield Batch(inputs=inputs, samples=len(input_ids), tokens=input_ids.numel())
        else:
            for chosen in shuffled(self._train_pairs, batch_size=options.batch_size, seed=seed):
                inputs = collate(chosen, self._vocabulary.pad_token_id)
                tokens = int(inputs["attention_mask"].sum())
                inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
                yield Batch(inputs=inputs, samples=len(chosen), tokens=tokens)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean cross entropy of the labelled tokens, plus the auxiliary losses of routers."""
        return model(**batch.inputs, use_cache=False).loss

    # --- inference ------------------------------------------------------------------------------------

    def requests(self) -> Iterator[Batch]:
        """Yield prompts of exactly `infer.prompt_tokens` tokens from the held-out text."""
        options = self._stages["infer"]
        stream = self._held_out_stream
        rows = prompts(
            stream, batch_size=options.batch_size, length=options.prompt_tokens, seed=self._request.seed
        )
        for input_ids in (row.to(self._request.device) for row in rows):
            yield Batch(
                inputs={"input_ids": input_ids},
                samples=len(input_ids),
                tokens=input_ids.numel(),
                expected_tokens=len(input_ids) * options.new_tokens,
            )

    def generate(self, model: nn.Module, request: Batch, phase: Phase) -> Generated:
        """Decode exactly `infer.new_tokens` tokens greedily, in the windows "prefill" and "decode"."""
        return generate_greedily(model, request.inputs["input_ids"], self._stages["infer"].new_tokens, phase)

    # --- quality --------------------------------------------------------------------------------------

    def quality(self, model: nn.Module, stage: str) -> Mapping[str, Metric]:
        """Return PPL on held-out text (after fine-tuning: on completions) and unigram_ppl on the same tokens."""
        if stage == "finetune":
            return self._quality_of_pairs(model)
        length = min(self._options.eval_sequence_length, self._context or self._options.eval_sequence_length)
        rows = sequences(self._held_out_stream, length, self._options.eval_tokens)
        at_once = rows_at_once(rows.shape[1], self._vocabulary.size)
        score = perplexity(model, ({"input_ids": part, "labels": part} for part in rows.split(at_once)))
        note = f"held-out text in sequences of {rows.shape[1]} tokens"
        return {
            "PPL": evaluated(score, note=note),
            "unigram_ppl": floor(self._train_stream, rows[:, 1:], self._vocabulary.size),
        }

    def _quality_of_pairs(self, model: nn.Module) -> Mapping[str, Metric]:
        length = self._stages["finetune"].sequence_length
        pairs = token_pairs(
            self._vocabulary.tokenizer, self._split.held_out.pairs[: self._options.eval_pairs], length
        )
        at_once = rows_at_once(length, self._vocabulary.size)
        parts = [pairs[i : i + at_once] for i in range(0, len(pairs), at_once)]
        score = perplexity(model, (collate(part, self._vocabulary.pad_token_id) for part in parts))
        train, held_out = _completions(self._train_pairs), _completions(pairs)
        return {
            "PPL": evaluated(score, note=f"the completions of {len(pairs)} held-out pairs"),
            "unigram_ppl": floor(train, held_out, self._vocabulary.size),
        }

    # --- tokens ---------------------------------------------------------------------------------------

    @cached_property
    def _train_stream(self) -> Tensor:
        return cached_token_stream(self._vocabulary.tokenizer, texts_of(self._split.train))

    @cached_property
    def _train_pairs(self) -> list[TokenPair]:
        length = self._stages["finetune"].sequence_length
        return token_pairs(self._vocabulary.tokenizer, self._split.train.pairs, length)

    @cached_property
    def _held_out_stream(self) -> Tensor:
        return cached_token_stream(self._vocabulary.tokenizer, texts_of(self._split.held_out))


def _completions(pairs: list[TokenPair]) -> Tensor:
    return torch.tensor([token for pair in pairs for token in pair.completion], dtype=torch.long)
