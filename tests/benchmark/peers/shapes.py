"""The sizes of the comparison's models and adapters."""
from dataclasses import dataclass

RANK = 16  # of every adapter, on all linear layers
BYTES_EACH = {"bf16": 2, "fp32": 4}


@dataclass(frozen=True)
class Shape:
    """A Llama: its sizes as config.json names them."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    vocab_size: int
    tie_word_embeddings: bool
    rope_theta: float = 10000.0
    max_position_embeddings: int = 4096

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    def linear_layers(self) -> dict:
        """Module name below a layer -> (out, in)."""
        kv = self.num_key_value_heads * self.head_dim
        hidden, intermediate = self.hidden_size, self.intermediate_size
        return {
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (kv, hidden),
            "self_attn.v_proj": (kv, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (intermediate, hidden),
            "mlp.up_proj": (intermediate, hidden),
            "mlp.down_proj": (hidden, intermediate),
        }


SHAPES = {
    "125m": Shape(768, 12, 12, 4, 2048, 32000, tie_word_embeddings=False),
    "1b": Shape(2048, 16, 32, 8, 8192, 128256, tie_word_embeddings=True, rope_theta=500000.0),
}
