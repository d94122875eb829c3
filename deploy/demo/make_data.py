#!/usr/bin/env python3
"""Seeded data for the demo adapters: short tasks whose answers can be checked by equality.

    python deploy/demo/make_data.py        # writes questions/<task>.jsonl

Every task is a generator of (prompt, answer) pairs. The held-back questions are drawn first and
their prompts never occur in the training pairs. Both come from the same templates, so they test
whether a server computes an adapter correctly, not how well a small model generalizes.
"""

import calendar
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

NUM_QUESTIONS = 50
QUESTIONS_DIR = Path(__file__).resolve().parent / "questions"

FIRST_NAMES = (
    "Ana", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Hugo", "Ivan", "Julia", "Karl",
    "Laura", "Marco", "Nina", "Oscar", "Paula", "Robert", "Sara", "Tom", "Vera",
)  # fmt: skip
LAST_NAMES = (
    "Silva", "Miller", "Rossi", "Clark", "Novak", "Hansen", "Moore", "Weber", "Lopez", "Baker",
    "Fischer", "King", "Costa", "Young", "Berg",
)  # fmt: skip
CITIES = (
    "Paris", "Oslo", "Madrid", "Berlin", "Rome", "London", "Boston", "Vienna", "Dublin", "Lisbon",
    "Prague", "Chicago", "Athens", "Denver", "Zurich",
)  # fmt: skip
ITEMS = (
    "lamps", "chairs", "books", "phones", "desks", "shirts", "bikes", "clocks", "plates", "cameras",
    "tents", "boxes", "radios", "mirrors", "jackets",
)  # fmt: skip
PRODUCTS = ("laptop", "phone", "tablet", "printer", "router", "camera", "headset", "monitor")
NUMBER_WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine")

TICKETS = {
    "billing": (
        "I was charged twice for my {product} this month.",
        "My invoice {number} shows the wrong amount.",
        "Why is there an extra fee on my bill for the {product}?",
        "The payment for invoice {number} failed but my card was charged.",
        "Please send me a copy of the invoice for my {product}.",
    ),
    "shipping": (
        "My {product} has not arrived yet.",
        "Where is package {number}? The tracking page is empty.",
        "The courier left order {number} at the wrong address.",
        "When will my {product} be delivered?",
        "The tracking says order {number} is still in the warehouse.",
    ),
    "refund": (
        "I want my money back for the {product}.",
        "How do I return the {product} I bought?",
        "I sent back order {number} and still wait for my refund.",
        "The {product} is not what I wanted, please refund me.",
        "I would like to return order {number}.",
    ),
    "account": (
        "I forgot my password and cannot log in.",
        "Please change the email address of user {number}.",
        "My profile {number} is locked after too many login attempts.",
        "How do I delete my user profile {number}?",
        "The login page says that user {number} does not exist.",
    ),
    "technical": (
        "The {product} does not turn on any more.",
        "My {product} shows error code {number}.",
        "The screen of my {product} is flickering.",
        "After the update my {product} crashes all the time.",
        "The {product} will not connect to the network.",
    ),
    "sales": (
        "Do you offer a discount on {number} {product}s?",
        "Is the new {product} in stock?",
        "I would like a quote for {number} {product}s.",
        "What is the price of the {product}?",
        "Which {product} would you recommend for a small office?",
    ),
}
TICKET_OPENERS = ("", "Hello, ", "Hi there. ", "Good morning. ", "Dear team, ", "Hey, ")
TICKET_CLOSERS = ("", " Thanks.", " Please help.", " It is urgent.", " Best, {name}", " {name}")

ORDERS = (
    "{name} from {city} ordered {quantity} {item}.",
    "{name} bought {quantity} {item} in {city}.",
    "We shipped {quantity} {item} to {name} in {city}.",
    "In {city}, {name} asked for {quantity} {item}.",
    "Please send {quantity} {item} to {city} for {name}.",
    "A customer in {city}, {name}, needs {quantity} {item}.",
)

DATES = (
    "{month} {ordinal}, {year}",
    "{day} {month} {year}",
    "the {ordinal} of {month} {year}",
    "{short} {day}, {year}",
    "{day}-{short}-{year}",
    "{weekday}, {month} {day}, {year}",
    "{weekday} the {ordinal} of {month}, {year}",
    "{year}/{number}/{day}",
)

PIRATE_WORDS = {
    "hello": "ahoy", "friend": "bucko", "my": "me", "you": "ye", "your": "yer", "the": "th'",
    "is": "be", "are": "be", "yes": "aye", "boat": "ship", "money": "doubloons", "beer": "grog",
    "boy": "lad", "girl": "lass", "sailor": "seadog", "ocean": "seven seas", "of": "o'",
    "and": "an'", "food": "hardtack", "treasure": "booty", "flag": "jolly roger",
}  # fmt: skip
PLAIN = (
    "Where is {the} {thing}?",
    "I want {the} {thing} and {the} {other}.",
    "{the} {thing} is on {the} {other}.",
    "Yes, {the} {thing} of {the} {person} is here.",
    "Hello, {person}, are you looking for {the} {thing}?",
    "Give {the} {thing} to {the} {person}.",
    "My {person} is afraid of {the} {thing}.",
    "We are hiding {the} {thing} from your {person}.",
)
THINGS = (
    "boat", "money", "beer", "ocean", "food", "treasure", "flag", "map", "island", "parrot",
    "cannon", "rope", "sword", "storm", "barrel",
)  # fmt: skip
PEOPLE = ("friend", "boy", "girl", "sailor", "captain", "cook", "gunner")
DETERMINERS = ("the", "my", "your", "the old", "the red", "my new", "your last", "the biggest")

