"""The tables of a model card: who gave what, what the model is, its data, and its training."""

import time

import msgspec

from atoll.evaluate.results import Checkpoint
from atoll.evaluate.table import table as scores_beside_published
from atoll.publish import facts as f
from atoll.publish.markup import table, text
from atoll.terminal.figures import duration
from atoll.words import listed

LOSSES = "loss.png"
OBJECTIVES = {  # by the type that a recipe gives
    "pretrain": "cross-entropy of every token",
    "sft": "cross-entropy of what the assistant says (SFT)",
    "dpo": "DPO, [direct preference optimisation](https://arxiv.org/abs/2305.18290)",
    "ipo": "IPO, [identity preference optimisation](https://arxiv.org/abs/2310.12036)",
    "simpo": "SimPO, [simple preference optimisation](https://arxiv.org/abs/2405.14734)",
    "distill": "distillation: divergence from a teacher's distribution",
}
DILOCO = "[DiLoCo](https://arxiv.org/abs/2311.08105)"


def contributors(facts: f.Facts) -> str:
    """Committed tokens by contributor; nothing before the first commit."""
    if not facts.contributors:
        return ""
    has_links = any(each.links for each in facts.contributors)
    rows = [
        (
            text(each.name) if each.is_named else f"island `{each.name}`",
            str(each.num_islands),
            f"{each.tokens:,}",
            f"{100 * each.tokens / facts.tokens:.1f} %",
            *([listed(map(text, each.links))] if has_links else []),  # as text: a card leads nowhere else
        )
        for each in facts.contributors
    ]
    head = ("contributor", "islands", "tokens", "share", *(["page"] if has_links else []))
    body = table(head, rows)
    return f"## Contributors\n\nCommitted tokens, by the run's ledger.\n\n{body}\n"


def specification(facts: f.Facts) -> str:
    """The dimensions of the model."""
    shape = facts.shape
    dimensions = {
        "architecture": f"`{shape.architecture}`",
        "parameters": f"{shape.num_parameters:,}",
        "layers": shape.num_layers,
        "attention heads": shape.num_heads,
        "key-value heads": shape.num_key_value_heads,
        "hidden size": shape.hidden_size,
        "context length": shape.context_length,
        "vocabulary": shape.vocab_size,
        "weights": facts.dtype,
    }
    rows = [
        (name, f"{value:,}" if isinstance(value, int) else value)
        for name, value in dimensions.items()
        if value is not None
    ]
    return f"## Specification\n\n{table(('dimension', 'value'), rows)}\n"


def data(facts: f.Facts) -> str:
    """What was consumed, by stage and source; nothing before the first commit."""
    rows = [
        (
            _stage_name(number, facts),
            text(name),
            _origin(facts.sources[name]),
            f"{count:,}",
            f"{100 * count / sum(stage.tokens.values()):.1f} %",
        )
        for number, stage in enumerate(facts.stages)
        for name, count in sorted(stage.tokens.items(), key=lambda each: (-each[1], each[0]))
    ]
    if not rows:
        return ""
    body = table(("stage", "source", "from", "tokens", "of the stage"), rows)
    return f"## Data\n\nAs it was consumed by the committed steps.\n\n{body}\n"


def _stage_name(number: int, facts: f.Facts) -> str:
    first = facts.stages[number - 1].until_inner_step if number else 0
    return f"inner steps {first:,} to {facts.stages[number].until_inner_step:,}"


def _origin(source: f.Source) -> str:
    if not source.dataset:
        return source.kind or "private"
    revision = f", revision {text(source.revision)}" if source.revision else ""
    return f"{text(source.dataset)}{revision}"


