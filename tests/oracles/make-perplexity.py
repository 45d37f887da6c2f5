# Golden perplexities of the test models by llama.cpp on their GGUF files, and by transformers in f32 on the same weights:
# the first 4,096 tokens of Moby Dick in windows of 1,024. llama.cpp rounds activations to 8 bits where weights are quantised;
# a copy of the file with its weights written out in f32 shows what that costs, and its backend with OpenBLAS, which makes products
# in f32, says what the file itself gives without that.
#   node scripts/fetch-test-models.ts; (cd tests/oracles/packages && npm ci --ignore-scripts)
#   apt-get install g++ git libopenblas-dev; pip install torch transformers gguf numpy && python tests/oracles/make-perplexity.py
# Writes golden/perplexity.json: sums of -log p (nats) over every 128 tokens, window after window. The beginning token, where
# the tokenizer asks for one, goes before each window; without one, a window's first token is not predicted.
import hashlib
import json
import os
import pathlib
import subprocess
import tempfile

import numpy as np
import torch
import transformers
from llama_cpp import LlamaCpp, load_blas, release, write_exact
from transformers import AutoModelForCausalLM

here = pathlib.Path(__file__).parent
folder = pathlib.Path(os.environ.get("NEXUS_MODELS", pathlib.Path.home() / ".cache/nexus/models"))
script = "import('../models/moby-dick.ts').then(({ mobyDickText }) => process.stdout.write(mobyDickText()))"
text = subprocess.run([here.parents[1] / "node_modules/.bin/node", "-e", script], cwd=here, capture_output=True, check=True).stdout.decode()
count, context, group = 4096, 1024, 128
result = {}


def sums(logits, window, before):
    """Sums of -log p of the tokens of a window, by groups; `before` tokens went before it."""
    losses = torch.nn.functional.cross_entropy(logits.double(), torch.tensor(window[1:]), reduction="none")
    own = torch.cat([torch.zeros(1 - before), losses]).view(-1, group).sum(1)
    return [round(float(value), 4) for value in own]


def windows_of(ids, prefix):
    return [prefix + ids[begin : begin + context] for begin in range(0, count, context)]


for name, prefix in {"SmolLM2-135M-Instruct.Q4_1.gguf": [], "gemma-3-270m-q4_k_m.gguf": [2]}.items():
    llama = LlamaCpp(folder / name)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    ids = llama.tokenize(text)[:count]
    windows = windows_of(ids, prefix)
    theirs, plain, exact = [], [], []
    with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
        write_exact(folder / name, file.name)
        written_out = LlamaCpp(file.name)
    for window in windows:
        theirs += sums(torch.from_numpy(llama.logits(window[:-1])), window, len(prefix))
        plain += sums(torch.from_numpy(written_out.logits(window[:-1], exact=True)), window, len(prefix))
        with torch.no_grad():
            exact += sums(model(torch.tensor([window[:-1]])).logits[0], window, len(prefix))
    predicted = count - (0 if prefix else count // context)
    print(name, *(float(np.exp(sum(losses) / predicted)) for losses in (theirs, plain, exact)), flush=True)
    result[name] = dict(
        tokens=count, predicted=predicted, context=context, group=group, prefix=prefix,
        sha256=hashlib.sha256(np.array(ids, dtype="<u4").tobytes()).hexdigest(),
        llamaCpp=dict(release=release, losses=theirs, writtenOut=plain),
        transformers=dict(version=transformers.__version__, losses=exact),
    )
load_blas()  # from here on every context uses it
for name, golden in result.items():
    llama = LlamaCpp(folder / name, repack=False)
    losses, prefix = [], golden["prefix"]
    for window in windows_of(llama.tokenize(text)[:count], prefix):
        losses += sums(torch.from_numpy(llama.logits(window[:-1])), window, len(prefix))
    print(name, "with OpenBLAS", float(np.exp(sum(losses) / golden["predicted"])), flush=True)
    golden["llamaCpp"]["blas"] = losses
(here / "golden/perplexity.json").write_text(json.dumps(result, separators=(",", ":")) + "\n")
