"""Which evolutions and answers are no data: they failed in a way that can be seen."""

import re
from typing import Final

from atoll.post.evolve.server import Reply

MIN_CHARACTERS: Final = 8
ECHO: Final = 0.95  # of the shorter text's words that are the other's too, at about the same length
REFUSALS = re.compile(
    r"^\W*(i'?m sorry|i am sorry|sorry,|i apologi[sz]e|unfortunately,? i (can|am)|i can(no|')t|i cannot|"
    r"i am (not able|unable)|i'm (not able|unable)|as an? (ai|language model)|i won'?t)",
    re.IGNORECASE,
)
# A model that talks about its task in the place of doing it.
ABOUT_THE_TASK = re.compile(
    r"(#?(given|rewritten|original|evolved) (prompt|instruction)#?\s*:|step \d\s*#\w+|"
    r"^\W*(sure|certainly|of course|understood)[,!.].{0,80}$|please provide|thank you for)",
    re.IGNORECASE | re.MULTILINE,
)
ERRORS = re.compile(
    r"^\W*(\w+)?error\b|traceback \(most recent call last\)|^\W*(null|none|nan|undefined)\W*$", re.I
)


def why_no_reply(reply: Reply) -> str:
    """What is wrong with any reply; "" for nothing."""
    if not reply.is_whole:
        return "cut off"
    text = reply.text.strip()
    if not text:
        return "empty"
    if ERRORS.match(text):
        return "an error message"
    return ""


def why_no_instruction(text: str, before: str) -> str:
    """What is wrong with an instruction that was made of the instruction `before`; "" for nothing."""
    if len(text) < MIN_CHARACTERS:
        return "too short"
    if ERRORS.match(text):
        return "an error message"
    if REFUSALS.match(text):
        return "a refusal"
    if ABOUT_THE_TASK.search(text):
        return "about the task"
    if is_echo(text, before):
        return "an echo"
    return ""


def why_no_answer(text: str, instruction: str) -> str:
    """What is wrong with the answer to an instruction; "" for nothing."""
    if REFUSALS.match(text):
        return "a refusal"
    if is_echo(text, instruction):
        return "an echo"
    return ""


def is_echo(text: str, other: str) -> bool:
    """Whether a text says what the other does."""
    ours, theirs = words(text), words(other)
    if not ours or not theirs:
        return ours == theirs
    shared = len(set(ours) & set(theirs)) / len(set(ours) | set(theirs))
    return ours == theirs or (shared >= ECHO and abs(len(ours) - len(theirs)) <= 0.1 * len(theirs))


def words(text: str) -> list[str]:
    """The words of a text, in lower case. In scripts without spaces each letter is one."""
    return re.findall(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_]+", text.lower())


def between(text: str, tag: str) -> str:
    """The last text between <tag> and </tag>, stripped; "" where there is none."""
    found = re.findall(rf"<{tag}>((?:(?!<{tag}>).)*?)</{tag}>", text, re.DOTALL | re.IGNORECASE)
    return found[-1].strip() if found else ""
