"""The model card: an export's README.md, written from the facts of its run, so none of it by hand."""

import time
from pathlib import Path

import msgspec

from atoll.publish import facts as f
from atoll.publish import tables
from atoll.publish.gather import FACTS_FILE
from atoll.publish.hub import metadata
from atoll.publish.markup import table, text
from atoll.publish.pictures import draw_losses, draw_map
from atoll.terminal.figures import human
from atoll.words import listed, one_line

MAP = "map.png"
PROMPT = "Once upon a time"


def write_card(directory: Path, facts: f.Facts) -> None:
    """Write README.md, its pictures and the facts themselves into an export."""
    data = msgspec.json.format(msgspec.json.encode(facts, order="deterministic"), indent=1)
    (directory / FACTS_FILE).write_bytes(data + b"\n")
    if any(place.found for place in facts.places):
        draw_map(directory / MAP, facts.places)
    if facts.told is not None and facts.told.losses:
        draw_losses(directory / tables.LOSSES, facts.told.losses)
    (directory / "README.md").write_text(card(facts), "utf-8")


def card(facts: f.Facts) -> str:
    """The text of README.md. Equal facts give equal text."""
    sections = [
        _overview(facts),
        _usage(facts),
        tables.contributors(facts),
        tables.specification(facts),
        tables.data(facts),
        tables.training(facts),
        tables.ancestry(facts),
        tables.evaluation(facts),
        _verification(facts),
        _license(facts),
    ]
    return f"---\n{metadata(facts)}---\n" + "\n".join(section for section in sections if section)


def _overview(facts: f.Facts) -> str:
    shape, told = facts.shape, facts.told
    began = f", starting from {text(facts.base_model)}" if facts.base_model else ""
    lines = [
        f"# {text(facts.name)}\n",
        f"A language model of {human(shape.num_parameters)} parameters, trained on {human(facts.tokens)} "
        f"tokens{began} by {_islands(facts.num_islands)} that exchange what they have learned over the "
        f"internet, with {tables.DILOCO} and atoll {facts.atoll}.\n",
    ]
    if not facts.step:
        lines[1] = (
            f"A language model of {human(shape.num_parameters)} parameters before its training{began}: "
            "the run has committed nothing yet.\n"
        )
    if any(place.found for place in facts.places):
        lines.append(f"![Where the islands stood]({MAP})\n")
    if facts.places:
        names = listed(text(place.name) for place in facts.places)
        lines.append(f"Islands stood in {names}, as their contributors say.")
        if lost := [text(place.name) for place in facts.places if place.found is None]:
            lines.append(f"No city is known of this name, so it is not on the map: {listed(lost)}.")
        lines.append("")
    if 0 < facts.step < facts.num_outer_steps:
        lines.append(f"This is the state after {facts.step} of {facts.num_outer_steps} outer steps.\n")
    if told is not None and told.heldout_loss is not None:
        lines.append(f"The last held-out loss that was measured: {told.heldout_loss:.3f} nats per token.\n")
    return "\n".join(lines)


def _islands(count: int) -> str:
    return "one island" if count == 1 else f"{count} islands"


def _usage(facts: f.Facts) -> str:
    parts = [
        f"""## Usage

Every text must begin with exactly one {text(facts.bos_token)}, or the model reads it worse. The tokenizer
puts it there. The chat template does so too: tokenize what it has rendered with `add_special_tokens=False`.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

path = "."  # this directory, or this repository's name on the hub
model = AutoModelForCausalLM.from_pretrained(path)
tokenizer = AutoTokenizer.from_pretrained(path)

input_ids = tokenizer.encode("{PROMPT}", return_tensors="pt")
output_ids = model.generate(input_ids, max_new_tokens=50)
print(tokenizer.decode(output_ids[0], skip_special_tokens=True))
```
"""
    ]
    was = "which it was trained on" if facts.chats else "though no run has trained it on conversations"
    if facts.has_chat_template:
        parts.append(
            f"""With the chat template, {was}:

```python
from transformers import pipeline

pipe = pipeline("text-generation", model=".")
print(pipe([{{"role": "user", "content": "Who are you?"}}], max_new_tokens=50))
```
"""
        )
    parts.append(
        """From a shell: `atoll generate . "Once upon a time"`, or `transformers serve`, or `vllm serve .`.
"""
    )
    return "\n".join(parts)


def _verification(facts: f.Facts) -> str:
    rows = [
        ("run", f"`{facts.run_id}`"),
        ("root of the state", f"`{facts.root}`"),
        ("fingerprint of the run's certificate", f"`{facts.fingerprint}`"),
        ("record key", f"`{facts.record_key}`"),
        ("recipe", f"`{facts.recipe_digest}`"),
    ]
    if not facts.is_proven:
        how = "This export carries no proof, since its tensors are stored in another form than was trained.\n"
    else:
        how = (
            "The run has signed the root of every state, and who took part in it. `atoll verify .` holds "
            "these weights against the records in `proof/`, to the last bit"
            + (", with what rounding to bf16 took away" if facts.dtype == "bf16" else "")
            + ". Compare the fingerprint with that of the certificate that the run's host gives you. Names "
            "and places are what contributors have said.\n"
        )
    return f"## Verification\n\n{how}\n{table(('fact', 'value'), rows)}\n"


def _license(facts: f.Facts) -> str:
    given = f"The weights are under {text(facts.license)}." if facts.license else "The run names no licence."
    year = f"  year = {{{time.gmtime(facts.told.ended).tm_year}}},\n" if facts.told else ""
    people = " and ".join(f"{{{_bibtex(each.name)}}}" for each in facts.contributors if each.is_named)
    author = f"  author = {{{people}}},\n" if people else ""
    return (
        f"## Licence and citation\n\n{given}\n\n```bibtex\n@misc{{{facts.run_id},\n"
        f"  title = {{{facts.name}}},\n{author}{year}  note = {{root {facts.root}}}\n}}\n```\n"
    )


def _bibtex(name: str) -> str:
    """A name within a fenced block of BibTeX: what would end either is left out."""
    return one_line("".join(letter for letter in name if letter not in "{}\\`~"))
