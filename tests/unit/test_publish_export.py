"""An export is of any state at hand, transformers reads it, and it proves what it is."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from small_runs import SmallRun

from atoll.errors import UserError
from atoll.model import hf
from atoll.publish import export as publish
from atoll.publish import proof as proofs
from atoll.publish.states import committed_state
from atoll.publish.stored import stored_tensors
from atoll.publish.verify import verify
from atoll.run.directory import RunDir


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> SmallRun:
    return SmallRun(tmp_path_factory.mktemp("run")).commit(5)


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def whole(request, run: SmallRun, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("exports") / request.param
    publish.export(run.dir, out, dtype=request.param, shard_bytes=60_000)
    return out


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Iterator[Path]:
    yield Path(shutil.copytree(whole, tmp_path / "copy"))


# ------------------------------------------------------------------------------------------- states at hand
@pytest.mark.parametrize("step", range(6))
def test_every_state_between_a_checkpoint_and_the_head_is_at_hand(run: SmallRun, step: int) -> None:
    state = committed_state(run.dir, step)
    assert state.root == run.log.root(step, run.info.genesis_root)
    assert len(state.records) == state.step == step


def test_without_a_step_the_newest_state_is_taken(run: SmallRun) -> None:
    assert committed_state(run.dir).step == 5


def test_a_state_that_is_not_at_hand_is_refused_with_those_that_are(run: SmallRun, tmp_path: Path) -> None:
    directory = RunDir(Path(shutil.copytree(run.dir.path, tmp_path / "run")))
    for path in (directory.islands / "relay" / "log").glob("00000002-*"):
        path.unlink()
    with pytest.raises(UserError, match="state 9 is not at hand; at hand are the states 0 to 2, 2, 4 to 5"):
        committed_state(directory, 9)
    with pytest.raises(UserError, match="state 3 is not at hand"):
        committed_state(directory, 3)


def test_a_damaged_checkpoint_is_passed_over(run: SmallRun, tmp_path: Path) -> None:
    directory = RunDir(Path(shutil.copytree(run.dir.path, tmp_path / "run")))
    newest = max((directory.islands / "relay" / "outer").iterdir())
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    assert committed_state(directory).root == run.log.root(5, b"")


def test_a_run_without_commits_is_refused_unless_its_first_state_is_meant(tmp_path: Path) -> None:
    fresh = SmallRun(tmp_path)
    with pytest.raises(UserError, match="let the run commit some steps first"):
        publish.export(fresh.dir, tmp_path / "out")
    publish.export(fresh.dir, tmp_path / "out", step=0)
    assert verify(tmp_path / "out").tokens == {}
    assert "the run has committed nothing yet" in (tmp_path / "out" / "README.md").read_text()


def test_a_directory_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no island of a run here"):
        committed_state(RunDir(tmp_path))


# --------------------------------------------------------------------------------------- what an export is
def test_the_files_hold_the_state_in_the_dtype_and_in_shards(run: SmallRun, whole: Path) -> None:
    state = committed_state(run.dir)
    assert len(list(whole.glob("model-*-of-*.safetensors"))) > 1
    config, tensors = hf.load(whole)
    dtype = torch.bfloat16 if whole.name == "bf16" else torch.float32
    assert {tensor.dtype for tensor in tensors.values()} == {dtype}
    for spec, where in state.layout.tensor_slices():
        values = torch.from_numpy(np.array(state.parameters[where])).view(spec.shape)
        assert torch.equal(tensors[spec.name], values.to(dtype))
    assert json.loads((whole / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
    assert config.vocab_size == 320


def test_generation_stops_at_both_ends(whole: Path) -> None:
    tokens = json.loads((whole / "tokenizer.json").read_text())["added_tokens"]
    ids = {token["content"]: token["id"] for token in tokens}
    given = json.loads((whole / "generation_config.json").read_text())
    assert given["eos_token_id"] == [ids["<|end_of_text|>"], ids["<|eot_id|>"]]
    assert given["bos_token_id"] == ids["<|begin_of_text|>"]


def test_nothing_is_kept_of_an_export_whose_logits_differ(run: SmallRun, tmp_path, monkeypatch) -> None:
    whole_logits = publish.logits_of
    monkeypatch.setattr(publish, "logits_of", lambda *given: whole_logits(*given) + 0.01)
    with pytest.raises(RuntimeError, match="logits and those of transformers differ"):
        publish.export(run.dir, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_snippets_of_the_original_card_run_as_they_stand(whole: Path, capsys) -> None:
    """INTELLECT-1's card, with the path changed and, for want of a GPU, without its default device."""
    first = """
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("PATH")
tokenizer = AutoTokenizer.from_pretrained("PATH")

input_text = "What is the Metamorphosis of Prime Intellect about?"
input_ids = tokenizer.encode(input_text, return_tensors="pt")
output_ids = model.generate(input_ids, max_length=50, num_return_sequences=1)
output_text = tokenizer.decode(output_ids[0], skip_special_tokens=True)

print(output_text)
"""
    second = """
import torch
from transformers import pipeline

pipe = pipeline("text-generation", model="PATH")
print(pipe("What is prime intellect ?"))
"""
    for snippet in (first, second):
        exec(compile(snippet.replace("PATH", str(whole)), "snippet", "exec"), {})
    said = capsys.readouterr().out
    assert said.startswith("What is the Metamorphosis of Prime Intellect about?")
    assert "What is prime intellect ?" in said.splitlines()[-1]


