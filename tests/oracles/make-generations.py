# Golden greedy continuations of the test models: 20 prompts, 64 tokens each, by transformers in f32 on the weights that
# their GGUF files stand for. Writes golden/generations.json: ids of prompt and answer, and the least margin between the
# likeliest token and the next.
#   node scripts/fetch-test-models.ts; pip install torch transformers gguf && python tests/oracles/make-generations.py
import json
import os
import pathlib

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

here = pathlib.Path(__file__).parent / "golden"
folder = pathlib.Path(os.environ.get("NEXUS_MODELS", pathlib.Path.home() / ".cache/nexus/models"))
# No digits: transformers' conversion of SmolLM2's tokenizer cuts them differently.
prompts = [
    "The capital of France is", "Once upon a time, there was a small whale who", "def fibonacci(n):\n    ",
    "To make a good cup of tea,", "Photosynthesis is the process by which", "Dear Sir or Madam,\n\nI am writing to",
    "The three primary colours are", "In a distant galaxy", "Water boils when", "import numpy as np\n\n",
    "My favourite book is", "The quick brown fox", "Es war einmal ein König, der", "La ville de Paris est",
    "Question: Why is the sky blue?\nAnswer:", "<html>\n<body>\n", "A list of fruits:\n-", "She opened the door and",
    "Machine learning models are trained by", "The meaning of life",
]
count = 64
result = {}
for name in ["SmolLM2-135M-Instruct.Q4_1.gguf", "gemma-3-270m-q4_k_m.gguf"]:
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    print(name, model.config.architectures, flush=True)
    cases = []
    for prompt in prompts:
        ids = tokenizer(prompt)["input_ids"]
        answer, margin, past, fresh = [], float("inf"), None, torch.tensor([ids])
        with torch.no_grad():
            for _ in range(count):
                out = model(fresh, past_key_values=past, use_cache=True)
                past = out.past_key_values
                best = out.logits[0, -1].topk(2)
                margin = min(margin, float(best.values[0] - best.values[1]))
                answer.append(int(best.indices[0]))
                fresh = torch.tensor([[answer[-1]]])
        cases.append({"prompt": ids, "answer": answer, "margin": round(margin, 5)})
        print(repr(prompt), repr(tokenizer.decode(answer))[:80], margin, flush=True)
    result[name] = cases
(here / "generations.json").write_text(json.dumps(result, separators=(",", ":")) + "\n")