def training(facts: f.Facts) -> str:
    """The algorithm, its traffic, and what the events tell: utilisation, faults, losses."""
    told, traffic = facts.told, facts.traffic
    rows = [
        ("algorithm", DILOCO),
        ("objective", OBJECTIVES[facts.objective]),
        (
            "inner optimizer",
            f"{facts.inner_optimizer}, learning rate {facts.inner_lr:g}, {facts.inner_schedule}",
        ),
        ("tokens of an inner step", f"{facts.tokens_per_inner_step:,} on each island"),
        ("inner steps of an outer step", str(facts.inner_steps)),
        (
            "outer optimizer",
            f"Nesterov SGD, learning rate {facts.outer_lr:g}, momentum {facts.outer_momentum:g}",
        ),
        ("outer steps", f"{facts.step} of {facts.num_outer_steps}"),
        ("islands", f"{facts.num_islands}, at most {facts.most_at_once} in one outer step"),
        ("compression", f"{traffic.codec}: {traffic.bytes_per_parameter:.3f} bytes a parameter"),
        (
            "traffic",
            f"{traffic.factor:.0f} times less than fp32 gradients at each inner step "
            f"({facts.inner_steps} inner steps × 4 / {traffic.bytes_per_parameter:.3f} bytes)",
        ),
    ]
    lines = ["## Training\n", table(("setting", "value"), rows), ""]
    if told is None:
        if facts.step:
            lines.append("Losses, utilisation and faults are told by the events file of the run's host.\n")
        return "\n".join(lines)
    if told.num_steps < facts.step:
        lines.append(f"What follows is told of {told.num_steps} of these {facts.step} outer steps.\n")
    lines += [_utilisation(told), _faults(told)]
    if told.losses:
        last = told.losses[-1]
        lines.append(f"![The training loss over tokens]({LOSSES})\n")
        lines.append(f"The mean training loss of the last outer step was {last.loss:.3f} nats per token.\n")
    return "\n".join(lines)


def _utilisation(told: f.Told) -> str:
    shares = {
        "computing, of computing and exchanging (as INTELLECT-1 counted)": told.utilisation.as_original,
        "islands in a commit, of those that were there": told.utilisation.participation,
        "computing, of an island's time from joining to its last commit": told.utilisation.end_to_end,
    }
    rows = [(name, f"{100 * share:.1f} %") for name, share in shares.items() if share is not None]
    when = time.strftime("%Y-%m-%d", time.gmtime(told.began))
    took = f"From {when}, in {duration(told.ended - told.began)} from the first commit to the last.\n"
    return f"{took}\n{table(('utilisation', ''), rows)}\n"


def _faults(told: f.Told) -> str:
    if not told.faults:
        return "No fault was met.\n"
    return f"{table(('faults survived', ''), [(name, str(n)) for name, n in told.faults.items()])}\n"


def ancestry(facts: f.Facts) -> str:
    """The steps that led here, the first one first, if there were several."""
    if facts.base is None:
        return ""
    rows = [
        (
            text(run.name),
            run.objective,
            f"{run.tokens:,}",
            listed(text(name) for name in sorted({n for stage in run.stages for n in stage.tokens})),
            f"`{run.root[:16]}`",
        )
        for run in facts.chain
    ]
    return f"## Runs that led here\n\n{table(('run', 'objective', 'tokens', 'data', 'root'), rows)}\n"


def evaluation(facts: f.Facts) -> str:
    """Scores beside published ones, with chance and standard errors; nothing where nothing was measured."""
    if not facts.scores:
        return ""
    of_this = Checkpoint(name=text(facts.name), digest="", step=facts.step)  # one row, however it was opened
    named = [msgspec.structs.replace(score, checkpoint=of_this) for score in facts.scores]
    versions = sorted({f"lm-eval {score.settings.versions['lm_eval']}" for score in facts.scores})
    dtypes = sorted({text(score.dtype) for score in facts.scores})
    how = f"Measured by `atoll evaluate` with {listed(versions)}; weights in {listed(dtypes)}."
    return f"## Evaluation\n\n{how}\n\n{scores_beside_published(named).markdown()}"