# ------------------------------------------------------------------------------------------------- proofs
def test_an_export_proves_its_state_and_who_took_part(run: SmallRun, whole: Path) -> None:
    found = verify(whole, run.keys.authority)
    assert (found.step, found.root) == (5, run.log.root(5, b""))
    assert found.tokens == {"a" * 16: 5 * 64, "b" * 16: 5 * 64, "c" * 16: 2 * 64}
    assert found.num_steps["c" * 16] == 2
    assert found.is_rounded == (whole.name == "bf16")
    assert found.unproven == ()


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_one_changed_bit_of_any_tensor_names_the_tensor(copy: Path) -> None:
    for name, tensor in stored_tensors(copy).items():
        flip(tensor.path, tensor.first)
        with pytest.raises(UserError, match=f"{name} is not what the run has committed"):
            verify(copy)
        flip(tensor.path, tensor.first)
    verify(copy)


def test_two_tensors_that_changed_places_are_named(copy: Path) -> None:
    stored = stored_tensors(copy)
    one, other = (stored[f"model.layers.{layer}.self_attn.q_proj.weight"] for layer in (0, 1))
    data = [tensor.path.read_bytes()[tensor.first : tensor.end] for tensor in (one, other)]
    for tensor, values in zip((one, other), reversed(data), strict=True):
        whole_file = bytearray(tensor.path.read_bytes())
        whole_file[tensor.first : tensor.end] = values
        tensor.path.write_bytes(whole_file)
    with pytest.raises(UserError, match=r"0\.self_attn\.q_proj.*1\.self_attn\.q_proj.*are not what"):
        verify(copy)


def test_what_rounding_took_away_is_part_of_the_proof(whole: Path, copy: Path) -> None:
    path = copy / "proof" / "rounding.bin"
    assert path.exists() == (whole.name == "bf16")
    if whole.name == "fp32":
        return
    flip(path, 0)
    with pytest.raises(UserError, match=r"embed_tokens\.weight \(in rounding\.bin\) is not what"):
        verify(copy)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"rounding\.bin: missing or cut off"):
        verify(copy)
    path.unlink()
    with pytest.raises(UserError, match="from bf16 weights alone nothing follows"):
        verify(copy)


def changed_proof(copy: Path, **changes: object) -> None:
    proof, _ = proofs.read(copy)
    changed = msgspec.structs.replace(proof, **changes)
    (copy / "proof" / "records.msgpack").write_bytes(msgspec.msgpack.encode(changed))


def test_records_that_the_run_has_not_signed_are_refused(copy: Path) -> None:
    proof, _ = proofs.read(copy)
    given = proof.records
    more = msgspec.structs.replace(given[1].participants[0], tokens=10**6)
    forged = msgspec.structs.replace(given[1], participants=(more, *given[1].participants[1:]))
    changed_proof(copy, records=(given[0], forged, *given[2:]))
    with pytest.raises(UserError, match="record of outer step 1 is false: its signature"):
        verify(copy)
    changed_proof(copy, records=(given[0], *given[2:]))
    with pytest.raises(UserError, match="record of outer step 1 is false: it is for step 2"):
        verify(copy)
    changed_proof(copy, records=given[:-1])
    with pytest.raises(UserError, match="its table is not that of the state"):
        verify(copy)
    changed_proof(copy, records=given, run=msgspec.structs.replace(proof.run, name="other"))
    with pytest.raises(UserError, match="what it says about the run is not signed"):
        verify(copy)


def test_digests_of_tensors_alone_convince_nobody(copy: Path) -> None:
    """Whoever changes a tensor may change what the proof says of it; the run's table stays."""
    tensor = stored_tensors(copy)["model.norm.weight"]
    flip(tensor.path, tensor.first)
    proof, _ = proofs.read(copy)
    changed_proof(copy, tensors={name: each for name, each in proof.tensors.items() if name == "nothing"})
    with pytest.raises(UserError, match="not what the run has committed"):
        verify(copy)


def test_the_certificate_of_another_run_is_refused(copy: Path, tmp_path: Path) -> None:
    from atoll.swarm.identity import RunKeys

    with pytest.raises(UserError, match="whose certificate is not the one given"):
        verify(copy, RunKeys(tmp_path / "other", "small").authority)
    with pytest.raises(UserError, match="not the certificate of a run"):
        verify(copy, b"certificate")


def test_files_that_would_change_the_model_are_refused(copy: Path) -> None:
    config = copy / "config.json"
    before = config.read_text()
    config.write_text(before.replace('"rope_theta": 10000.0', '"rope_theta": 20000.0'))
    with pytest.raises(UserError, match=r"config\.json: was changed: rope_parameters.*rope_theta = 20000"):
        verify(copy)
    config.write_text(before)
    tokenizer = copy / "tokenizer.json"
    text = tokenizer.read_text()
    tokenizer.write_text(text + " ")
    with pytest.raises(UserError, match=r"tokenizer\.json: is not the tokenizer of the run's data"):
        verify(copy)
    tokenizer.write_text(text)
    (copy / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"adapter_config\.json: no part of an export"):
        verify(copy)


def test_what_is_no_export_is_named(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="carries no proof"):
        verify(tmp_path)
    (copy / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(UserError, match=r"index\.json: damaged"):
        verify(copy)
    (copy / "proof" / "records.msgpack").write_bytes(b"\x81")
    with pytest.raises(UserError, match=r"records\.msgpack: damaged"):
        verify(copy)


def test_a_false_header_of_a_file_of_weights_is_refused(copy: Path) -> None:
    path = stored_tensors(copy)["model.norm.weight"].path
    data = path.read_bytes()
    path.write_bytes(data[:100])
    with pytest.raises(UserError, match="damaged"):
        verify(copy)
    path.write_bytes(data.replace(b"model.norm.weight", b"model.norm.weighs"))
    with pytest.raises(UserError, match=r"has no model\.norm\.weight"):
        verify(copy)
