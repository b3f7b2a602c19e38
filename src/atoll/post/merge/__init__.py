"""`atoll merge`: one checkpoint of several, by a method, or by whichever candidate measures best."""

from atoll.post.merge.checkpoints import Checkpoint
from atoll.post.merge.merge import Candidate, Merged, merge

__all__ = ["Candidate", "Checkpoint", "Merged", "merge"]
