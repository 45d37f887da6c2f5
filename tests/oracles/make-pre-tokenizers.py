# Golden token ids for the ways of cutting text that GGUF names, by the tokenizers library with transformers' patterns.
#   pip install transformers tokenizers && python tests/oracles/make-pre-tokenizers.py
# For each: a small byte-level BPE trained on words with that cut, and ids of texts. Writes golden/pre-tokenizers.json.
import json
import pathlib

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS as splits

here = pathlib.Path(__file__).parent / "golden"
texts = [row for row in json.loads((here / "gguf-ids.json").read_text())["texts"] if "\x00" not in row]
result = {}
for name in ["llama-bpe", "qwen2", "tekken", "gpt-2", "smollm"]:
    tokenizer = Tokenizer(models.BPE(ignore_merges=name in ("llama-bpe", "tekken")))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=name not in splits)
    first = [pre_tokenizers.Split(Regex(splits[name]), behavior="isolated")] if name in splits else []
    first += [pre_tokenizers.Digits(individual_digits=True)] if name == "smollm" else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(first + [level])
    if name == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(vocab_size=450, min_frequency=1, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    result[name] = dict(tokens=tokens, merges=[" ".join(merge) for merge in model["merges"]], ids=[tokenizer.encode(text).ids for text in texts])
(here / "pre-tokenizers.json").write_text(json.dumps(dict(texts=texts, cases=result), separators=(",", ":")) + "\n")
