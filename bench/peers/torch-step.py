# The training step of bench/training.ts in PyTorch and PEFT in f32, on the GPU where there is one that it knows:
#   python bench/peers/torch-step.py <layers> <batch> <tokens> <rounds> <rank> <vocabulary>
import statistics
import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

layers, batch, tokens, rounds, rank, vocabulary = map(int, sys.argv[1:7])
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
model = LlamaForCausalLM(LlamaConfig(
    vocab_size=vocabulary, hidden_size=576, intermediate_size=1536, num_hidden_layers=layers, num_attention_heads=9,
    num_key_value_heads=3, tie_word_embeddings=True, max_position_embeddings=8192,
))
names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
model = get_peft_model(model, LoraConfig(r=rank, lora_alpha=rank, target_modules=names, task_type="CAUSAL_LM")).to(device)
trained = [p for p in model.parameters() if p.requires_grad]
optimiser = torch.optim.AdamW(trained, lr=0.0, betas=(0.9, 0.95), weight_decay=0)
ids, targets = torch.randint(0, vocabulary, (2, batch, tokens), device=device)


def loss():
    return torch.nn.functional.cross_entropy(model(ids).logits.transpose(1, 2), targets)


def forward():
    with torch.no_grad():
        loss()


def backward():
    optimiser.zero_grad()
    loss().backward()


def update():
    backward()
    torch.nn.utils.clip_grad_norm_(trained, 1)
    optimiser.step()


for name, part in [("forward", forward), ("and backward", backward), ("and update", update)]:
    times = []
    for round in range(rounds + 1):
        began = time.perf_counter()
        part()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - began))
    ms = statistics.median(times[1:])
    where = torch.cuda.get_device_name() if device == "cuda" else f"the processor, {torch.get_num_threads()} threads"
    print(f"PyTorch {torch.__version__} on {where}, LoRA {name}: {ms:.0f} ms, "
          f"{1000 * batch * tokens / ms:.0f} tokens/s")
