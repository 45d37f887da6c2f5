# Golden files of the formats, by the libraries that define them.
#   pip install safetensors tokenizers numpy && python tests/oracles/make-formats.py
# Writes tests/oracles/golden/formats.safetensors and tokenizer-ids.json.
import json
import pathlib
import random

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer

here = pathlib.Path(__file__).parent / "golden"

tensors = {
    "b.matrix": np.arange(6, dtype=np.float32).reshape(2, 3) / 4,
    "a.half": np.array([1.5, -2.25, 65504.0], dtype=np.float16),
    "scalar": np.array(7, dtype=np.int32),
    "empty": np.zeros((0, 4), dtype=np.float32),
    "bytes": np.array([1, 2, 255], dtype=np.uint8),
    "c.words": np.array([3, 4], dtype=np.uint32),
}
save_file(tensors, here / "formats.safetensors", {"format": "pt"})

tokenizer = Tokenizer.from_file(str(pathlib.Path(__file__).parents[2] / "models/tiny-teacher/tokenizer.json"))
random.seed(5)
alphabet = [chr(code) for code in range(32, 127)] + ["\n"]
texts = ["".join(random.choice(alphabet) for _ in range(random.randrange(1, 40))) for _ in range(200)]
texts += ["    ", "  a  b  ", "\n\n", "<s>", "</s> hi", "+74+98=", "#rbach>"]
rows = [{"text": text, "ids": tokenizer.encode(text, add_special_tokens=False).ids} for text in texts]
for row in rows:
    assert tokenizer.decode(row["ids"], skip_special_tokens=False) == row["text"]
(here / "tokenizer-ids.json").write_text(json.dumps(rows) + "\n")
