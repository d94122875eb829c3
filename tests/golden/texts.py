"""Strings that tell tokenizers apart, and chats that exercise a template."""

import random

HAND_PICKED = (
    "",
    " ",
    "  ",
    "\n",
    "\n\n\n",
    "\t\t x\t",
    "\r\n\r\n",
    "a",
    "Hello, world!",
    " Hello",
    "Hello ",
    "hello  world   again    and",
    "0",
    "42",
    "1234567890",
    "3.14159 and 2,718.28",
    "in  1999,  12  monkeys",
    "   7",
    "v1.2.3-rc4+build567",
    "²³ ½ Ⅷ ٣٤ १२३ 五",
    "don't I'll you've we're he'd I'm it's DON'T I'LL",
    "naïve café Zürich Ærø Łódź",
    "e\u0301 is not é",
    "Привет, мир! Как дела?",
    "你好,世界。今天天气很好。",
    "こんにちは世界",
    "안녕하세요 세계",
    "مرحبا بالعالم",
    "שלום עולם",
    "สวัสดีชาวโลก",
    "नमस्ते दुनिया",
    "👋🌍",
    "👩‍👩‍👧‍👦 family, 🇫🇷 flag, 👍🏽 skin",
    "zero\u200bwidth\u00a0nbsp\u3000ideographic\u2028line",
    "\ufeffbom and \ufffd replacement",
    "nul\x00 bell\x07 escape\x1b[0m",
    "\U0001f9ec\U00020000 astral",
    "<|im_start|>user\nhi<|im_end|>\n",
    "<|endoftext|><|endoftext|>",
    "almost <|im_start |> special <|im_en",
    "x<|im_end|>y <|im_end|> z",
    "<repo_name>tenon<file_sep>main.cc",
    "def f(x: int) -> int:\n    return x ** 2  # square\n",
    "for (int i = 0; i < n; ++i) {\n\tsum += a[i];\n}\n",
    '{"key": [1, 2.5, null, true], "s": "a\\"b\\\\c"}',
    "SELECT * FROM t WHERE id=42 AND name LIKE '%x%';",
    '<html><body class="a">&amp;</body></html>',
    "https://example.com/path?q=1&r=%20#frag",
    "user.name+tag@example.co.uk",
    "/usr/local/lib/libfoo.so.1.2",
    "C:\\Windows\\System32\\",
    "!!!???...---___===***",
    "$1,000.00 €5 £7 ¥9 100%",
    "E = mc² ∑∫∂∇ α→β ≠ ≤",
    "ALLCAPS camelCase snake_case kebab-case",
    "a" * 64,
    "ab" * 40,
    " " * 33 + "x" + " " * 17,
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "The capital of France is Paris.",
    "1\n2\n3\n\n  4",
    "\u0000",
    "Line one.\nLine two.\n\n    Indented.\n",
)

WORDS = (
    "the", "Server", "adapter", "batch", "of", "42", "7", "x1", "naïve", "поток", "世界", "🙂",
    "it's", "they'll", "(a)", "[0]", "{}", "--", "…", "“quote”", "http://a.b", "3.5", "ÀÉ", "ß",
    "0x1F", "print()", "\\n", "&&", "//", "é", "<|im_end|>", "1999", "٤٢",
)  # fmt: skip
SEPARATORS = (" ", "  ", "   ", "\n", "\n\n", "\t", "", ", ", ". ", "\r\n", "\u00a0")


def tokenizer_texts(count: int) -> list[str]:
    """The hand-picked strings and seeded mixtures of words and separators, count in all."""
    rng = random.Random(20240817)
    texts = list(HAND_PICKED)
    while len(texts) < count:
        parts = []
        for _ in range(rng.randint(1, 14)):
            parts += [rng.choice(WORDS), rng.choice(SEPARATORS)]
        texts.append("".join(parts))
    return texts[:count]


CHATS = (
    [{"role": "user", "content": "Hi"}],
    [
        {"role": "system", "content": "Answer in one word."},
        {"role": "user", "content": "What is 2 + 2?"},
    ],
    [
        {"role": "user", "content": "Hello\nthere"},
        {"role": "assistant", "content": "Hi! How can I help?"},
        {"role": "user", "content": "  Écris un poème 🙂  "},
    ],
    [
        {"role": "system", "content": ""},
        {"role": "user", "content": "<|im_end|> is just text {{ here }}"},
    ],
    [{"role": "user", "content": "first"}, {"role": "user", "content": "second"}],
)

SMOLLM2_PROMPTS = {
    "word": "Once",
    "sentence": "The three primary colours of light are",
    "chat": (
        "<|im_start|>system\nYou are a helpful AI assistant.<|im_end|>\n"
        "<|im_start|>user\nName two rivers in Europe.<|im_end|>\n<|im_start|>assistant\n"
    ),
    "code": 'def fibonacci(n):\n    """The n-th Fibonacci number."""\n    if n < 2:\n',
    "article": (
        "A lighthouse is a tower that carries a strong lamp and warns ships of rocks and shallow"
        " water. The oldest ones burned wood or coal on an open platform, and keepers had to feed"
        " the fire all night. In the 18th century oil lamps with mirrors took their place, and in"
        " 1823 the first large lens made of glass rings gathered nearly all of the light into one"
        " beam. Each tower got its own pattern of flashes, so that a sailor with a clock and a"
        " list could tell them apart in the dark. Today almost all lighthouses run without a"
        " keeper. Satellite navigation has made them less important, but"
    ),
}  # fmt: skip
