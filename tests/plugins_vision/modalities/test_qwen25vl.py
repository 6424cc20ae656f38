"""The Qwen2.5-VL modality: batches, requests, evaluation of answers, and saved models."""

from __future__ import annotations

import io
import json
import shutil
import weakref
from contextlib import contextmanager
from types import SimpleNamespace
from unittest import mock

import numpy
import pytest
import torch
from PIL import Image, ImageDraw
from transformers import AutoModelForImageTextToText, Qwen2_5_VLProcessor

from eflm import DataError, ModelError
from eflm.planning.stage_options import FinetuneOptions, InferOptions, PretrainOptions
from eflm.registry.contracts import WorkloadRequest
from eflm_plugins.data.batches import IGNORED
from eflm_plugins.quantizers.int4 import int4
from eflm_plugins.quantizers.options import Int4Options
from eflm_vision.data import clips, easy_vqa
from eflm_vision.data.scenes import Lesson, Question, Scene, Scenes, asked
from eflm_vision.modalities import answering, nano_vl, qwen25vl
from eflm_vision.modalities.answering import answers
from eflm_vision.modalities.options import QwenVlOptions
from eflm_vision.modalities.prompts import Prompts
from eflm_vision.modalities.qwen25vl import QwenVlModality, QwenVlWorkload
from support.qwen_vl import with_attention
from support.saved import save_vl
from support.small_sets import small_easy_vqa

STAGES = {
    "pretrain": PretrainOptions(batch_size=4),
    "finetune": FinetuneOptions(batch_size=4),
    "infer": InferOptions(batch_size=2, new_tokens=3),
}
OPTIONS = {"instruction": "", "eval_questions": 12}


def workload_of(model="qwen2.5-vl-nano", seed=0, data=None, stages=STAGES, **options):
    request = WorkloadRequest(model=model, data=data, stages=stages, seed=seed, device="cpu")
    return QwenVlModality(QwenVlOptions(**{**OPTIONS, **options})).prepare(request)


@pytest.fixture(autouse=True, scope="module")
def few_scenes():
    """Use a tenth of easy-VQA, 400 training images and 100 held out, and look at few of them for requests."""
    with small_easy_vqa(), mock.patch.object(qwen25vl, "CANDIDATES", 60):
        yield


@pytest.fixture(scope="module")
def workload():
    return workload_of()


@pytest.fixture(scope="module")
def model(workload):
    return workload.build_model(from_scratch=True, load_kwargs={}).eval()


@pytest.fixture
def shapes(tmp_path):
    """A folder of twenty images of two sizes, with one question each; every second image has a caption."""
    lines = []
    for index in range(20):
        colour = ("red", "blue")[index % 2]
        picture = Image.new("RGB", ((64, 64), (96, 48))[index % 3 == 0], "white")
        ImageDraw.Draw(picture).rectangle((10, 10, 30, 30), fill=colour)
        picture.save(tmp_path / f"{index}.png")
        line = {"image": f"{index}.png", "question": "which colour is it?", "answer": colour}
        lines.append(line | ({"caption": f"a {colour} square"} if index % 2 else {}))
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


class Windows:
    """A `Phase` that records the opened windows with the path of their parents."""

    def __init__(self):
        self.names, self._open = [], []

    @contextmanager
    def __call__(self, name, *, tokens=0, samples=0):
        self.names.append(("/".join([*self._open, name]), tokens, samples))
        self._open.append(name)
        yield
        self._open.pop()


