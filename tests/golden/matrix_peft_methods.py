"""The PEFT configurations of the golden matrix, for any of its architectures."""

from dataclasses import dataclass, field, replace

import peft

COMMON = {"task_type": "CAUSAL_LM"}
# Rows that trainable-token adapters replace; prompts for them contain these ids.
TRAINED_TOKENS = [7, 64, 121]
VIRTUAL_TOKENS = 5


@dataclass(frozen=True)
class Targets:
    """What an architecture calls the modules that adapters attach to."""

    qv: list[str]
    attention: list[str]
    attention_output: list[str]
    mlp_output: list[str]
    one: str
    last_layer_one: str
    embedding: str
    head: str = "lm_head"


def targets_of(architecture: str, layers: int) -> Targets:
    """The module names of one architecture of `layers` layers."""
    if architecture == "gpt2":
        return Targets(
            qv=["c_attn"],
            attention=["c_attn", "attn.c_proj"],
            attention_output=["attn.c_proj"],
            mlp_output=["mlp.c_proj"],
            one="c_attn",
            last_layer_one=f"h.{layers - 1}.attn.c_attn",
            embedding="wte",
        )
    return Targets(
        qv=["q_proj", "v_proj"],
        attention=["q_proj", "k_proj", "v_proj", "o_proj"],
        attention_output=["o_proj"],
        mlp_output=["down_proj"],
        one="q_proj",
        last_layer_one=f"layers.{layers - 1}.self_attn.q_proj",
        embedding="embed_tokens",
    )


@dataclass(frozen=True)
class Method:
    """One row of the matrix: how to make its PEFT config."""

    config: peft.PeftConfig
    prompt_ids: list[int] = field(default_factory=list)
    save_base_embeddings: bool = True  # as PEFT does by itself where an embedding is a target
    note: str = ""


def lora_methods(t: Targets) -> dict[str, Method]:
    """LoRA and what may be combined with it."""

    def lora(**options) -> Method:
        return Method(peft.LoraConfig(**COMMON, **{"r": 5, "lora_alpha": 7, **options}))

    def small(**options) -> Method:
        return replace(lora(**options), save_base_embeddings=False)

    some = [*t.qv, *t.mlp_output]
    return {
        "lora": lora(target_modules=some),
        "lora-all-linear": lora(r=2, target_modules="all-linear"),
        "lora-rslora": lora(r=3, target_modules=t.attention, use_rslora=True),
        "lora-patterns": lora(
            target_modules=some,
            rank_pattern={t.one: 2, t.mlp_output[0]: 9},
            alpha_pattern={t.last_layer_one: 11, t.mlp_output[0]: 4},
        ),
        "lora-some-layers": lora(target_modules=t.attention, layers_to_transform=[0, 2]),
        "lora-bias-lora-only": lora(target_modules=some, bias="lora_only"),
        "lora-bias-all": lora(target_modules=some, bias="all"),
        "lora-lora-bias": lora(target_modules=some, lora_bias=True),
        "lora-embedding": lora(target_modules=[t.one, t.embedding]),
        "lora-head": lora(target_modules=[t.one, t.head]),
        "lora-embedding-and-head": small(target_modules=[t.embedding, t.head]),
        "lora-tied": small(target_modules=[t.one, t.embedding], ensure_weight_tying=True),
        "lora-dora": lora(target_modules=some, use_dora=True),
        "lora-dora-rslora": lora(r=4, target_modules=t.attention, use_dora=True, use_rslora=True),
        "lora-dora-embedding": small(target_modules=[t.one, t.embedding], use_dora=True),
        "lora-trainable-tokens": Method(
            lora(target_modules=t.qv, trainable_token_indices=TRAINED_TOKENS).config,
            prompt_ids=TRAINED_TOKENS,
        ),
        "lora-save-head": lora(target_modules=t.qv, modules_to_save=[t.head]),
        "lora-save-embedding": lora(target_modules=t.qv, modules_to_save=[t.embedding]),
    }


def other_delta_methods(t: Targets) -> dict[str, Method]:
    """The methods besides LoRA that change what a module computes."""
    some = [*t.qv, *t.mlp_output]

    def lokr(**options) -> Method:
        return Method(peft.LoKrConfig(**COMMON, **{"target_modules": some, "alpha": 5, **options}))

    return {
        "ia3": Method(peft.IA3Config(**COMMON)),
        "ia3-feedforward-attention": Method(
            peft.IA3Config(
                **COMMON,
                target_modules=[*t.attention, *t.mlp_output],
                feedforward_modules=t.attention_output,
            )
        ),
        "vera": Method(peft.VeraConfig(**COMMON, r=9, target_modules=some, save_projection=True)),
        "loha": Method(peft.LoHaConfig(**COMMON, r=3, alpha=5, target_modules=some)),
        "loha-patterns": Method(
            peft.LoHaConfig(
                **COMMON,
                r=4,
                alpha=6,
                target_modules=some,
                rank_pattern={t.mlp_output[0]: 2},
                alpha_pattern={t.one: 3},
            )
        ),
        "lokr-full": lokr(r=64),
        "lokr-low-rank": lokr(r=2, decompose_factor=3),
        "lokr-decompose-both": lokr(r=2, decompose_both=True, decompose_factor=5),
        "lokr-factor-2": lokr(r=4, decompose_factor=2),
        "trainable-tokens": Method(
            peft.TrainableTokensConfig(
                **COMMON, token_indices=TRAINED_TOKENS, target_modules=[t.embedding]
            ),
            prompt_ids=TRAINED_TOKENS,
        ),
    }


def context_methods() -> dict[str, Method]:
    """The methods that put virtual tokens in front."""
    virtual = {**COMMON, "num_virtual_tokens": VIRTUAL_TOKENS}
    return {
        "prompt-tuning": Method(peft.PromptTuningConfig(**virtual)),
        "p-tuning": Method(peft.PromptEncoderConfig(**virtual, encoder_hidden_size=24)),
        "p-tuning-lstm": Method(
            peft.PromptEncoderConfig(
                **virtual,
                encoder_reparameterization_type="LSTM",
                encoder_hidden_size=16,
                encoder_num_layers=1,
                encoder_dropout=0.0,
            )
        ),
        "prefix-tuning": Method(peft.PrefixTuningConfig(**virtual)),
        "prefix-tuning-projection": Method(
            peft.PrefixTuningConfig(**virtual, prefix_projection=True, encoder_hidden_size=18)
        ),
        "prefix-tuning-long": Method(
            peft.PrefixTuningConfig(**{**virtual, "num_virtual_tokens": 17})
        ),
    }


def methods_of(architecture: str, layers: int) -> dict[str, Method]:
    """All rows of the PEFT half of the matrix for one architecture."""
    targets = targets_of(architecture, layers)
    return lora_methods(targets) | other_delta_methods(targets) | context_methods()
