"""The types of a recipe's values: what is allowed is part of the type, and so are the words that say it.

The words complete "must be ...". No number may be infinite or NaN, since JSON, which keeps and digests a
run's recipe, has neither; no integer may be wider than 64 bits, since messages carry no wider ones.
"""

import sys
from typing import Annotated

from msgspec import Meta

MAX_INT = 2**63 - 1
MAX_FLOAT = sys.float_info.max

PositiveInt = Annotated[int, Meta(ge=1, le=MAX_INT, description="an integer >= 1")]
# With some hundred thousand, a machine can start no other process.
NumThreads = Annotated[int, Meta(ge=1, le=1024, description="an integer from 1 to 1024")]
NonNegativeInt = Annotated[int, Meta(ge=0, le=MAX_INT, description="an integer >= 0")]
Int64 = Annotated[int, Meta(ge=-MAX_INT - 1, le=MAX_INT, description="an integer of at most 64 bits")]

# What a model is computed with, in single precision: there 1e-46 is nothing, and 1e39 infinite.
PositiveFloat = Annotated[float, Meta(ge=1e-30, le=1e30, description="a number from 1e-30 to 1e30")]
Rate = Annotated[float, Meta(ge=1e-30, le=1e3, description="a number from 1e-30 to 1000")]  # of an optimizer
Strength = Annotated[float, Meta(ge=0, le=1e3, description="a number from 0 to 1000")]  # of a penalty
NonNegativeFloat = Annotated[float, Meta(ge=0, le=MAX_FLOAT, description="a finite number >= 0")]
FiniteFloat = Annotated[float, Meta(ge=-MAX_FLOAT, le=MAX_FLOAT, description="a finite number")]
Decay = Annotated[float, Meta(ge=0, lt=1, description="a number >= 0 and < 1")]  # momentum, Adam's betas
Share = Annotated[float, Meta(gt=0, lt=1, description="a number > 0 and < 1")]
HalfShare = Annotated[float, Meta(ge=0, lt=0.5, description="a number >= 0 and < 0.5")]
Factor = Annotated[float, Meta(ge=0, le=1, description="a number from 0 to 1")]

NonEmptyStr = Annotated[str, Meta(min_length=1, description="a string that is not empty")]
# No operating system takes NUL in a path.
PathStr = Annotated[str, Meta(pattern=r"\A[^\0]+\Z", description="a path that is not empty and has no NUL")]
Url = Annotated[
    str,
    Meta(
        pattern=r"\A(https?://[^/\s]+|file:///)\S*\Z",
        description="a URL that begins with http://, https:// or file:///",
    ),
]
# A run's name is a directory's; and with "-" and eight digits the common name of its certificate, which takes
# at most 64 characters.
RunName = Annotated[
    str,
    Meta(
        pattern=r"\A[A-Za-z0-9_-]{1,55}\Z",
        description="a string of letters, digits, - and _ only, at most 55, since it names a directory",
    ),
]
# Letters of any script: 60 characters are at most 240 bytes, and a file system takes 255.
SourceName = Annotated[
    str,
    Meta(
        pattern=r"\A[\w-]{1,60}\Z",
        description="a string of letters, digits, - and _ only, at most 60, since it names a directory",
    ),
]