# --- training data -----------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_batches_and_weights(workload):
    same, other = workload_of(), workload_of(seed=1)
    for stage in ("pretrain", "finetune"):
        first, again, differently = (next(w.batches(stage)) for w in (workload, same, other))
        assert all(torch.equal(tensor, again.inputs[name]) for name, tensor in first.inputs.items())
        assert not torch.equal(first.inputs["pixel_values"], differently.inputs["pixel_values"])
    weights, others = (w.build_model(from_scratch=True, load_kwargs={}).state_dict() for w in (same, other))
    assert any(not torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_the_loss_is_on_captions_or_answers_only(workload, stage):
    batch = next(workload.batches(stage))
    tokenizer = nano_vl.tokenizer(easy_vqa.load().texts())
    targets = [tokenizer.decode(row[row != IGNORED]) for row in batch.inputs["labels"]]
    assert all(text.endswith(nano_vl.TURN_END) for text in targets)
    texts = {text.removesuffix(nano_vl.TURN_END) for text in targets}
    scenes = easy_vqa.load().train
    known = (
        {s.statement() for s in scenes}
        if stage == "pretrain"
        else {q.answer for s in scenes for q in s.questions}
    )
    assert texts <= known
    images = batch.inputs["mm_token_type_ids"] == 1
    assert images.sum(1).tolist() == [16] * 4, "64 patches; four are merged into one token"
    assert batch.tokens == int(batch.inputs["attention_mask"].sum())


def test_questions_are_in_the_chat_format_of_the_model(workload):
    request = next(workload.requests())
    tokenizer = nano_vl.tokenizer(easy_vqa.load().texts())
    text = tokenizer.decode(request.inputs["input_ids"][0])
    picture = nano_vl.START + nano_vl.IMAGE * 16 + nano_vl.END
    assert text.startswith(f"{nano_vl.TURN}user\n{picture}")
    assert text.endswith(f"?{nano_vl.TURN_END}\n{nano_vl.TURN}assistant\n")


def test_placeholders_for_an_image_equal_those_of_transformers_processor(workload):
    """The processor needs torchvision, but its method for the placeholders can be called without it."""
    scenes = easy_vqa.load()
    processor = nano_vl.image_processor()
    prompts = Prompts(
        nano_vl.tokenizer(scenes.texts()), processor, nano_vl.config(nano_vl.tokenizer(scenes.texts()))
    )
    scene = scenes.train[0]
    sample = prompts.sample(Lesson(scene, scene.questions[0]))
    with Image.open(scene.file) as opened:
        inputs = processor([opened.convert("RGB")], return_tensors="pt")
    theirs = Qwen2_5_VLProcessor.replace_image_token(
        SimpleNamespace(image_processor=processor, image_token=nano_vl.IMAGE), inputs, 0
    )
    placeholders = [
        token
        for token in sample.pair.prompt
        if token == prompts.tokenizer.convert_tokens_to_ids(nano_vl.IMAGE)
    ]
    assert prompts.tokenizer.decode(placeholders) == theirs
    assert torch.equal(sample.patches.values, inputs["pixel_values"])


def test_captions_are_learnt(workload):
    model = workload.build_model(from_scratch=True, load_kwargs={}).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for batch, _ in zip(workload.batches("pretrain"), range(25), strict=False):
        optimizer.zero_grad()
        loss = workload.loss(model, batch)
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert sum(losses[-5:]) / 5 < 0.5 * sum(losses[:5]) / 5


# --- inference -----------------------------------------------------------------------------------------------


def test_all_requests_have_the_same_shape(workload):
    lengths = {
        request.inputs["input_ids"].shape for request, _ in zip(workload.requests(), range(20), strict=False)
    }
    assert len(lengths) == 1
    request = next(workload.requests())
    assert (request.samples, request.expected_tokens) == (2, 6)


def test_a_request_has_windows_for_encoding_prefill_and_decoding(workload, model):
    windows, request = Windows(), next(workload.requests())
    out = workload.generate(model, request, windows)
    tokens = request.inputs["input_ids"].numel()
    assert windows.names == [
        ("prefill", tokens, 2),
        ("prefill/encode_images", 0, 2),
        ("decode", 4, 2),
        ("decode/token", 2, 2),
        ("decode/token", 2, 2),
    ]
    assert (out.samples, out.tokens, out.outputs.shape) == (2, 6, (2, 3))


def test_greedy_tokens_equal_those_of_transformers_generate(workload, model):
    request = next(workload.requests())
    ours = workload.generate(model, request, Windows()).outputs
    theirs = model.generate(
        **request.inputs, do_sample=False, min_new_tokens=3, max_new_tokens=3, eos_token_id=None
    )
    assert torch.equal(ours, theirs[:, -3:])


def test_answers_do_not_depend_on_the_other_questions(workload, model):
    scenes = easy_vqa.load()
    tokenizer = nano_vl.tokenizer(scenes.texts())
    prompts = Prompts(tokenizer, nano_vl.image_processor(), nano_vl.config(tokenizer))
    lessons = list(asked(scenes.held_out[:6]))[:40]
    together = answers(model, prompts, lessons, "cpu")
    assert len({prompts.words(lesson) for lesson in lessons}) > 3
    backwards = answers(model, prompts, lessons[::-1], "cpu")
    assert together == backwards[::-1]
    longest = max(lessons, key=lambda lesson: len(prompts.answer(lesson)))
    for lesson, answer in list(zip(lessons, together, strict=True))[:5]:
        assert answers(model, prompts, [lesson, longest], "cpu")[0] == answer


def test_quality_and_artifacts(workload, model):
    quality = workload.quality(model, "finetune")
    assert set(quality) == {"PPL", "unigram_ppl", "vqa_accuracy", "vqa_accuracy_floor"}
    assert quality["vqa_accuracy"].n == quality["vqa_accuracy_floor"].n == 12
    assert quality["vqa_accuracy"].value < 0.2, "the model is not trained"
    assert 0.1 < quality["vqa_accuracy_floor"].value < 0.7
    assert quality["PPL"].value > quality["unigram_ppl"].value
    picture = Image.open(io.BytesIO(workload.artifacts(model, "finetune")["answers.png"]))
    assert picture.width == 4 * 228
    assert set(workload.quality(model, "pretrain")) == {"PPL", "unigram_ppl"}
    assert workload.artifacts(model, "pretrain") == {}


def test_inference_is_evaluated_on_the_task_of_the_last_training_stage(workload, model):
    captions_only = workload_of(stages={name: STAGES[name] for name in ("pretrain", "infer")})
    assert "captions" in captions_only.quality(model, "infer")["PPL"].note
    assert "answers" in workload.quality(model, "infer")["PPL"].note


def test_easy_vqa_is_the_default():
    assert workload_of(data="easy-vqa").facts["data_sha256"] == workload_of().facts["data_sha256"]


# --- user data -----------------------------------------------------------------------------------------------


def test_questions_from_a_users_folder(shapes):
    workload = workload_of(data=str(shapes))
    assert workload.facts["data_pictures"] == 20
    assert [flag.name for flag in workload.flags] == ["data_without_captions"]
    model = workload.build_model(from_scratch=True, load_kwargs={})
    for stage in ("pretrain", "finetune"):
        assert torch.isfinite(workload.loss(model, next(workload.batches(stage))))
    request = next(workload.requests())
    assert len({tuple(grid.tolist()) for grid in request.inputs["image_grid_thw"]}) == 1
    assert workload.quality(model, "finetune")["vqa_accuracy"].n == 4


def test_all_kinds_of_questions_are_evaluated(tmp_path):
    """Every image has the same questions in the same order, so an even stride would select only one of them."""
    questions = tuple(Question(text=f"what is {kind}?", answer=kind) for kind in ("a", "b", "c", "d"))
    Image.new("RGB", (64, 64)).save(tmp_path / "x.png")
    scene = Scene(file=tmp_path / "x.png", questions=questions)
    request = WorkloadRequest(model="qwen2.5-vl-nano", data=None, stages=STAGES, seed=0, device="cpu")
    scenes = Scenes(name="x", train=(scene,) * 3, held_out=(scene,) * 40)
    workload = QwenVlWorkload(request, QwenVlOptions(instruction="", eval_questions=40), scenes, None)
    model = workload.build_model(from_scratch=True, load_kwargs={})
    floor = workload.quality(model, "finetune")["vqa_accuracy_floor"]
    assert 0 < floor.value < 1
    assert "40 held-out questions about 1 scenes" in workload.quality(model, "finetune")["vqa_accuracy"].note


def test_patches_are_released_after_each_batch(monkeypatch):
    """The patches of a real image take megabytes."""
    monkeypatch.setattr(answering, "AT_ONCE", 16)
    monkeypatch.setattr(qwen25vl, "CANDIDATES", 100)
    workload, alive, most = workload_of(eval_questions=100), weakref.WeakSet(), [0]
    model = workload.build_model(from_scratch=True, load_kwargs={})
    make = Prompts.sample

    def counted(self, lesson):
        sample = make(self, lesson)
        alive.add(sample.patches)
        most[0] = max(most[0], len(alive))
        return sample

    monkeypatch.setattr(Prompts, "sample", counted)
    workload.quality(model, "finetune")
    next(workload.requests())
    assert 10 < most[0] <= 3 * answering.AT_ONCE


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"question": f"is {nano_vl.IMAGE} red?"}, r"\.png .*<\|image_pad\|>"),
        ({"answer": nano_vl.END}, r"\.png .*<\|vision_end\|>"),
        ({"question": "word " * 2000}, r"\.png .* tokens, .* 1,024; .*qwen2\.5-vl\.max_pixels"),
    ],
)
def test_texts_that_are_too_long_or_contain_special_tokens_are_errors(shapes, line, words):
    file = shapes / "questions.jsonl"
    lines = [json.loads(text) | line for text in file.read_text().splitlines()]
    file.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(DataError, match=words):
        next(workload_of(data=str(shapes)).batches("finetune"))


