"""Wall time of `atoll evaluate` on ARC-C, beside lm-eval's own command on the same model and questions.

    python bench/evaluate.py [--questions 40] [--rounds 3] [--model DIR] [--data DIR]

Whole processes, in turn, each from its start to its scores; medians. Without --model and --data a small Llama
with arbitrary weights answers questions that are made up here. Their scores must be equal. Minutes.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness.report import Report, arguments

TASK, NUM_FEWSHOT = "arc_challenge", 25
WORDS = ("stone", "river", "ant", "moon", "iron", "leaf", "wind", "salt", "bird", "glass", "fire", "seed")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path, help="a checkpoint directory (default: a small Llama)")
    parser.add_argument("--data", type=Path, help="a folder laid out like the hub (default: made up)")
    options = parser.parse_args()
    packages = ("lm_eval", "transformers", "torch")
    report = Report("evaluate", options, keys=("questions", "model"), packages=packages)
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary)
        data = (options.data or made_up_data(made / "hub", options.questions)).absolute()
        model = (options.model or made_up_model(made / "model")).absolute()
        os.environ |= {"HF_DATASETS_CACHE": str(made / "cache"), "HF_HUB_OFFLINE": "1"}
        taken: dict[str, list[float]] = {"ours": [], "peer": []}
        for number in range(options.rounds):
            ours, our_scores = timed(our_command(model, data, options.questions, made / str(number)), made)
            peer, peer_scores = timed(peer_command(model, options.questions, made / f"p{number}"), data)
            taken["ours"].append(ours)
            taken["peer"].append(peer)
            same = our_figures(our_scores) == peer_figures(made / f"p{number}")
            assert same, f"other scores: {our_scores} {peer_scores}"
    ours, peer = (statistics.median(taken[side]) for side in ("ours", "peer"))
    report.add(
        {
            "questions": options.questions,
            "model": options.model.name if options.model else "made up",
            "ours": round(ours, 1),
            "peer": round(peer, 1),
            "unit": "s",
            "ratio": round(ours / peer, 3),
        }
    )


def timed(command: list[str], where: Path) -> tuple[float, str]:
    """(seconds that a command took, what it printed)."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    assert done.returncode == 0, done.stderr
    return seconds, done.stdout


def our_command(model: Path, data: Path, num_questions: int, out: Path) -> list[str]:
    what = ["--tasks", TASK, "--num-fewshot", str(NUM_FEWSHOT), "--limit", str(num_questions)]
    where = ["--data", str(data), "--dir", str(out), "--device", "cpu", "--json"]
    return [sys.executable, "-m", "atoll", "evaluate", str(model), *what, *where]


def peer_command(model: Path, num_questions: int, out: Path) -> list[str]:
    what = ["--tasks", TASK, "--num_fewshot", str(NUM_FEWSHOT), "--limit", str(num_questions)]
    how = [
        "--model",
        "hf",
        "--model_args",
        f"pretrained={model}",
        "--device",
        "cpu",
        "--output_path",
        str(out),
    ]
    return [sys.executable, "-m", "lm_eval", *how, *what]


def our_figures(printed: str) -> dict[str, float]:
    (result,) = json.loads(printed)
    return {name: figure["value"] for name, figure in result["metrics"].items()}


def peer_figures(out: Path) -> dict[str, float]:
    (path,) = out.rglob("results_*.json")
    found = json.loads(path.read_text())["results"][TASK]
    return {name: value for name, value in found.items() if "," in name and "_stderr" not in name}


def made_up_data(folder: Path, num_questions: int) -> Path:
    """A folder laid out like the hub, with questions in the form of ARC's."""
    path = folder / "allenai" / "ai2_arc"
    (path / "ARC-Challenge").mkdir(parents=True)
    files = [
        {"split": split, "path": f"ARC-Challenge/{split}.jsonl"} for split in ("train", "validation", "test")
    ]
    metadata = {"configs": [{"config_name": "ARC-Challenge", "data_files": files}]}
    (path / "README.md").write_text(f"---\n{json.dumps(metadata)}\n---\n")
    rows = []
    for number in range(max(num_questions, 2 * NUM_FEWSHOT)):
        words = [WORDS[(number * step + step) % len(WORDS)] for step in (1, 3, 5, 7, 9, 11)]
        question = f"Question {number}: which of these is most like a {words[0]} near a {words[1]}?"
        choices = {"text": [f"a {word} of {number}" for word in words[2:]], "label": list("ABCD")}
        rows.append(
            {"id": str(number), "question": question, "choices": choices, "answerKey": "ABCD"[number % 4]}
        )
    for file in files:
        (path / str(file["path"])).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def made_up_model(directory: Path) -> Path:
    """A Llama of the demo's size with arbitrary weights, as `atoll export` writes one."""
    import torch

    from atoll import recipe
    from atoll.data.tokenizer import Tokenizer
    from atoll.model import hf

    torch.manual_seed(0)
    tokenizer = Tokenizer.train(
        [" ".join(WORDS) + f" which of these is most like {n}?" for n in range(99)], 320
    )
    model = hf.build(recipe.Model(preset="demo"), 320)
    directory.mkdir()
    hf.save_model(
        directory,
        model,
        context_length=2048,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_ids,
    )
    tokenizer.save(directory)
    return directory


if __name__ == "__main__":
    main()
