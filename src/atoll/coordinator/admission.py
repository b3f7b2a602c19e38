"""Who may be a member, and which proposals count: what a `Hello` and a `Propose` must satisfy."""

import math
from collections.abc import Callable

from atoll.coordinator.rules import Rules
from atoll.samples import HASH_BITS, first_sample, num_samples, private_source, source_of
from atoll.swarm.layout import DIGEST_BYTES
from atoll.swarm.messages import VERSION, Hello, Propose
from atoll.swarm.records import Plan, Term


def objection_to_hello(rules: Rules, hello: Hello) -> str:
    """Why an agent cannot be a member; empty if it can."""
    if hello.version != VERSION:
        return (
            f"it speaks version {hello.version} of the protocol, the run {VERSION}; "
            "install the host's version of atoll"
        )
    if hello.recipe_digest != rules.recipe_digest:
        return "its recipe is not the run's; join with a ticket of this run in an empty directory"
    if hello.self_test != rules.self_test:
        return (
            "its arithmetic gives other bits than the coordinator's "
            "(another version of the kernels, or a faulty processor)"
        )
    for name, number in hello.partitions.items():
        known = rules.partitioned and 0 < number >> HASH_BITS <= len(rules.partitioned)
        if not known or private_source(first_sample(number), rules.partitioned) != source_of(name):
            return f"its partition {name} is of no partitioned source of this run"
    return ""


def unproven_claim(
    hello: Hello, term: Term, num_commits: int, num_rewinds: int, is_signed: Callable[[bytes, bytes], bool]
) -> str:
    """What an agent says that it knows, this coordinator does not, and the run has not signed; else empty.

    A coordinator that believed it would stop, since its database may be an old backup. `is_signed` tells of
    (bytes, signature) whether the signature is the run's.
    """
    record, rewind = hello.newest_record, hello.newest_rewind
    if not term.may_follow(hello.term) and not is_signed(hello.term.unsigned(), hello.term.signature):
        return f"term {hello.term.counter}"
    if hello.head > num_commits and (
        record is None
        or (record.step + 1, record.next_root) != (hello.head, hello.head_root)
        or not is_signed(record.unsigned(), record.signature)
    ):
        return f"{hello.head} commits"
    if hello.num_rewinds > num_rewinds and (
        rewind is None
        or rewind.branch != hello.num_rewinds
        or not is_signed(rewind.unsigned(), rewind.signature)
    ):
        return f"{hello.num_rewinds} rewinds"
    return ""


def objection_to_proposal(rules: Rules, plan: Plan, proposal: Propose) -> str:
    """Why the proposal of the island that has this plan cannot count; empty if it can."""
    if not 0 < proposal.inner_steps <= plan.inner_steps:
        return f"{proposal.inner_steps} inner steps, where {plan.inner_steps} were planned"
    if proposal.lease != plan.used_lease(proposal.inner_steps):
        return "samples other than the first of its lease"
    if not 0 < proposal.tokens <= num_samples(proposal.lease) * rules.context_length:
        return f"{proposal.tokens} tokens, which its samples cannot hold"
    if len(proposal.payload) != DIGEST_BYTES:
        return "a payload that is no digest"
    seconds = proposal.compute_seconds, proposal.handover_seconds
    if not all(map(math.isfinite, (proposal.norm, proposal.loss or 0.0, *seconds))):
        return "a norm, loss or duration that is not finite"
    if not proposal.metrics.is_finite:
        return "a measurement that is not finite"
    if min(seconds) < 0:
        return "a negative duration"
    return ""
