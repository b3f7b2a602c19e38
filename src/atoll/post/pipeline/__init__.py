"""`atoll pipeline`: steps that make models and data out of one another, each done once."""

from atoll.post.pipeline.pipeline import Finished, load, run
from atoll.post.pipeline.plan import plan

__all__ = ["Finished", "load", "plan", "run"]
