"""The grid of the comparison: what is asked of every peer, and what came back."""
import random
import statistics
from dataclasses import dataclass, field

# Characters that the models' tokenizer makes one token each, whatever stands beside them.
SINGLE_TOKEN_CHARACTERS = "!\"#$%&()*+,-./:;<=>?@[]^_`{|}~"


@dataclass(frozen=True)
class Request:
    prompt: tuple  # token ids
    adapter: int | None  # index, or None for the bare base
    output_tokens: int
    arrival_s: float = 0.0  # when it is sent, since the run began

    def text(self) -> str:
        """A prompt of as many tokens, for a peer that takes only text."""
        return "".join(SINGLE_TOKEN_CHARACTERS[token % len(SINGLE_TOKEN_CHARACTERS)] for token in self.prompt)


@dataclass(frozen=True)
class Cell:
    """One workload: a line of the tables. `adapters` 0 is the base; k > 0 deals k adapters out to the requests, in turn or by
    popularity ("zipf": the i-th is asked for 1 / i as often as the first; "uniform": drawn with equal chances)."""

    model: str
    dtype: str
    adapters: int
    concurrency: int
    prompt_tokens: int = 64
    output_tokens: int = 64
    num_requests: int = 0  # 0: as many as are in flight, all sent at once; more: the next one when one has ended
    popularity: str = "turn"

    def requests(self, vocab_size: int, salt: str = "") -> list:
        """The same for every peer. Another `salt` gives other prompts, so that no cache of prompts helps a second run."""
        draw = random.Random(f"{self.prompt_tokens}/{self.output_tokens}/{salt}")
        prompts = [tuple(draw.randrange(1, vocab_size) for _ in range(self.prompt_tokens))
                   for _ in range(self.num_requests or self.concurrency)]
        return [Request(prompt, self._adapter(index, draw), self.output_tokens) for index, prompt in enumerate(prompts)]

    def _adapter(self, index: int, draw: random.Random) -> int | None:
        if self.adapters == 0:
            return None
        if self.popularity == "turn":
            return index % self.adapters
        weights = [1 / rank if self.popularity == "zipf" else 1 for rank in range(1, self.adapters + 1)]
        return draw.choices(range(self.adapters), weights)[0]

    def __str__(self) -> str:
        more = f" x {self.num_requests}" if self.num_requests else ""
        return (f"{self.model} {self.dtype}, {self.adapters} adapters{'' if self.popularity == 'turn' else ' ' + self.popularity}, "
                f"{self.concurrency} at once, {self.prompt_tokens}/{self.output_tokens}{more}")


@dataclass
class Outcome:
    """One run of one cell by one peer. Times in seconds since the run began."""

    wall_s: float
    sent_s: list = field(default_factory=list)  # one a request
    token_s: list = field(default_factory=list)  # one a request: when each of its tokens arrived

    def __post_init__(self):
        if self.wall_s <= 0:
            raise ValueError(f"a run took {self.wall_s} s")

    def check(self, requests: list):
        """Raises unless every request got as many tokens as it asked for."""
        wrong = [f"request {index}: {len(times)} tokens instead of {request.output_tokens}"
                 for index, (times, request) in enumerate(zip(self.token_s, requests, strict=True)) if len(times) != request.output_tokens]
        if wrong:
            raise RuntimeError(f"{len(wrong)} answers of a wrong length; {wrong[0]}")

    @property
    def num_tokens(self) -> int:
        return sum(len(times) for times in self.token_s)

    @property
    def tokens_per_s(self) -> float:
        return self.num_tokens / self.wall_s

    @property
    def mean_first_token_s(self) -> float:
        return statistics.fmean(times[0] - sent for times, sent in zip(self.token_s, self.sent_s))

    @property
    def decode_tokens_per_s(self) -> float | None:
        """Of one sequence, on the mean: its tokens after the first over the time from its first to its last."""
        decoding = sum(times[-1] - times[0] for times in self.token_s)
        return sum(len(times) - 1 for times in self.token_s) / decoding if decoding > 0 else None

    def gaps(self) -> list:
        """(end, length) of every wait for a token but the first, of all requests."""
        return [(now, now - before) for times in self.token_s for before, now in zip(times, times[1:])]


def percentile(values: list, fraction: float) -> float:
    """By nearest rank: one of the values, never below the fraction asked for."""
    ordered = sorted(values)
    rank = max(1, -int(-fraction * len(ordered) // 1))
    return ordered[rank - 1]


def grid(models, dtypes, adapters, concurrencies, shapes) -> list:
    """Every combination in which the adapters are not more than the requests."""
    return [
        Cell(model, dtype, k, concurrency, prompt, output)
        for model in models for dtype in dtypes for prompt, output in shapes
        for concurrency in concurrencies for k in adapters if k <= concurrency]