def test_an_image_that_the_processor_rejects_is_an_error_with_its_name(shapes):
    for file in shapes.glob("*.png"):
        Image.new("RGB", (900, 2)).save(file)
    with pytest.raises(DataError, match=r"\.png: absolute aspect ratio"):
        next(workload_of(data=str(shapes)).batches("finetune"))


def test_an_unreadable_image_is_an_error_with_its_name(shapes):
    for file in shapes.glob("*.png"):
        file.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"\d+\.png cannot be read"):
        next(workload_of(data=str(shapes)).batches("finetune"))


@pytest.fixture
def moving(tmp_path):
    """A folder of twelve clips of a square that moves left or right: five frames of 0.1 s each."""
    lines = []
    for index in range(12):
        direction, frames = ("left", "right")[index % 2], []
        for step in range(5):
            frame = Image.new("RGB", (48, 32), "white")
            left = 4 + 8 * (step if direction == "right" else 4 - step)
            ImageDraw.Draw(frame).rectangle((left, 12, left + 8, 20), fill=(20 * step, 0, 0))
            frames.append(frame)
        frames[0].save(tmp_path / f"{index}.gif", save_all=True, append_images=frames[1:], duration=100)
        lines.append({"video": f"{index}.gif", "question": "which way does it move?", "answer": direction})
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


