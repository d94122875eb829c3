"""The grid of the comparison: what is asked of every peer, and what came back."""
import random
import statistics
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Request:
    prompt: tuple  # token ids
    adapter: int | None  # index, or None for the bare base
    output_tokens: int


@dataclass(frozen=True)
class Cell:
    """One line of the tables. `adapters` 0 is the base; k > 0 deals k adapters out to the requests in turn."""

    model: str
    dtype: str
    adapters: int
    concurrency: int
    prompt_tokens: int
    output_tokens: int

    def requests(self, vocab_size: int) -> list:
        """As many as are in flight, all sent at once; the same for every peer and round."""
        draw = random.Random(f"{self.prompt_tokens}/{self.output_tokens}")
        return [
            Request(tuple(draw.randrange(1, vocab_size) for _ in range(self.prompt_tokens)),
                    index % self.adapters if self.adapters else None, self.output_tokens)
            for index in range(self.concurrency)]

    def __str__(self) -> str:
        return (f"{self.model} {self.dtype}, {self.adapters} adapters, {self.concurrency} at once, "
                f"{self.prompt_tokens}/{self.output_tokens}")


@dataclass
class Outcome:
    """One run of one cell by one peer."""

    wall_s: float
    first_token_s: list = field(default_factory=list)  # one per request, since the run began; empty: not streamed
    num_tokens: int = 0

    def __post_init__(self):
        if self.wall_s <= 0:
            raise ValueError(f"a run took {self.wall_s} s")

    @property
    def tokens_per_s(self) -> float:
        return self.num_tokens / self.wall_s

    @property
    def mean_first_token_s(self) -> float | None:
        return statistics.fmean(self.first_token_s) if self.first_token_s else None


def grid(models, dtypes, adapters, concurrencies, shapes) -> list:
    """Every combination in which the adapters are not more than the requests."""
    return [
        Cell(model, dtype, k, concurrency, prompt, output)
        for model in models for dtype in dtypes for prompt, output in shapes
        for concurrency in concurrencies for k in adapters if k <= concurrency]
