"""Greedy decoding by transformers and PEFT."""

import json
from pathlib import Path

import peft
import torch
import transformers
from golden_writer import STEPS
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

VERSIONS = {
    "transformers": transformers.__version__,
    "peft": peft.__version__,
    "torch": torch.__version__,
}


def load(
    model_dir: Path, adapter_dir: Path | None, dtype: torch.dtype = torch.float32
) -> PreTrainedModel | PeftModel:
    """The model with eager attention, and one adapter read from its folder.

    A fresh model for every case: a Llama with dynamic rotary scaling keeps the frequencies of the
    longest sequence that it has seen.
    """
    model = AutoModelForCausalLM.from_pretrained(
        model_dir, dtype=dtype, attn_implementation="eager"
    )
    if adapter_dir is not None:
        model = PeftModel.from_pretrained(model, adapter_dir)
    return model.eval()


@torch.inference_mode()
def greedy_logits(model: torch.nn.Module, prompt: list[int], steps: int = STEPS) -> torch.Tensor:
    """Logits [steps, vocab] fp32 of greedy decoding with a KV cache; EOS does not end it."""
    ids, cache, rows = torch.tensor([prompt]), None, []
    for _ in range(steps):
        output = model(input_ids=ids, past_key_values=cache, use_cache=True)
        cache, row = output.past_key_values, output.logits[0, -1]
        rows.append(row)
        ids = row.argmax().reshape(1, 1)
    return torch.stack(rows)


def write_tokenizer_cases(
    model_dir: Path, texts: list[str], chats: tuple[list[dict], ...], path: Path
) -> None:
    """Ids and decoded text of each string, and each chat rendered with and without prompt.

    `ids` are with the special tokens that the tokenizer adds by itself. `decoded` keeps special
    tokens, `decoded_plain` skips them.
    """
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    encodings = []
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        encodings.append(
            {
                "text": text,
                "ids": ids,
                "decoded": tokenizer.decode(ids),
                "decoded_plain": tokenizer.decode(ids, skip_special_tokens=True),
            }
        )
    templates = [
        {
            "messages": messages,
            "add_generation_prompt": prompted,
            "rendered": tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=prompted
            ),
        }
        for messages in chats
        for prompted in (False, True)
    ]
    encoded = ",\n".join(json.dumps(case) for case in encodings)
    rendered = ",\n".join(json.dumps(case) for case in templates)
    path.write_text(f'{{\n"encodings": [\n{encoded}\n],\n"chat_templates": [\n{rendered}\n]\n}}\n')