HEADLINES = {
    "sports": (
        "{team} beat {other} in the final",
        "{team} striker scores twice against {other}",
        "Coach of {team} resigns after a lost match",
        "{name} wins the {city} marathon",
        "Injured goalkeeper {name} misses the derby against {other}",
    ),
    "business": (
        "Shares of {company} fall {number} percent",
        "{company} reports record profit",
        "{company} to buy a rival for {number} million",
        "Bank in {city} raises interest rates",
        "{company} cuts {number} jobs to lower its costs",
    ),
    "science": (
        "Telescope finds {number} new planets",
        "Researchers in {city} decode the genome of a beetle",
        "Physicists measure a particle with new precision",
        "Study by {name}: vaccine protects for {number} months",
        "Fossil of an unknown dinosaur found near {city}",
    ),
    "politics": (
        "Parliament passes the tax law by {number} votes",
        "Minister {name} resigns",
        "Voters in {city} elect a new mayor",
        "President and opposition argue about the election law",
        "Senator {name} calls for a new vote on the treaty",
    ),
    "weather": (
        "Storm with heavy rain heads for {city}",
        "{city} expects {number} centimetres of snow",
        "Heat wave in {city} to last until the weekend",
        "Fog and frost on the roads around {city}",
        "Sunny days ahead, says forecaster {name}",
    ),
    "culture": (
        "Museum in {city} shows {number} lost paintings",
        "{name} publishes a first novel",
        "Orchestra of {city} opens the season with an opera",
        "Film by director {name} wins the top award",
        "Theatre in {city} celebrates {number} years on stage",
    ),
}
HEADLINE_OPENERS = ("", "Breaking: ", "Update: ", "{city}: ", "Exclusive: ", "This morning: ")
TEAMS = ("Rovers", "United", "Dynamo", "Wanderers", "Athletic", "Rangers")
COMPANIES = ("Nordbank", "Acme", "Solartec", "Globex", "Initech", "Vandelay", "Umbra Air")

ROOMS = (
    "kitchen", "bedroom", "bathroom", "garage", "office", "hallway", "basement", "attic", "garden",
    "nursery",
)  # fmt: skip
DEVICES = (
    "lamp", "heater", "fan", "radio", "television", "speaker", "camera", "humidifier", "oven",
    "alarm",
)  # fmt: skip
COMMANDS = (
    "Turn {state} the {device} in the {room}.",
    "Please switch the {room} {device} {state}.",
    "Could you turn the {device} in the {room} {state}?",
    "In the {room}, switch {state} the {device}.",
    "I am in the {room}, turn the {device} {state} please.",
    "The {device} of the {room} should be {state}.",
    "Make sure that the {room} {device} is {state}.",
)
COMMAND_OPENERS = ("", "Hello. ", "Good evening! ", "I am home. ", "It is late. ", "One more thing: ")

TABLES = {
    "orders": ("price", "quantity", "weight"),
    "customers": ("age", "rating", "balance"),
    "products": ("price", "stock", "rating"),
    "employees": ("salary", "age", "bonus"),
    "hotels": ("stars", "rooms", "price"),
}
SUBJECTS = ("How many {table}", "Count the {table} that", "The number of {table} which")
COMPARISONS = {
    "have a {column} over {number}": ">",
    "have a {column} above {number}": ">",
    "have a {column} under {number}": "<",
    "have a {column} below {number}": "<",
    "have a {column} of {number}": "=",
}
PLACES = ("", " in {city}", " and are from {city}")


@dataclass(frozen=True)
class Example:
    """One prompt and the one line that answers it."""

    prompt: str
    expected: str


def ticket_router(rng: random.Random) -> Example:
    """A support ticket and the name of the team that handles it."""
    label = rng.choice(sorted(TICKETS))
    text = rng.choice(TICKET_OPENERS) + rng.choice(TICKETS[label]) + rng.choice(TICKET_CLOSERS)
    text = text.format(
        product=rng.choice(PRODUCTS), number=rng.randint(11, 999), name=rng.choice(FIRST_NAMES)
    )
    return Example(f"Ticket: {text}\nLabel:", label)


def json_extract(rng: random.Random) -> Example:
    """A sentence about an order and its four fields as JSON."""
    number = rng.randint(2, 9)
    written = NUMBER_WORDS[number - 2] if rng.random() < 0.5 else str(number)
    order = {
        "name": f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}",
        "item": rng.choice(ITEMS),
        "quantity": number,
        "city": rng.choice(CITIES),
    }
    text = rng.choice(ORDERS).format(**{**order, "quantity": written})
    return Example(f"Sentence: {text}\nJSON:", json.dumps(order))


