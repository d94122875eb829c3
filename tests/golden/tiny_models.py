"""Tiny random Llama folders, one for each option of the architecture that a server must honour."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from seeds import seed_of
from texts import HAND_PICKED
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from transformers import LlamaConfig, LlamaForCausalLM

VOCAB_SIZE = 320
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
PAD_ID, BOS_ID, EOS_ID = range(3)

# The split of Llama 3's tokenizer.json.
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHATML_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Uses what Llama 3's template uses: set, loop.index0, a filter, and the BOS text as a variable.
TRIMMING_TEMPLATE = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|im_start|>' + message['role'] + '\n\n' + message['content'] | trim"
    " + '<|im_end|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n\n' }}{% endif %}"
)


@dataclass(frozen=True)
class TinyModel:
    """What distinguishes one tiny model from the others."""

    shape: dict
    rope: dict = field(default_factory=lambda: {"rope_type": "default", "rope_theta": 10000.0})
    legacy_rope_keys: bool = False
    llama3_tokenizer: bool = False
    stored_dtype: torch.dtype = torch.float32
    max_shard_bytes: int = 0


def shape(hidden: int, layers: int, heads: int, kv_heads: int, head_dim: int, **more) -> dict:
    """LlamaConfig arguments for these sizes, with an MLP of 7/4 of the hidden size."""
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "intermediate_size": hidden * 7 // 4,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        **more,
    }


TINY_MODELS = {
    "tiny-llama": TinyModel(shape(64, 3, 4, 2, 16)),
    # head_dim is not hidden / heads: 6 * 16 != 48.
    "tiny-llama-tied-bias": TinyModel(
        shape(48, 3, 6, 3, 16, tie_word_embeddings=True, attention_bias=True, mlp_bias=True),
    ),
    "tiny-llama-rope-linear": TinyModel(
        shape(32, 2, 4, 1, 8),
        rope={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
        legacy_rope_keys=True,
    ),
    # Dynamic scaling starts past max_position_embeddings.
    "tiny-llama-rope-dynamic": TinyModel(
        shape(32, 2, 4, 2, 16, max_position_embeddings=32),
        rope={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0},
    ),
    "tiny-llama-rope-llama3": TinyModel(
        shape(32, 2, 4, 2, 16, rms_norm_eps=1e-6),
        rope={
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
        legacy_rope_keys=True,
        llama3_tokenizer=True,
    ),
    "tiny-llama-rope-yarn": TinyModel(
        shape(32, 2, 2, 2, 32, max_position_embeddings=128),
        rope={
            "rope_type": "yarn",
            "rope_theta": 1000.0,
            "factor": 4.0,
            "beta_fast": 8.0,
            "beta_slow": 0.5,
            "original_max_position_embeddings": 32,
        },
    ),
    "tiny-llama-sharded-bf16": TinyModel(
        shape(64, 2, 4, 4, 16), stored_dtype=torch.bfloat16, max_shard_bytes=60_000
    ),
}


def fill_random(model: LlamaForCausalLM, name: str) -> None:
    """Weights that give logits of a spread of about 2, so that two tokens rarely tie."""
    generator = torch.Generator().manual_seed(seed_of(name))
    for key, weight in model.named_parameters():
        values = torch.randn(weight.shape, generator=generator)
        if key.endswith("norm.weight"):
            values = 1 + 0.2 * values
        elif key.endswith("bias"):
            values *= 0.2
        elif key in ("model.embed_tokens.weight", "lm_head.weight"):
            values *= 0.3
        else:
            values *= 1.2 / weight.shape[1] ** 0.5
        weight.data.copy_(values)


def make_model(name: str) -> LlamaForCausalLM:
    """The model with its random weights, in fp32."""
    tiny = TINY_MODELS[name]
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        pad_token_id=PAD_ID,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        rope_parameters=tiny.rope,
        **{"tie_word_embeddings": False, **tiny.shape},
    )
    model = LlamaForCausalLM(config)
    fill_random(model, name)
    return model


def use_legacy_rope_keys(folder: Path) -> None:
    """Rewrites rope_parameters of config.json as rope_theta and rope_scaling, as before v5."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    scaling = config.pop("rope_parameters")
    config["rope_theta"] = scaling.pop("rope_theta")
    config["rope_scaling"] = scaling
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def sort_tensors(folder: Path) -> None:
    """Rewrites each safetensors file, so that its bytes depend on the tensors alone."""
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in sorted(file.keys())}
        save_file(tensors, path, metadata={"format": "pt"})


def make_tokenizer(llama3: bool) -> Tokenizer:
    """A byte-level BPE of VOCAB_SIZE tokens; in Llama 3's manner it also prepends BOS."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=llama3))
    if llama3:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{SPECIAL_TOKENS[BOS_ID]} $A",
            special_tokens=[(SPECIAL_TOKENS[BOS_ID], BOS_ID)],
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(HAND_PICKED, trainer)
    assert tokenizer.get_vocab_size() == VOCAB_SIZE
    return tokenizer


def write_tokenizer(folder: Path, llama3: bool) -> None:
    """tokenizer.json and tokenizer_config.json."""
    make_tokenizer(llama3).save(str(folder / "tokenizer.json"), pretty=False)
    config = {
        "bos_token": SPECIAL_TOKENS[BOS_ID],
        "chat_template": TRIMMING_TEMPLATE if llama3 else CHATML_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": SPECIAL_TOKENS[EOS_ID],
        "model_max_length": 256,
        "pad_token": SPECIAL_TOKENS[PAD_ID],
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def write_model(name: str, folder: Path) -> None:
    """Writes the Hugging Face folder of one tiny model."""
    tiny = TINY_MODELS[name]
    model = make_model(name).to(tiny.stored_dtype)
    shards = {"max_shard_size": tiny.max_shard_bytes} if tiny.max_shard_bytes else {}
    model.save_pretrained(folder, **shards)
    sort_tensors(folder)
    if tiny.legacy_rope_keys:
        use_legacy_rope_keys(folder)
    write_tokenizer(folder, tiny.llama3_tokenizer)
