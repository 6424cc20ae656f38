"""The modality `qwen2.5-vl`: Qwen2.5-VL on images and clips with questions.

It pretrains on captions, fine-tunes on questions and answers, and is evaluated on held-out questions.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from eflm.registry.contracts import Batch, Generated, Phase, WorkloadRequest
from eflm_plugins.data.batches import shuffled
from eflm_plugins.modalities.perplexity import evaluated, floor, perplexity
from eflm_plugins.saving.transformers_models import save_model
from eflm_schemas import Flag, Metric
from eflm_vision.data import clips, folder, named
from eflm_vision.data.scenes import Lesson, Scene, Scenes, asked
from eflm_vision.hosts.qwen_vl import QwenVlHost
from eflm_vision.modalities import nano_vl
from eflm_vision.modalities.answering import answers, evaluation_batches, generate
from eflm_vision.modalities.options import QwenVlOptions
from eflm_vision.modalities.prompts import Prompts
from eflm_vision.modalities.saved_vl import SavedVl, find
from eflm_vision.quality.answers import Answered, answer_scores
from eflm_vision.quality.show import captioned

PRESET = "qwen2.5-vl-nano"
#: Held-out captions for the perplexity after pretraining, and training samples for the perplexity floor.
EVAL_STATEMENTS, FLOOR_SAMPLES = 250, 1000
#: Held-out questions from which the most frequent shape is selected for requests.
CANDIDATES = 400
#: Number of images in the artifact answers.png.
SHOWN = 12


class QwenVlModality:
    """Qwen2.5-VL on images and clips with questions."""

    def __init__(self, options: QwenVlOptions | None = None) -> None:
        self.options = options or QwenVlOptions()

    def prepare(self, request: WorkloadRequest) -> QwenVlWorkload:
        """See `eflm.registry.contracts.Modality`. Raises DataError or ModelError."""
        saved = None if request.model == PRESET else find(request.model, self.options.max_pixels)
        scenes = named.questions(request.data)
        return QwenVlWorkload(request, self.options, scenes, saved)


class QwenVlWorkload:
    """Training, inference and evaluation of a vision-language model; see `eflm.registry.contracts.Workload`."""

    def __init__(
        self, request: WorkloadRequest, options: QwenVlOptions, scenes: Scenes, saved: SavedVl | None
    ) -> None:
        self.host = QwenVlHost(options.towers)
        self._request, self._options, self._scenes, self._saved = request, options, scenes, saved
        if saved is None:
            tokenizer = nano_vl.tokenizer(scenes.texts())
            processor = nano_vl.image_processor(options.max_pixels)
            self._config = nano_vl.config(tokenizer)
        else:
            tokenizer, processor, self._config = saved.tokenizer, saved.image_processor, saved.config
        self._image_processor = processor
        self._prompts = Prompts(
            tokenizer, processor, self._config, instruction=options.instruction, frames=options.frames
        )
        self.flags: Sequence[Flag] = self._flags()
        self.facts: Mapping[str, Any] = {
            "data": scenes.name,
            "data_sha256": scenes.sha256(),
            "data_pictures": len(scenes.train) + len(scenes.held_out),
            "data_questions": sum(len(s.questions) for s in (*scenes.train, *scenes.held_out)),
            "tokenizer": f"{len(tokenizer)} tokens",
            "instruction": options.instruction,
            "architecture": self._config.model_type,
            "artifacts": {
                "answers.png": "held-out scenes with a question, the answer, and if wrong, the reference answer"
            },
            **({"preset": request.model} if saved is None else saved.facts),
        }

    def _flags(self) -> tuple[Flag, ...]:
        without = sum(scene.caption is None for scene in self._scenes.train)
        if "pretrain" not in self._request.stages or not without:
            return ()
        detail = (
            f"{without} of {len(self._scenes.train)} training images or clips have no caption; pretraining uses a "
            "question with its answer instead"
        )
        return (Flag(name="data_without_captions", detail=detail, stage="pretrain"),)

    # --- the model ------------------------------------------------------------------------------------

    def build_model(self, *, from_scratch: bool, load_kwargs: Mapping[str, Any]) -> nn.Module:
        """Build the preset or the saved model. Random weights depend only on the request's seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._request.seed)
            if self._saved is None:
                return AutoModelForImageTextToText.from_config(copy.deepcopy(self._config))
            return self._saved.build(from_scratch=from_scratch, load_kwargs=load_kwargs, host=self.host)

    def outline(self) -> nn.Module:
        """Build the model that `build_model` loads, but read no weights; see `eflm.registry.contracts.HasOutline`."""
        if self._saved is None:
            return self.build_model(from_scratch=True, load_kwargs={})
        return self._saved.outline()

    def save(self, model: nn.Module, folder: str) -> None:
        """Write the model, its tokenizer and its image processor, which the auto classes of transformers load."""
        save_model(model, folder)
        self._prompts.tokenizer.save_pretrained(folder)
        self._image_processor.save_pretrained(folder)

    # --- training -------------------------------------------------------------------------------------

    def batches(self, stage: str) -> Iterator[Batch]:
        """Yield scenes with captions for "pretrain", and with questions and answers for "finetune"."""
        count = self._request.stages[stage].batch_size
        for chosen in shuffled(self._lessons(stage), batch_size=count, seed=self._request.seed):
            inputs = self._prompts.batch([self._prompts.sample(lesson) for lesson in chosen])
            tokens = int(inputs["attention_mask"].sum())
            yield Batch(inputs=self._placed(inputs), samples=len(chosen), tokens=tokens)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean cross entropy of captions or answers plus the routers' losses."""
        return model(**batch.inputs, use_cache=False).loss

    def _lessons(self, stage: str, *, held_out: bool = False) -> list[Lesson]:
        """Return one lesson per scene, without a question, for pretraining; otherwise one per question."""
        scenes = self._scenes.held_out if held_out else self._scenes.train
        return [Lesson(scene, None) for scene in scenes] if stage == "pretrain" else list(asked(scenes))

    def _placed(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(self._request.device) for name, tensor in inputs.items()}

    # --- inference ------------------------------------------------------------------------------------

    def requests(self) -> Iterator[Batch]:
        """Yield held-out questions of one length about images of one size, so that all requests cost the same."""
        options = self._request.stages["infer"]
        for chosen in shuffled(self._alike, batch_size=options.batch_size, seed=self._request.seed):
            inputs = self._prompts.questions([self._prompts.sample(lesson) for lesson in chosen])
            yield Batch(
                inputs=self._placed(inputs),
                samples=len(chosen),
                tokens=inputs["input_ids"].numel(),
                expected_tokens=len(chosen) * options.new_tokens,
            )

    @cached_property
    def _alike(self) -> list[Lesson]:
        """The held-out questions with the most frequent shape."""
        by_shape: dict[Any, list[Lesson]] = defaultdict(list)
        for lesson in _some(self._lessons("infer", held_out=True), CANDIDATES):
            by_shape[self._prompts.sample(lesson).shape].append(lesson)
        return max(by_shape.values(), key=len)

    def generate(self, model: nn.Module, request: Batch, phase: Phase) -> Generated:
        """Generate exactly `new_tokens` tokens, in windows "prefill" (which contains "encode_images") and "decode"."""
        return generate(model, request.inputs, self._request.stages["infer"].new_tokens, phase)

    # --- quality --------------------------------------------------------------------------------------

    def quality(self, model: nn.Module, stage: str) -> Mapping[str, Metric]:
        """Return PPL of held-out captions after pretraining; otherwise PPL of answers, vqa_accuracy and its floor."""
        learnt, size = self._learnt(stage), self._config.get_text_config().vocab_size
        limit = EVAL_STATEMENTS if learnt == "pretrain" else self._options.eval_questions
        held_out = _some(self._lessons(learnt, held_out=True), limit)
        train = _some(self._lessons(learnt), FLOOR_SAMPLES)
        score = perplexity(model, evaluation_batches(self._prompts, held_out, size))
        what = "captions" if learnt == "pretrain" else "answers to questions"
        found = {
            "PPL": evaluated(score, note=f"{len(held_out)} held-out {what}"),
            "unigram_ppl": floor(self._answer_tokens(train), self._answer_tokens(held_out), size),
        }
        if learnt == "pretrain":
            return found
        given = answers(model, self._prompts, held_out, self._request.device)
        self._answered = [Answered(*pair) for pair in zip(held_out, given, strict=True)]
        return found | answer_scores(self._answered, self._scenes.majority_answer)

    def _answer_tokens(self, lessons: Sequence[Lesson]) -> Tensor:
        return torch.tensor([token for lesson in lessons for token in self._prompts.answer(lesson)])

    def artifacts(self, model: nn.Module, stage: str) -> Mapping[str, bytes]:
        """Return a PNG of scenes with a question, the model's answer, and if it is wrong, the reference answer."""
        if self._learnt(stage) == "pretrain":
            return {}
        chosen = self._answered[:SHOWN]
        captions = [
            f"{a.lesson.question.text}\n{a.given}" + ("" if a.right else f" ({a.lesson.answer})")
            for a in chosen
        ]
        return {"answers.png": captioned([_look(a.lesson.scene) for a in chosen], captions)}

    def _learnt(self, stage: str) -> str:
        """Return "pretrain" or "finetune", the training stage on whose task the model is evaluated.

        For inference, this is the last training stage, or "finetune" if there is none.
        """
        if stage != "infer":
            return stage
        trained = [name for name in ("pretrain", "finetune") if name in self._request.stages]
        return trained[-1] if trained else "finetune"


def _look(scene: Scene) -> Image.Image:
    """Return the image, or the first frame of the clip."""
    return clips.sampled(scene.file, 1)[0][0] if scene.clip else folder.whole(scene.file)


def _some(lessons: Sequence[Lesson], limit: int) -> list[Lesson]:
    """Return a random sample of at most `limit` lessons, the same in every run.

    The sample is random because the kinds of question recur periodically in the original order.
    """
    order = torch.randperm(len(lessons), generator=torch.Generator().manual_seed(0))
    return [lessons[index] for index in order[:limit].tolist()]
