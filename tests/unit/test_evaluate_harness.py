"""Measuring through lm-eval: equal to lm-eval called by hand, resumed after a kill, never asked twice."""

import json
import re
import shutil
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from atoll.data.tokenizer import Tokenizer
from atoll.errors import UserError
from atoll.evaluate import results, suites
from atoll.evaluate.answers import Answers
from atoll.evaluate.checkpoint import Files
from atoll.evaluate.data import DataSets
from atoll.evaluate.measure import Asked, Measuring
from atoll.evaluate.results import Checkpoint, Result
from atoll.post.merge import merge
from atoll.post.metric import metric_of
from atoll.recipe.merge import Greedy
from atoll.recipe.metric import By

NUM_QUESTIONS = 5
QUESTIONS = [
    f"Which of these {thing} is the {how}?" for thing in ("rocks", "seas", "ants") for how in ("old", "big")
]
ARC = [
    {
        "id": str(number),
        "question": question,
        "choices": {"text": ["a stone", "it", "the deep sea", "none of them"], "label": ["A", "B", "C", "D"]},
        "answerKey": "ABCD"[number % 4],
    }
    for number, question in enumerate(QUESTIONS)
]
GSM8K = [
    {"question": f"{question} Add {n} and 2.", "answer": f"{n} + 2\n#### {n + 2}"}
    for n, question in enumerate(QUESTIONS)
]
TEXTS = [json.dumps(row) for row in (*ARC, *GSM8K)] * 3


@pytest.fixture(scope="module")
def harness() -> Iterator[Any]:
    """The module that imports lm-eval, which knows two folders of its tasks: all of them take seconds."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")  # of lm-eval's and its dependencies' own
        import lm_eval.tasks

        from atoll.evaluate import harness

        tasks = Path(lm_eval.tasks.__file__).parent
        paths = [str(tasks / name) for name in ("arc", "gsm8k")]
        some = partial(lm_eval.tasks.TaskManager, include_path=paths, include_defaults=False)
        patch.setattr(harness, "TaskManager", some)
        yield harness


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Iterator[Path]:
    """A folder laid out like the hub, with a few questions of two data sets."""
    folder = tmp_path_factory.mktemp("hub")
    for name, config, rows in (("allenai/ai2_arc", "ARC-Challenge", ARC), ("openai/gsm8k", "main", GSM8K)):
        path = folder / name
        (path / config).mkdir(parents=True)
        files = [
            {"split": split, "path": f"{config}/{split}.jsonl"} for split in ("train", "validation", "test")
        ]
        for file in files:
            (path / file["path"]).write_text("".join(json.dumps(row) + "\n" for row in rows))
        metadata = json.dumps({"configs": [{"config_name": config, "data_files": files}]})
        (path / "README.md").write_text(f"---\n{metadata}\n---\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield folder


def checkpoint(directory: Path, positions: int = 2048) -> Path:
    """A small Llama with arbitrary weights, and the project's own kind of tokenizer."""
    torch.manual_seed(0)
    tokenizer = Tokenizer.train(TEXTS, 320)
    config = transformers.LlamaConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=positions,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_ids,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save(directory)
    return directory


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("model"))


ARC_AND_GSM8K = (
    suites.Question(task="arc_challenge", num_fewshot=2),
    suites.Question(task="gsm8k", num_fewshot=1),
)


def measure(
    model: Path,
    hub: Path,
    out: Path,
    questions: tuple[suites.Question, ...] = ARC_AND_GSM8K[:1],
    report: Any = lambda _: None,
    **changes: Any,
) -> tuple[list[Result], list[str]]:
    """(the results, what was said)."""
    said: list[str] = []
    asked = Asked(questions=questions, limit=NUM_QUESTIONS, batch_size=3, device="cpu")
    asked = Asked(**{**{name: getattr(asked, name) for name in asked.__dataclass_fields__}, **changes})
    measuring = Measuring(asked, DataSets(hub), out, said.append, report)
    files = Files(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return measuring.measure(files, Checkpoint(name="small", digest=files.digest())), said


@pytest.fixture(scope="module")
def measured(harness, hub, model, tmp_path_factory) -> tuple[list[Result], Path]:
    out = tmp_path_factory.mktemp("evaluations")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Answers, "discard", lambda _: None)  # to be looked at
        found, _ = measure(model, hub, out, ARC_AND_GSM8K)
    return found, out


