"""A codec that only this test knows, of variable length and with a residual, runs a whole swarm."""

import numpy as np
import pytest
from worlds.clock import run
from worlds.sparse import Forgetful, Sparse, Spoilt
from worlds.swarm import Swarm
from worlds.trainer import TARGET

from atoll.agent import payload
from atoll.agent.assembly import Assembly
from atoll.agent.codecs import CODECS, Codec
from atoll.agent.pieces import piece_sizes


def distance_after_a_run(directory, codec: Codec) -> float:
    """The mean distance of the parameters from their target after a run.

    One island dies and comes back, another joins late.
    """

    async def main() -> float:
        swarm = Swarm(directory, num_outer_steps=16, codec=codec.name, momentum=0.0)
        await swarm.start_coordinator()
        for name in ("r", "a", "b"):
            swarm.start(name, relay=name == "r", step_seconds=0.02)
        await swarm.until_step(2)
        await swarm.kill("b")
        await swarm.until_step(4)
        swarm.start_again("b")
        await swarm.until_step(10)  # so late that a joiner takes a state from donors, not updates alone
        swarm.start("late", step_seconds=0.02)
        await swarm.until_finished("a", "b", "late")
        swarm.assert_equal_roots()
        took_part = [{share.island for share in record.participants} for record in swarm.store.commits()]
        assert {"a", "late"} <= set.union(*took_part[10:]), "the joiner took part"
        assert "b" in set.union(*took_part[:2]), "b took part before it died"
        assert "b" in set.union(*took_part[4:]), "and after it came back"
        relay = swarm.agents["r"].work
        update = relay.log.committed(relay.log.head - 1)
        assert update is not None
        assert len(set(piece_sizes(update.pieces.table).tolist())) > 1, "pieces are of different sizes"
        distance = float(np.abs(relay.state.parameters[:1000] - TARGET).mean())
        await swarm.stop()
        return distance

    return run(main())


def test_a_codec_of_variable_length_with_a_residual_is_one_file(tmp_path, monkeypatch) -> None:
    distances: dict[str, float] = {}
    for codec in (Sparse(), Forgetful()):
        monkeypatch.setitem(CODECS, codec.name, codec)
        distances[codec.name] = distance_after_a_run(tmp_path / codec.name, codec)
    assert distances["sparse"] < 0.5 * distances["forgetful"], "a residual is not lost"


def blamed_in_a_run(directory) -> list[str]:
    """The faults that are reported about island "b" in a run of three islands and a relay, as texts."""

    async def main() -> list[str]:
        swarm = Swarm(directory, num_outer_steps=5, codec="sparse")
        await swarm.start_coordinator()
        for name in ("r", "a", "b", "c"):
            swarm.start(name, relay=name == "r", step_seconds=0.02)
        await swarm.until_finished("a", "b", "c")
        swarm.assert_equal_roots()
        faults = [event.text for event in swarm.events() if event.kind == "fault"]
        assert all({"a", "c"} <= {s.island for s in record.participants} for record in swarm.store.commits())
        await swarm.stop()
        return [text for text in faults if "about b" in text]

    return run(main())


def test_a_participant_whose_payload_cannot_be_decoded_ends_no_agent(tmp_path, monkeypatch) -> None:
    make = payload.make

    def codec_named(name: str) -> Codec:
        return Spoilt() if name == "spoilt" else CODECS[name]

    def spoil(directory, state, codec, *rest):
        return make(directory, state, "spoilt" if directory.name == "b" else codec, *rest)

    monkeypatch.setitem(CODECS, "sparse", Sparse())
    monkeypatch.setattr(payload, "codec_named", codec_named)
    monkeypatch.setattr(payload, "make", spoil)
    blamed = blamed_in_a_run(tmp_path)
    assert any("cannot be decoded: its positions are not ascending" in text for text in blamed)


def test_an_owner_whose_sums_cannot_be_decoded_loses_its_slice_to_others(tmp_path, monkeypatch) -> None:
    class Spoiling(Assembly):
        def __init__(self, directory, layout, attempt) -> None:
            super().__init__(directory, layout, attempt)
            if directory.parent.name == "b":
                self.codec = Spoilt()

    monkeypatch.setitem(CODECS, "sparse", Sparse())
    monkeypatch.setattr("atoll.agent.work.Assembly", Spoiling)
    blamed = blamed_in_a_run(tmp_path)
    assert any("cannot be decoded: its positions are not ascending" in text for text in blamed)


@pytest.mark.parametrize("codec", ["fp32", "bf16", "int8"])
def test_a_codec_without_a_residual_writes_none(tmp_path, codec) -> None:
    async def main() -> None:
        swarm = Swarm(tmp_path, num_outer_steps=3, codec=codec)
        await swarm.start_coordinator()
        for name in ("a", "b"):
            swarm.start(name, step_seconds=0.02)
        await swarm.until_finished("a", "b")
        swarm.assert_equal_roots()
        await swarm.stop()

    run(main())
    assert list(tmp_path.rglob("payload.kept"))
    assert not list(tmp_path.rglob("residual*"))
