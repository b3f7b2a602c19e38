"""Makes the chats and pairs that ship with atoll from its books: `python docs/sample_rows.py`.

In a chat a reader asks how a passage goes on, which book a sentence is from, or when it was written; in some,
the assistant looks that up with a tool. In a pair the chosen answer is how the passage goes on; the
rejected one breaks off in the middle of a sentence, which a small model can learn to avoid, or comes from
another book, which is harder.
"""

import json
import random
import re
from pathlib import Path
from typing import Any

SAMPLE_DIR = Path(__file__).parents[1] / "src/atoll/sample"
BOOKS = {  # title, author and year, by file
    "alices-adventures-in-wonderland": ("Alice's Adventures in Wonderland", "Lewis Carroll", 1865),
    "journey-to-the-center-of-the-earth": ("Journey to the Center of the Earth", "Jules Verne", 1864),
    "kidnapped": ("Kidnapped", "Robert Louis Stevenson", 1886),
    "the-adventure-of-the-speckled-band": (
        "The Adventure of the Speckled Band",
        "Arthur Conan Doyle",
        1892,
    ),
    "the-canterville-ghost": ("The Canterville Ghost", "Oscar Wilde", 1887),
    "the-sign-of-the-four": ("The Sign of the Four", "Arthur Conan Doyle", 1890),
    "through-the-looking-glass": ("Through the Looking-Glass", "Lewis Carroll", 1871),
    "treasure-island": ("Treasure Island", "Robert Louis Stevenson", 1881),
}
NUM_CHATS, NUM_PAIRS = 480, 240
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
HEADING = re.compile(r"\bCHAPTER\b")
MIN_CHARACTERS, MAX_CHARACTERS = 20, 250  # of a sentence that is used
NUM_SENTENCES = 6  # of a passage
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "find_book",
            "description": "Finds the book that has a sentence.",
            "parameters": {"type": "object", "properties": {"sentence": {"type": "string"}}},
        },
    }
]


def passages(name: str) -> list[list[str]]:
    """Runs of sentences of a book, none in two runs."""
    found: list[list[str]] = []
    for chapter in (SAMPLE_DIR / "books" / f"{name}.txt").read_text("utf-8").split("\f"):
        run: list[str] = []
        for sentence in SENTENCE_END.split(" ".join(chapter.split())):
            is_used = MIN_CHARACTERS <= len(sentence) <= MAX_CHARACTERS and not HEADING.search(sentence)
            run = [*run, sentence] if is_used else []
            if len(run) == NUM_SENTENCES:
                found.append(run)
                run = []
    return found


def turn(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def chat(number: int, name: str, passage: list[str]) -> dict[str, Any]:
    """The chat of this number about a passage: its kind follows from the number."""
    title, author, year = BOOKS[name]
    book = f"{title}, by {author}"
    first, answer = " ".join(passage[:2]), " ".join(passage[2:4])
    if number % 8 == 0:
        call = {"name": "find_book", "arguments": {"sentence": passage[0]}}
        return {
            "messages": [
                turn("user", f"Which book is this from? {passage[0]}"),
                {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}]},
                turn("tool", json.dumps({"title": title, "author": author, "year": year})),
                turn("assistant", f"It is from {book}."),
            ],
            "tools": TOOLS,
        }
    if number % 8 == 1:
        asked = [
            turn("user", f"Which book is this from? {passage[0]}"),
            turn("assistant", f"It is from {book}."),
        ]
        return {
            "messages": [*asked, turn("user", "And when was it written?"), turn("assistant", f"In {year}.")]
        }
    turns = [turn("user", f"How does this go on? {first}"), turn("assistant", answer)]
    if number % 8 == 2:
        turns.insert(0, turn("system", f"You know {book}, by heart."))
    if number % 2:
        turns += [turn("user", "And then?"), turn("assistant", " ".join(passage[4:]))]
    return {"messages": turns}


def pair(number: int, passage: list[str], other: list[str]) -> dict[str, str]:
    """The pair of this number about a passage: its kind follows from the number."""
    chosen = " ".join(passage[2:4])
    words = chosen.split()
    return {
        "prompt": f"How does this go on? {' '.join(passage[:2])}",
        "chosen": chosen,
        "rejected": " ".join(other[2:4] if number % 4 == 0 else words[: len(words) // 2]),
    }


def main() -> None:
    draw = random.Random(0)
    known = [(name, passage) for name in BOOKS for passage in passages(name)]
    draw.shuffle(known)
    chosen, rest = known[:NUM_CHATS], known[NUM_CHATS:]
    chats = [chat(number, *each) for number, each in enumerate(chosen)]
    pairs: list[dict[str, str]] = []
    for number, (name, passage) in enumerate(rest[:NUM_PAIRS]):
        other = draw.choice([theirs for book, theirs in known if book != name])
        pairs.append(pair(number, passage, other))
    for folder, rows in (("chats", chats), ("preferences", pairs)):
        (SAMPLE_DIR / folder).mkdir(exist_ok=True)
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (SAMPLE_DIR / folder / f"{folder}.jsonl").write_text("".join(lines), "utf-8")


if __name__ == "__main__":
    main()
