"""What an island has given to its run, as the run's host counts it."""

import asyncio

from atoll.errors import UserError
from atoll.run import operate
from atoll.run.directory import RunDir
from atoll.status import RunStatus
from atoll.swarm.messages import StatusReply, StatusRequest
from atoll.terminal import human

ANSWER_SECONDS = 3.0


def run_status(run_dir: RunDir, seconds: float = ANSWER_SECONDS) -> RunStatus | None:
    """The run now; None if its host does not answer within so long."""

    async def ask() -> RunStatus | None:
        async with asyncio.timeout(seconds):
            answer = await operate.ask(run_dir, StatusRequest())
        return answer.status if isinstance(answer, StatusReply) else None

    try:
        return asyncio.run(ask())
    except (UserError, TimeoutError):
        return None


def contributed(run_dir: RunDir, island: str) -> str:
    """A sentence for who leaves."""
    status = run_status(run_dir)
    if status is None:
        return "how much of it is committed is not known here: the run's host does not answer"
    own = next((each for each in status.islands if each.island == island), None)
    tokens = own.committed_tokens if own else 0
    share = f", {tokens / status.committed_tokens:.1%} of the run's" if tokens else ""
    return (
        f"committed of this island in all: {human(tokens)} tokens{share}; the samples that it was working on "
        "are free for others again"
    )
