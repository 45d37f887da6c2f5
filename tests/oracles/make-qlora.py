# The loss curve of QLoRA by PyTorch and PEFT, on SmolLM2-135M with its linear layers in NF4: bitsandbytes quantises them,
# and what it dequantises is the base, in f32. Data, order and first adapter are those of tests/train/qlora-case.ts.
# Writes golden/qlora.json: what each step learned from, and its loss.
#   node scripts/fetch-test-models.ts; mkdir /tmp/qlora; node tests/oracles/dump-qlora.ts /tmp/qlora
#   pip install torch transformers gguf peft bitsandbytes && python tests/oracles/make-qlora.py /tmp/qlora
import json
import os
import pathlib
import sys
import time

import bitsandbytes.functional as quantization
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

here = pathlib.Path(__file__).parent / "golden"
work = pathlib.Path(sys.argv[1])
folder = pathlib.Path(os.environ.get("NEXUS_MODELS", pathlib.Path.home() / ".cache/nexus/models"))
run = json.loads((work / "run.json").read_text())
settings = run["settings"]

model = AutoModelForCausalLM.from_pretrained(folder, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf", dtype=torch.float32)
names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
for name, module in model.named_modules():
    if name.split(".")[-1] in names:
        packed, state = quantization.quantize_4bit(module.weight.data, blocksize=64, quant_type="nf4")
        module.weight.data = quantization.dequantize_4bit(packed, state).to(torch.float32)
model = get_peft_model(model, LoraConfig(
    r=settings["rank"], lora_alpha=settings["alpha"], target_modules=names, lora_dropout=0, task_type="CAUSAL_LM",
))
parameters = {name.replace(".default", ""): p for name, p in model.named_parameters() if p.requires_grad}
initial = load_file(work / "initial.safetensors")
assert sorted(initial) == sorted(parameters)
for name, values in initial.items():
    parameters[name].data.copy_(values)
model.train()
optimiser = torch.optim.AdamW(parameters.values(), lr=settings["lr"], betas=(0.9, 0.95), eps=1e-8, weight_decay=0)

losses, norms, began = [], [], time.time()
for index, step in enumerate(run["steps"]):
    shape = (step["rows"], -1)
    ids, targets = (torch.tensor(step[key]).view(shape) for key in ["ids", "targets"])
    weights = torch.tensor(step["weights"], dtype=torch.float32).view(shape)
    logits = model(ids).logits
    each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    loss = (each * weights).sum() / weights.sum()
    optimiser.zero_grad()
    loss.backward()
    norms.append(float(torch.nn.utils.clip_grad_norm_(parameters.values(), settings["clip"])))
    optimiser.step()
    losses.append(float(loss))
    if index % 10 == 0:
        print(index, losses[-1], norms[-1], f"{(time.time() - began) / (index + 1):.2f} s a step", flush=True)
(here / "qlora.json").write_text(json.dumps(
    {"settings": settings, "ids": [step["ids"] for step in run["steps"]], "losses": losses, "norms": norms}
) + "\n")
