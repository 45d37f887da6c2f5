# Golden loss, logits and gradients of a small Llama: Hugging Face's LlamaForCausalLM under PyTorch autograd, f64.
#   pip install torch==2.13.0 transformers safetensors && python tests/oracles/make-decoder.py
# Writes tests/oracles/golden/decoder-tied.safetensors and decoder-untied.safetensors.
import json
import pathlib

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

here = pathlib.Path(__file__).parent / "golden"

for tied in (True, False):
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=28, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=64, rms_norm_eps=1e-5, rope_theta=500.0,
        tie_word_embeddings=tied, attention_bias=False, mlp_bias=False, hidden_act="silu", eos_token_id=0,
        bos_token_id=0, attn_implementation="eager",
    )
    model = LlamaForCausalLM(config).double()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(torch.randn_like(weight) * (0.3 if weight.dim() > 1 else 0.2) + (0 if weight.dim() > 1 else 1))
            weight.copy_(weight.float().double())  # what the f32 file will hold
    ids = torch.randint(0, 40, (3, 11))
    targets = torch.randint(0, 40, (3, 11))
    weights = (torch.rand(3, 11) > 0.3).double()
    logits = model(ids).logits
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    loss = (losses * weights.flatten()).sum() / weights.sum()
    loss.backward()
    tensors = {
        "ids": ids.to(torch.int32), "targets": targets.to(torch.int32), "weights": weights.float(),
        "logits": logits.detach().float().contiguous(), "loss": loss.detach().float().reshape(1),
    }
    for name, weight in model.named_parameters():
        tensors[f"weight/{name}"] = weight.detach().float().contiguous()
        tensors[f"gradient/{name}"] = weight.grad.float().contiguous()
    fields = ["model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
              "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps",
              "tie_word_embeddings", "eos_token_id"]
    settings = {field: getattr(config, field) for field in fields} | {"rope_theta": 500.0}
    name = "decoder-tied" if tied else "decoder-untied"
    save_file(tensors, here / f"{name}.safetensors", {"config": json.dumps(settings)})
    print(name, float(loss))