def test_clips_are_sampled_and_encoded_as_videos(moving):
    workload = workload_of(data=str(moving), frames=4)
    batch = next(workload.batches("finetune"))
    assert batch.inputs["video_grid_thw"].tolist() == [[2, 4, 6]] * 4
    assert (batch.inputs["mm_token_type_ids"] == 2).sum(1).tolist() == [2 * 4 * 6 // 4] * 4
    # Four frames over 0.4 s are 0.4 / 3 s apart, and a temporal patch spans two frames.
    assert batch.inputs["second_per_grid_ts"].tolist() == pytest.approx([2 * 0.4 / 3] * 4)
    model = workload.build_model(from_scratch=True, load_kwargs={})
    assert torch.isfinite(workload.loss(model, batch))
    request = next(workload.requests())
    ours = workload.generate(model.eval(), request, Windows()).outputs
    theirs = model.generate(
        **request.inputs, do_sample=False, min_new_tokens=3, max_new_tokens=3, eos_token_id=None
    )
    assert torch.equal(ours, theirs[:, -3:])
    quality = workload.quality(model, "finetune")
    assert quality["vqa_accuracy"].n == 2
    assert Image.open(io.BytesIO(workload.artifacts(model, "finetune")["answers.png"])).width == 4 * 228


def test_the_patches_of_a_clip_equal_the_pixels_of_its_frames(moving):
    """Compares with a loop in the model's order: frames, merged rows and columns, patches within them, pixels."""
    tokenizer = nano_vl.tokenizer(["x"])
    processor = nano_vl.image_processor()
    prompts = Prompts(tokenizer, processor, nano_vl.config(tokenizer), frames=3)
    scene = Scene(file=moving / "0.gif", questions=(), caption="x", clip=True)
    patches = prompts.sample(Lesson(scene, None)).patches
    frames = [
        numpy.asarray(frame, dtype=numpy.float32) / 255 for frame in clips.sampled(moving / "0.gif", 3)[0]
    ]
    frames.append(frames[-1])
    mean, std = numpy.array(processor.image_mean), numpy.array(processor.image_std)
    side, number = nano_vl.PATCH, 0
    assert patches.grid == (2, 4, 6)
    for time in range(2):
        for big_row in range(2):
            for big_column in range(3):
                for row in range(2):
                    for column in range(2):
                        top, left = side * (2 * big_row + row), side * (2 * big_column + column)
                        layers = [
                            (frames[2 * time + layer][top : top + side, left : left + side] - mean) / std
                            for layer in range(2)
                        ]
                        expected = numpy.stack([layer.transpose(2, 0, 1) for layer in layers], axis=1)
                        got = patches.values[number].view(3, 2, side, side).numpy()
                        numpy.testing.assert_allclose(got, expected, atol=1e-5)
                        number += 1
    assert number == len(patches.values)


def test_images_and_clips_can_be_mixed(shapes, moving):
    assert moving == shapes, "both fixtures use the same folder"
    pictures = [{"image": f"{i}.png", "question": "which colour is it?", "answer": "red"} for i in range(12)]
    with (moving / "questions.jsonl").open("a") as file:
        file.write("\n" + "\n".join(map(json.dumps, pictures)))
    workload = workload_of(data=str(moving))
    model = workload.build_model(from_scratch=True, load_kwargs={})
    kinds = set()
    for batch, _ in zip(workload.batches("finetune"), range(4), strict=False):
        kinds |= {name for name in batch.inputs if name.endswith("_thw")}
        assert torch.isfinite(workload.loss(model, batch))
    assert kinds == {"image_grid_thw", "video_grid_thw"}


# --- saved models --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved_once(tmp_path_factory):
    """A folder with a saved model, tokenizer and image processor, which no test changes."""
    folder = tmp_path_factory.mktemp("qwen2.5-vl")
    save_vl(folder)
    return folder


@pytest.fixture
def saved(saved_once, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(saved_once, tmp_path / "saved")


def test_a_saved_model_gives_the_same_logits(saved, workload, model):
    loaded = workload_of(str(saved))
    assert loaded.facts["model_sha256"]
    again = loaded.build_model(from_scratch=False, load_kwargs={}).eval()
    request = next(workload.requests())
    assert torch.equal(next(loaded.requests()).inputs["input_ids"], request.inputs["input_ids"])
    given, expected = (m(**request.inputs).logits for m in (again, model))
    torch.testing.assert_close(given, expected)
    bf16 = loaded.build_model(from_scratch=False, load_kwargs={"dtype": torch.bfloat16})
    assert bf16.dtype == torch.bfloat16
    assert torch.isfinite(workload.loss(bf16, next(loaded.batches("finetune"))))


def test_a_hub_id_gives_the_same_logits_as_the_folder(saved, model, hub):
    commit = hub.publish("org/tiny-vl", saved)
    loaded = workload_of("org/tiny-vl")
    assert loaded.facts["model_revision"] == commit
    assert "model.safetensors" not in hub.fetched()
    again = loaded.build_model(from_scratch=False, load_kwargs={}).eval()
    request = next(loaded.requests())
    torch.testing.assert_close(again(**request.inputs).logits, model(**request.inputs).logits)


@pytest.mark.parametrize("towers", ["both", "language", "vision"])
def test_a_saved_model_is_loaded_in_4_bits(saved, towers):
    """Uses transformers' quantization config, like on a GPU, but keeps the weights on the CPU."""
    import bitsandbytes

    quantizer = int4(Int4Options(compute_dtype="fp32"))
    loaded = workload_of(str(saved), towers=towers)
    keywords = {**quantizer.load_kwargs("cuda"), "device_map": {"": "cpu"}}
    model = loaded.build_model(from_scratch=False, load_kwargs=keywords)
    packed = {name for name, m in model.named_modules() if isinstance(m, bitsandbytes.nn.Linear4bit)}
    assert model.is_loaded_in_4bit
    dense = loaded.build_model(from_scratch=False, load_kwargs={})
    targets = loaded.host.targets(dense)
    assert packed == set(targets.linears), "neither the head nor the merger may be quantized"
    built = quantizer.apply(dense, targets, "cpu").eval()
    model = quantizer.apply(model, loaded.host.targets(model), "cpu").eval()
    inputs = next(loaded.requests()).inputs
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, built(**inputs).logits)


def test_a_folder_in_the_format_of_the_first_checkpoints_is_loaded(saved, model, workload):
    """They have a flat config with M-RoPE as `rope_scaling`, and name an image processor that needs torchvision."""
    config = json.loads((saved / "config.json").read_text())
    text = config.pop("text_config")
    flat = {
        **text,
        **config,
        "rope_theta": 1e4,
        "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]},
    }
    del flat["rope_parameters"]
    (saved / "config.json").write_text(json.dumps(flat))
    processor = json.loads((saved / "preprocessor_config.json").read_text())
    size = processor.pop("size")
    processor |= {
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "processor_class": "Qwen2_5_VLProcessor",
    }
    processor |= {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
    (saved / "preprocessor_config.json").write_text(json.dumps(processor))
    loaded = workload_of(str(saved))
    request = next(workload.requests())
    assert torch.equal(next(loaded.requests()).inputs["pixel_values"], request.inputs["pixel_values"])
    again = loaded.build_model(from_scratch=False, load_kwargs={}).eval()
    torch.testing.assert_close(again(**request.inputs).logits, model(**request.inputs).logits)


def test_a_saved_model_with_techniques_is_loaded(saved, workload):
    model = with_attention(workload.build_model(from_scratch=True, load_kwargs={}), "mqa").eval()
    model.save_pretrained(saved)
    with pytest.raises(ValueError, match="eflm"):
        AutoModelForImageTextToText.from_pretrained(saved)
    loaded = workload_of(str(saved))
    request = next(loaded.requests())
    again = loaded.build_model(from_scratch=False, load_kwargs={}).eval()
    torch.testing.assert_close(again(**request.inputs).logits, model(**request.inputs).logits)
    with pytest.raises(ModelError, match="pretrain"):
        loaded.build_model(from_scratch=True, load_kwargs={})


def test_a_tokenizer_of_another_model_is_an_error(saved):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | {"image_token_id": 9999}))
    with pytest.raises(ModelError, match=r"tokenizer .*image_token_id"):
        workload_of(str(saved))


def test_larger_images_are_scaled_down_for_the_preset():
    assert (
        next(workload_of(max_pixels=1024).batches("finetune")).inputs["image_grid_thw"].tolist()
        == [[1, 4, 4]] * 4
    )


def test_larger_images_are_scaled_down_for_a_saved_model(saved):
    workload = workload_of(str(saved), max_pixels=1024)
    assert next(workload.batches("finetune")).inputs["image_grid_thw"].tolist() == [[1, 4, 4]] * 4


@pytest.mark.parametrize(
    ("missing", "words"),
    [("tokenizer", "has no tokenizer"), ("preprocessor", "has no image processor")],
)
def test_a_missing_part_is_an_error_with_its_name(saved, missing, words):
    for file in saved.glob(f"{missing}*"):
        file.unlink()
    with pytest.raises(ModelError, match=words):
        workload_of(str(saved))


def test_a_model_of_another_type_is_an_error(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]})
    )
    with pytest.raises(ModelError, match=r"qwen2\b.*qwen2\.5-vl .*qwen2_5_vl"):
        workload_of(str(tmp_path))