def answers_kept(out: Path, task: str) -> list[Any]:
    """All answers to a task, as pairs or texts, sorted."""
    (path,) = out.rglob(f"{task}-*.answers.jsonl")
    batches = [json.loads(line) for line in path.read_text().splitlines()]
    given = [answer for batch in batches for _, answer in batch["answers"]]
    return sorted(tuple(answer) if isinstance(answer, list) else answer for answer in given)


# ---------------------------------------------------------------------------------------------- scores
def test_answers_scores_and_errors_are_those_of_lm_eval_called_by_hand_to_the_digit(
    harness, hub, model, measured, monkeypatch
):
    monkeypatch.chdir(hub)
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda _: None)  # it asks pip, in seconds
    for question, ours in zip(ARC_AND_GSM8K, measured[0], strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: Any = harness.evaluator.simple_evaluate(
                model="hf",
                model_args={"pretrained": str(model)},
                tasks=[question.task],
                num_fewshot=question.num_fewshot,
                limit=NUM_QUESTIONS,
                batch_size=3,
                device="cpu",
                task_manager=harness.TaskManager(),
            )
        theirs = found["results"][question.task]
        assert ours.metrics.keys() == {n for n in theirs if "," in n and "_stderr" not in n}
        for name, figure in ours.metrics.items():
            metric, kind = name.split(",")
            assert (figure.value, figure.standard_error) == (theirs[name], theirs[f"{metric}_stderr,{kind}"])
        assert ours.num_samples == NUM_QUESTIONS
        given = [answer for s in found["samples"][question.task] for (answer,) in s["resps"]]
        num_filters = len({name.split(",")[1] for name in ours.metrics})  # each has its samples
        assert answers_kept(measured[1], question.task) == sorted(given)[::num_filters]


def test_a_result_says_how_it_came_about(measured):
    arc, gsm8k = measured[0]
    assert (arc.num_requests, gsm8k.num_requests) == (4 * NUM_QUESTIONS, NUM_QUESTIONS)
    assert {arc.starts_with, gsm8k.starts_with} == {"one BOS"}
    assert gsm8k.stop_tokens == ["<|end_of_text|>", "<|eot_id|>"]
    assert arc.settings.versions.keys() == {"lm_eval", "transformers", "tokenizers", "datasets", "torch"}
    assert (arc.dtype, arc.max_length, arc.settings.device) == ("float32", 2048, "cpu")
    assert len(arc.data["allenai/ai2_arc"]) == 64
    assert arc.task_versions == {"arc_challenge": "1.0"}


# --------------------------------------------------------------------------------------------- resumed
class Killed(BaseException):
    """In place of a signal."""


def test_a_measurement_that_was_killed_goes_on_after_its_last_batch_and_ends_equal(
    harness, hub, model, measured, tmp_path, monkeypatch
):
    def killed(progress: Any) -> None:
        if progress.num_done >= 6:
            raise Killed

    with pytest.raises(Killed):
        measure(model, hub, tmp_path, report=killed)
    assert not results.load(tmp_path)
    calls: list[int] = []
    call = harness.HFLM._model_call
    monkeypatch.setattr(harness.HFLM, "_model_call", lambda *a: calls.append(len(a[1])) or call(*a))
    (again,), said = measure(model, hub, tmp_path)
    assert any("goes on after" in sentence for sentence in said)
    assert sum(calls) == 4 * NUM_QUESTIONS - 6
    assert again.metrics == measured[0][0].metrics
    assert not list(tmp_path.rglob("*.answers.jsonl"))


def test_the_same_question_is_not_asked_twice(model, hub, measured, monkeypatch):
    monkeypatch.setattr(Measuring, "_opened", lambda *_: pytest.fail("the model was loaded"))
    found, _ = measure(model, hub, measured[1], ARC_AND_GSM8K)
    assert found == measured[0]


def test_a_question_whose_data_has_changed_is_asked_again(model, hub, measured, tmp_path, monkeypatch):
    class Loaded(Exception):
        pass

    def opened(*_: Any) -> None:
        raise Loaded

    monkeypatch.setattr(Measuring, "_opened", opened)
    other = tmp_path / "hub"
    path = other / "allenai" / "ai2_arc"
    path.mkdir(parents=True)
    (path / "README.md").write_text("other")
    with pytest.raises(Loaded):
        measure(model, other, measured[1])


# -------------------------------------------------------------------------------- what cannot be asked
def test_a_task_that_does_not_exist_is_refused_with_names_that_are_near(harness, hub, model, tmp_path):
    with pytest.raises(UserError, match="no such task; near: arc_challenge"):
        measure(model, hub, tmp_path, suites.questions("arc_chalenge", None))


def test_data_that_is_not_at_hand_is_named_with_where_it_was_looked_for(harness, model, tmp_path):
    with pytest.raises(UserError, match=rf"openai/gsm8k, looked for in {tmp_path}"):
        measure(model, tmp_path, tmp_path / "out", suites.questions("gsm8k", None))


def test_a_suite_leaves_out_what_has_no_data_and_says_so(harness, hub, model, measured, tmp_path):
    arc = hub.parent / "only-arc"
    (arc / "allenai").mkdir(parents=True)
    (arc / "allenai" / "ai2_arc").symlink_to(hub / "allenai" / "ai2_arc")
    found, said = measure(model, arc, measured[1], ARC_AND_GSM8K, optional=True)
    assert [result.settings.task for result in found] == ["arc_challenge"]
    assert any(sentence.startswith("gsm8k: its data is not at hand") for sentence in said)


def test_a_folder_of_data_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        DataSets(tmp_path / "nowhere")


def test_answers_that_do_not_fit_the_model_are_refused_before_it_is_asked(harness, hub, tmp_path):
    small = checkpoint(tmp_path / "model", positions=128)
    with pytest.raises(UserError, match="may have 256 tokens, but this model reads only 128"):
        measure(small, hub, tmp_path / "out", ARC_AND_GSM8K[1:])


def test_requests_that_lose_their_bos_to_the_cut_are_counted_and_told(harness, hub, tmp_path):
    small = checkpoint(tmp_path / "model", positions=64)
    (result,), said = measure(small, hub, tmp_path / "out")
    assert result.num_cut == result.num_requests
    assert any("cuts them on the left, and so their BOS is gone" in sentence for sentence in said)


def test_a_process_that_measures_the_same_checkpoint_is_not_disturbed(harness, hub, model, tmp_path):
    from atoll.files import DirectoryLock

    with DirectoryLock(tmp_path / Files(model).digest()[: results.DIGEST_DIGITS]) as lock:
        assert lock.acquire()
        with pytest.raises(UserError, match="another process measures this checkpoint"):
            measure(model, hub, tmp_path)


# ----------------------------------------------------------------------------------- first, last token
def test_a_tokenizer_that_forgets_its_bos_is_helped(harness, hub, model, measured, tmp_path):
    forgetful = checkpoint(tmp_path / "model")
    path = forgetful / "tokenizer.json"
    tree = json.loads(path.read_text())
    path.write_text(json.dumps({**tree, "post_processor": None}))
    found, _ = measure(forgetful, hub, tmp_path / "out", ARC_AND_GSM8K)
    assert [result.starts_with for result in found] == ["one BOS, added"] * 2
    assert [result.metrics for result in found] == [result.metrics for result in measured[0]]


def test_a_request_with_two_bos_is_refused(harness, hub, tmp_path):
    twice = checkpoint(tmp_path / "model")
    path = twice / "tokenizer.json"
    tree = json.loads(path.read_text())
    processor = tree["post_processor"]
    for part in processor.get("processors", [processor]):
        if part["type"] == "TemplateProcessing":
            part["single"] = [part["single"][0], *part["single"]]
    path.write_text(json.dumps(tree))
    with pytest.raises(UserError, match="the first request has 2 BOS"):
        measure(twice, hub, tmp_path / "out")


def test_a_model_that_chats_is_asked_with_its_template_and_stops_at_the_end_of_its_turn(
    harness, hub, tmp_path
):
    chatty = checkpoint(tmp_path / "small-chat")
    config = chatty / "generation_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "eos_token_id": 1}))
    (result,), said = measure(chatty, hub, tmp_path / "out", ARC_AND_GSM8K[1:], limit=1)
    assert any("with chat template: its name says so" in sentence for sentence in said)
    assert result.settings.chat_template
    assert result.starts_with == "one BOS"
    assert result.stop_tokens == ["<|end_of_text|>", "<|eot_id|>"]


# By question: what a model says, and whether lm-eval finds the answer after "####", and anywhere.
SAID = [
    (" 0 + 2 = 2\n#### 2<|eot_id|>", True, True),
    (" It is 3.\n#### 3\n\nQuestion: And then?\nAnswer: #### 99", True, True),  # it goes on by itself
    (" The answer is 4.<|end_of_text|>", False, True),
    (" I think\n#### 6<|eot_id|>", False, False),
    (" 1,006 less 1,000 is 6\n#### 6<|eot_id|>", True, True),
]


def test_what_a_model_says_is_cut_at_its_end_and_the_answer_found_in_it(
    harness, hub, model, tmp_path, monkeypatch
):
    def said(lm: Any, context: torch.Tensor, **_: Any) -> torch.Tensor:
        """What `generate` returns: the context, what was said, and end tokens after the shorter ones."""
        asked = [lm.tokenizer.decode(ids).rpartition("Question: ")[2] for ids in context]
        texts = [SAID[int(re.findall(r"Add (\d+)", text)[0])][0] for text in asked]
        ids = [lm.tokenizer.encode(text, add_special_tokens=False) for text in texts]
        longest, end = max(map(len, ids)), lm.tokenizer.eos_token_id
        padded = [[*each, *[end] * (longest - len(each))] for each in ids]
        return torch.cat((context, torch.tensor(padded)), 1)

    monkeypatch.setattr(harness.HFLM, "_model_generate", said)
    (result,), _ = measure(model, hub, tmp_path, ARC_AND_GSM8K[1:])
    found = {name.split(",")[1]: figure.value for name, figure in result.metrics.items()}
    strict, flexible = (sum(each[at] for each in SAID) / NUM_QUESTIONS for at in (1, 2))
    assert found == {"strict-match": strict, "flexible-extract": flexible}


def test_merges_are_chosen_by_what_they_score(harness, hub, model, tmp_path):
    by = By(task="arc_challenge", num_fewshot=2, limit=NUM_QUESTIONS, data=str(hub))
    other = shutil.copytree(model, tmp_path / "other")
    file = other / "model.safetensors"
    save_file({name: -value for name, value in load_file(file).items()}, file, {"format": "pt"})
    metric = metric_of(by, tmp_path / "scores")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = merge(Greedy(), [other, model], tmp_path / "out", metric=metric)
    scores = {one.name: one.value for one in made.looked_at}
    assert len(scores) == 3 and metric.name == "arc_challenge acc_norm" and metric.higher_is_better
    assert made.best.value == max(scores.values())
    (alone,), _ = measure(model, hub, tmp_path / "alone", batch_size=1)
    (ours,) = (one.value for one in made.looked_at if one.method is None and one.models == (model,))
    assert ours == alone.metrics["acc_norm,none"].value
    assert len(list((tmp_path / "scores").rglob("*.result.json"))) == 3


def test_a_metric_that_says_nothing_clear_is_refused(harness, hub, model, tmp_path):
    def asked(**more):
        return metric_of(By(**{"task": "arc_challenge", "limit": 2, "data": str(hub), **more}), tmp_path)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UserError, match="has no figure 'f1'; there is acc,none and acc_norm,none"):
            asked(figure="f1")(model)
        with pytest.raises(UserError, match=r"lm-eval has no such task; near: .*arc_challenge"):
            asked(task="arc_chalenge")(model)
    with pytest.raises(UserError, match="compared by one task; name one"):
        asked(task="arc_challenge,gsm8k")
    with pytest.raises(UserError, match="no such folder"):
        asked(data=str(tmp_path / "nowhere"))
