"""The Hugging Face hub: a card's metadata, and the upload. Only this file imports `huggingface_hub`."""

import re
from pathlib import Path
from typing import Any

from atoll.errors import UserError
from atoll.publish import proof as proofs
from atoll.publish.facts import Facts
from atoll.publish.states import members_of
from atoll.publish.verify import verify
from atoll.run.directory import RunDir
from atoll.words import one_line


def metadata(facts: Facts) -> str:
    """The YAML at the head of a card, as the hub's own library writes and reads it."""
    from huggingface_hub import ModelCardData

    sources = [source.dataset for run in facts.chain for source in run.sources.values()]
    datasets = sorted({name for name in sources if _is_name(name)})
    data = ModelCardData(
        license=one_line(facts.license) if facts.license else None,
        language=list(facts.languages) or None,
        datasets=datasets or None,
        base_model=facts.base_model if facts.is_base_on_hub else None,
        pipeline_tag="text-generation",
        library_name="transformers",
        tags=["atoll", "diloco", *(["conversational"] if facts.chats else [])],
    )
    return data.to_yaml() + "\n"


def check_name(repository: str) -> None:
    """Raises UserError unless this can name a model on the hub."""
    if not _is_name(repository):
        raise UserError(f"--push {repository}: not a name on the hub; give it as owner/name")


def is_export_of(run_dir: RunDir, directory: Path) -> bool:
    """Whether a directory is an export of a run that is here. Raises UserError for one that is not whole."""
    if not (directory / proofs.FOLDER / proofs.RECORDS).is_file():
        return False
    own = {member.run_id for member, _ in members_of(run_dir)}
    if verify(directory).run_id not in own:
        raise UserError(f"{directory}: an export of another run than {run_dir.path}; name another directory")
    return True


def files_to_push(directory: Path) -> list[tuple[str, int]]:
    """(path in the repository, size in bytes) of what an upload of a directory sends, sorted."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return [(path.relative_to(directory).as_posix(), path.stat().st_size) for path in paths]


def push(directory: Path, repository: str) -> str:
    """Upload a directory to a model repository, made if it is not there; the address of what is there now.

    The token is the one that `hf auth login` has kept, or that HF_TOKEN gives. Raises UserError where there
    is none, or the hub refuses.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError

    if get_token() is None:
        raise UserError("--push: no token of the hub here; run `hf auth login`, or set HF_TOKEN")
    # What the library's HTTP client raises where nobody answers. Versions differ in which client it is.
    of_the_client: type[Exception] = HfHubHTTPError.__bases__[0]
    api: Any = HfApi()
    try:
        api.create_repo(repository, exist_ok=True)
        done = api.upload_folder(repo_id=repository, folder_path=directory, commit_message="Export by atoll")
    except (of_the_client, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"--push {repository}: the hub did not take it ({reason}); the export is whole in {directory}, "
            "and the same command pushes it again"
        ) from error
    return str(done)


def _is_name(name: str) -> bool:
    """Whether this is owner/name as on the hub, and not the path of a folder of one's own."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name, re.ASCII) is not None
