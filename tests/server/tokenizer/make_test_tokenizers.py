"""Makes the tiny tokenizers of data/ and the ids that Python's tokenizers gives for them.

    python tests/server/tokenizer/make_test_tokenizers.py

data/bpe:       byte-level BPE with the Llama 3 split pattern, special tokens, a chat template.
data/fallback:  SentencePiece-style BPE with byte fallback (Llama 2), no chat template.
Each holds cases.json: a list of {"text", "ids", "ids_with_special", "decoded", "decoded_all"}, and
data/bpe/chats.json: a list of {"template", "messages", "add_generation_prompt", "rendered"}, made
by transformers' own renderer.
"""

import json
import pathlib

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers.utils.chat_template_utils import render_jinja_template

DATA = pathlib.Path(__file__).parent / "data"

CORPUS = [
    "The mortise and the tenon hold a frame together without a nail.",
    "A frame that is cut with care holds for a hundred years, and the joint does not move.",
    "The quick brown fox jumps over the lazy dog; the dog does not mind, it's asleep.",
    "Measure twice, cut once: 12 cm by 345 mm, and the rest is sawdust.",
    "Größe, Straße und Übermut. Ça va très bien à l'école.",
    "def cut(board, at):\n    return board[:at], board[at:]\n",
] * 4

TEXTS = [
    "",
    " ",
    "The tenon holds.",
    "  two  spaces\tand a tab\n\n\nthree lines\r\n",
    "it's they'll WE'VE I'm",
    "Größe straße ÜBER école",
    "日本語のテキスト、混ざった text です。",
    "emoji 👩‍👩‍👧‍👦 🇩🇪 👍🏽 end",
    "combining e\u0301 a\u0308 and \u200b zero width",
    "numbers 1234567890 3.14159 1,000,000",
    "<|user|>hello<|end|>",
    "<|user|> hello <|end|> <|use|>",
    "\u0000\u0001\u007f\ufffd\uffff",
    "a" * 300,
    "x \u00a0 y \u3000 z",
    "العربية עברית हिन्दी ไทย",
]

SPECIAL = ["<|begin|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

MESSAGES = [
    [{"role": "user", "content": "How wide is it?"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "  Grüße 👍 \"quoted\" <b> & 'x' \n"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Bye.\\"},
    ],
]

TEMPLATES = {
    "plain": "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + "
    "'<|end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}",
    "methods": "{{- bos_token }}\n{%- if messages[0]['role'] == 'system' %}\n"
    "    {%- set system = messages[0].content.strip() %}\n    {%- set rest = messages[1:] %}\n"
    "{%- else %}\n    {%- set system = '' %}\n    {%- set rest = messages %}\n{%- endif %}\n"
    "{%- for message in rest %}\n"
    "    {%- if loop.index0 % 2 == 0 and message.role != 'user' %}{{ raise_exception('no') }}{% endif %}\n"
    "    {%- for key, value in message.items() %}[{{ key.upper() }}={{ value | trim }}]{% endfor %}\n"
    "    {{- message.content.split(' ')[0].startswith('H') }}\n"
    "    {{- message.content.replace('H', 'J').lstrip().rstrip('.') }}\n{% endfor %}\n"
    "{%- if tools is not none %}T{% endif %}{% if tools is defined %}D{% endif %}{{ none }}",
    "namespace": "{% set ns = namespace(turns=0, last=none) %}{% for m in messages %}"
    "{% if m.role == 'assistant' %}{% continue %}{% endif %}"
    "{% set ns.turns = ns.turns + 1 %}{% set ns.last = m %}{% endfor %}"
    "{{ ns.turns }} {{ ns.last | tojson }} {{ ns.last | tojson(indent=2) }} {{ messages | tojson }}",
    "macros": "{%- macro turn(role, text='') -%}\n<{{ role }}>{{ text }}</{{ role }}>\n{%- endmacro -%}\n"
    "{% for m in messages %}\n  {% if m.role == 'assistant' %}\n"
    "{% generation %}{{ turn(m.role, m.content) }}{% endgeneration %}\n  {% else %}\n"
    "{{ turn(m['role'], text=m['content']) }}\n  {% endif %}\n  {% if loop.last and add_generation_prompt %}"
    "{{ turn('assistant') }}{% endif %}\n{% endfor %}\n{{ messages | map(attribute='role') | join(',') }}"
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ undefined_name }}",
}


def save(name, tokenizer, config):
    folder = DATA / name
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    write(folder / "tokenizer_config.json", config)
    cases = []
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        with_special = tokenizer.encode(text).ids
        cases.append(
            {
                "text": text,
                "ids": ids,
                "ids_with_special": with_special,
                "decoded": tokenizer.decode(with_special, skip_special_tokens=True),
                "decoded_all": tokenizer.decode(with_special, skip_special_tokens=False),
            }
        )
    write(folder / "cases.json", cases)


def write(path, value):
    path.write_text(json.dumps(value, ensure_ascii=True, indent=1) + "\n")


def make_bpe():
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", tokenizer.token_to_id("<|begin|>"))]
    )
    config = {
        "bos_token": {"content": "<|begin|>", "special": True},
        "eos_token": "<|end|>",
        "pad_token": None,
        "chat_template": TEMPLATES["plain"],
    }
    save("bpe", tokenizer, config)


def make_fallback():
    tokenizer = Tokenizer(BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    special = ["<unk>", "<s>", "</s>"]
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = BpeTrainer(vocab_size=450, special_tokens=special + fallback, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    # The trainer marks all 259 as special; the bytes are ordinary tokens of the model.
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] in special]
    state["model"]["byte_fallback"] = True
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    save("fallback", tokenizer, {"bos_token": "<s>", "eos_token": "</s>"})


def make_chats():
    chats = []
    for name, template in TEMPLATES.items():
        for messages in MESSAGES:
            for add_generation_prompt in (False, True):
                rendered, _ = render_jinja_template(
                    conversations=[messages],
                    chat_template=template,
                    add_generation_prompt=add_generation_prompt,
                    bos_token="<|begin|>",
                    eos_token="<|end|>",
                )
                chats.append(
                    {
                        "name": name,
                        "template": template,
                        "messages": messages,
                        "add_generation_prompt": add_generation_prompt,
                        "rendered": rendered[0],
                    }
                )
    write(DATA / "bpe" / "chats.json", chats)


if __name__ == "__main__":
    make_bpe()
    make_fallback()
    make_chats()