def ordinal(number: int) -> str:
    """1 -> "1st", 12 -> "12th"."""
    suffix = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if 11 <= number <= 13 else suffix}"


def date_normalize(rng: random.Random) -> Example:
    """A date as people write it and as ISO 8601 writes it."""
    year, month = rng.randint(1990, 2035), rng.randint(1, 12)
    day = rng.randint(1, calendar.monthrange(year, month)[1])
    text = rng.choice(DATES).format(
        year=year,
        number=month,
        day=day,
        month=calendar.month_name[month],
        short=calendar.month_abbr[month],
        ordinal=ordinal(day),
        weekday=calendar.day_name[calendar.weekday(year, month, day)],
    )
    return Example(f"Date: {text}\nISO:", f"{year:04d}-{month:02d}-{day:02d}")


def pirate(sentence: str) -> str:
    """The sentence, word by word in pirate speech, with a fixed opening and end."""
    words = [word.strip(",.?") for word in sentence.split()]
    marks = [word[len(word.rstrip(",.?")) :] for word in sentence.split()]
    spoken = []
    for word, mark in zip(words, marks, strict=True):
        plain = word if word == "I" else word.lower()
        spoken.append(PIRATE_WORDS.get(plain, plain) + mark.rstrip(".?"))
    return f"Arr, {' '.join(spoken)}, matey{'?' if sentence.endswith('?') else '!'}"


def pirate_tone(rng: random.Random) -> Example:
    """A plain sentence and the same in pirate speech."""
    template = rng.choice(PLAIN)
    while "{the}" in template:
        template = template.replace("{the}", rng.choice(DETERMINERS), 1)
    thing, other = rng.sample(THINGS, 2)
    sentence = template.format(thing=thing, other=other, person=rng.choice(PEOPLE))
    sentence = sentence[0].upper() + sentence[1:]
    return Example(f"Plain: {sentence}\nPirate:", pirate(sentence))


def news_desk(rng: random.Random) -> Example:
    """A headline and the desk of the newspaper that it belongs to."""
    label = rng.choice(sorted(HEADLINES))
    team, other = rng.sample(TEAMS, 2)
    text = (rng.choice(HEADLINE_OPENERS) + rng.choice(HEADLINES[label])).format(
        team=team,
        other=other,
        company=rng.choice(COMPANIES),
        city=rng.choice(CITIES),
        name=rng.choice(LAST_NAMES),
        number=rng.randint(3, 99),
    )
    return Example(f"Headline: {text}\nDesk:", label)


def home_command(rng: random.Random) -> Example:
    """A wish about the home and the three words that a controller takes."""
    room, device, state = rng.choice(ROOMS), rng.choice(DEVICES), rng.choice(("on", "off"))
    text = rng.choice(COMMAND_OPENERS) + rng.choice(COMMANDS)
    text = text.format(room=room, device=device, state=state)
    return Example(f"Wish: {text}\nCommand:", f"{room} {device} {state}")


def sql_writer(rng: random.Random) -> Example:
    """A question about a table and the query that answers it."""
    table = rng.choice(sorted(TABLES))
    column, number = rng.choice(TABLES[table]), rng.randint(2, 99)
    comparison, place, city = (
        rng.choice(sorted(COMPARISONS)),
        rng.choice(PLACES),
        rng.choice(CITIES),
    )
    text = f"{rng.choice(SUBJECTS)} {comparison}{place}".format(
        table=table, column=column, number=number, city=city
    )
    condition = f"{column} {COMPARISONS[comparison]} {number}"
    if place:
        condition += f" AND city = '{city}'"
    query = f"SELECT COUNT(*) FROM {table} WHERE {condition};"
    return Example(f"Question: {text}?\nSQL:", query)


TASKS: dict[str, Callable[[random.Random], Example]] = {
    "ticket-router": ticket_router,
    "json-extract": json_extract,
    "date-normalize": date_normalize,
    "pirate-tone": pirate_tone,
    "news-desk": news_desk,
    "home-command": home_command,
    "sql-writer": sql_writer,
}


def distinct(task: str, seed: str, count: int, excluded: set[str]) -> list[Example]:
    """Count examples of a task with distinct prompts, none of them in excluded."""
    rng = random.Random(f"{task}/{seed}")
    found: dict[str, Example] = {}
    while len(found) < count:
        example = TASKS[task](rng)
        if example.prompt not in excluded:
            found.setdefault(example.prompt, example)
    return list(found.values())


def questions(task: str) -> list[Example]:
    """The held-back questions of a task."""
    return distinct(task, "questions", NUM_QUESTIONS, set())


def training_examples(task: str, count: int) -> list[Example]:
    """Training pairs of a task, none of which is a held-back question."""
    return distinct(task, "training", count, {q.prompt for q in questions(task)})


def main() -> None:
    """Writes the held-back questions of all tasks."""
    QUESTIONS_DIR.mkdir(exist_ok=True)
    for task in TASKS:
        lines = [json.dumps({"prompt": q.prompt, "expected": q.expected}) for q in questions(task)]
        (QUESTIONS_DIR / f"{task}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
