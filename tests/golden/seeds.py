"""Seeds and prompts that depend on names alone."""

import random
import zlib


def seed_of(name: str) -> int:
    """A seed that depends on the name alone."""
    return zlib.crc32(name.encode())


def random_prompt(name: str, length: int, vocab_size: int, first_id: int = 3) -> list[int]:
    """`length` token ids in [first_id, vocab_size), which depend on the arguments alone."""
    rng = random.Random(seed_of(name))
    return [rng.randrange(first_id, vocab_size) for _ in range(length)]
